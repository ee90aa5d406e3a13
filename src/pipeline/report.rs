//! What a request learns: about each photograph, and in all.

use std::time::Duration;

use crate::face::calibration::CalibrationEntry;
use crate::face::verdict::{Reason, Subject, Verdict};
use crate::face::{Check, DetectedFace, Embedding, ImageSource, ReasonCode};
use crate::image::DifferenceHash;
use crate::trust::Secret;

/// A picture as it arrived.
#[derive(Debug)]
pub struct Photograph {
    /// Which picture of the request it is.
    pub subject: Subject,
    /// Where it comes from.
    pub source: ImageSource,
    /// The bytes of the file.
    pub file: Secret<Vec<u8>>,
}

/// What was found about one photograph.
#[derive(Debug)]
pub struct PhotoReport {
    /// Which picture of the request it is.
    pub subject: Subject,
    /// Where it comes from.
    pub source: ImageSource,
    /// Width in pixels after EXIF orientation.
    pub width: usize,
    /// Height in pixels after EXIF orientation.
    pub height: usize,
    /// Difference hash of the picture, to notice the same picture twice.
    pub fingerprint: DifferenceHash,
    /// All faces, the main one first, then by area; source pixel coordinates.
    pub faces: Vec<DetectedFace>,
    /// Quality of the main face; empty without one.
    pub checks: Vec<Check>,
    /// Embedding of the main face, if it was asked for and quality allowed it.
    pub embedding: Option<Embedding>,
    /// L2 norm of the raw embedding, the stand-in for overall quality.
    pub embedding_norm: Option<f64>,
    /// Probability of a live person, if it was asked for and quality allowed it.
    pub liveness: Option<f64>,
    /// Time spent in each stage.
    pub times: StageTimes,
}

impl PhotoReport {
    /// Why the photograph cannot be used; empty when it can.
    pub fn problems(&self) -> Vec<Reason> {
        if self.faces.is_empty() {
            return vec![Reason::plain(ReasonCode::FaceNotFound, self.subject)];
        }
        self.checks.iter().filter_map(|check| Reason::of_check(check, self.subject)).collect()
    }
}

/// Time in each stage; the photographs of one request add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Bytes to pixels and to the detector's canvas.
    pub decode: Duration,
    /// Waiting for room in memory, and for a place in a batch.
    pub queue: Duration,
    /// The detector's batch.
    pub detect: Duration,
    /// Faces, alignment, crops, quality.
    pub align: Duration,
    /// The embedder's batch.
    pub embed: Duration,
    /// The batches of the liveness networks.
    pub liveness: Duration,
}

impl std::ops::AddAssign for StageTimes {
    fn add_assign(&mut self, other: Self) {
        self.decode += other.decode;
        self.queue += other.queue;
        self.detect += other.detect;
        self.align += other.align;
        self.embed += other.embed;
        self.liveness += other.liveness;
    }
}

/// Similarity of two faces and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Cosine of the unit embeddings, -1..1.
    pub cosine: f64,
    /// 0..100 and the false-match rate at this similarity; unset without a calibration entry.
    pub calibrated: Option<CalibratedSimilarity>,
}

/// A similarity on the scale of a calibration entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibratedSimilarity {
    /// 60 at FMR 1e-2, 80 at 1e-3, 90 at 1e-4.
    pub score100: f64,
    /// False-match rate of a threshold at this similarity, never below what the row supports.
    pub fmr: f64,
}

/// The answer to `Verify`.
#[derive(Debug)]
pub struct Verification {
    /// Decision and reasons.
    pub verdict: Verdict,
    /// Portrait against the best live photograph; unset when either is unusable.
    pub similarity: Option<Similarity>,
    /// False-match rate decided at.
    pub policy_fmr: f64,
    /// Cosine that passes at it; unset without a calibration entry.
    pub similarity_min: Option<f64>,
    /// Lowest liveness over the live photographs, and the limit.
    pub liveness: Option<Liveness>,
    /// The portrait.
    pub portrait: PhotoReport,
    /// The live photographs in the request's order.
    pub live: Vec<PhotoReport>,
    /// Index of the live photograph that was matched.
    pub matched: Option<usize>,
    /// The row the decision stands on.
    pub calibration: Option<CalibrationEntry>,
}

/// A liveness score and its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Liveness {
    /// Probability of a live person, 0..1.
    pub score: f64,
    /// Least score that passes.
    pub score_min: f64,
}

/// The answer to `Compare`.
#[derive(Debug)]
pub struct Comparison {
    /// Unset when a face could not be embedded.
    pub similarity: Option<Similarity>,
    /// Why there is no similarity.
    pub reasons: Vec<Reason>,
    /// The first side, if it was an image.
    pub a: Option<PhotoReport>,
    /// The second side, if it was an image.
    pub b: Option<PhotoReport>,
    /// The row that `similarity` is calibrated by.
    pub calibration: Option<CalibrationEntry>,
}

/// The answer to `CheckLiveness`.
#[derive(Debug)]
pub struct LivenessCheck {
    /// Decision and reasons.
    pub verdict: Verdict,
    /// Unset when the photograph is unusable.
    pub liveness: Option<Liveness>,
    /// The photograph.
    pub photo: PhotoReport,
}
