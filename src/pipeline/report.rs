//! The results of a request, as a whole and for each photograph.

use std::time::Duration;

use crate::face::calibration::CalibrationEntry;
use crate::face::decision::{Reason, Subject};
use crate::face::verify_decision::Verdict;
use crate::face::{Check, DetectedFace, Embedding, ImageSource, ReasonCode};
use crate::image::DifferenceHash;
use crate::trust::Secret;

/// A photograph as received.
#[derive(Debug)]
pub struct Photograph {
    /// Which image of the request it is.
    pub subject: Subject,
    /// The source of the image.
    pub source: ImageSource,
    /// The bytes of the image file.
    pub file: Secret<Vec<u8>>,
}

/// The result for one photograph.
#[derive(Debug)]
pub struct PhotoReport {
    /// Which image of the request it is.
    pub subject: Subject,
    /// The source of the image.
    pub source: ImageSource,
    /// Width in pixels after EXIF orientation.
    pub width: usize,
    /// Height in pixels after EXIF orientation.
    pub height: usize,
    /// Difference hash of the image. Detects the same picture in another file.
    pub difference_hash: DifferenceHash,
    /// All faces in pixels of the decoded image, the main one first, then by area.
    pub faces: Vec<DetectedFace>,
    /// Quality checks of the main face. Empty without a face.
    pub checks: Vec<Check>,
    /// Embedding of the main face, if requested and if the quality allows it.
    pub embedding: Option<Embedding>,
    /// L2 norm of the raw embedding, a proxy for overall quality.
    pub(super) embedding_norm: Option<f64>,
    /// Probability of a live person, if requested and if the quality allows it.
    pub pad_score: Option<f64>,
    /// Time in each stage.
    pub times: StageTimes,
}

impl PhotoReport {
    /// Returns why the photograph cannot be used. Empty if the photograph is usable.
    pub fn problems(&self) -> Vec<Reason> {
        if self.faces.is_empty() {
            return vec![Reason::plain(ReasonCode::FaceNotFound, self.subject)];
        }
        self.checks.iter().filter_map(|check| Reason::of_check(check, self.subject)).collect()
    }
}

/// Time in each stage, of one photograph or summed over those of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Decoding, and scaling for the detector.
    pub decode: Duration,
    /// Waiting for a place for the decoded image, and for a batch.
    pub queue: Duration,
    /// Running the detector's batch.
    pub detect: Duration,
    /// Face selection, alignment, crops and quality checks.
    pub align: Duration,
    /// Running the embedder's batch.
    pub embed: Duration,
    /// Running the batches of the liveness networks.
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

/// Similarity of two faces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Cosine of the unit embeddings, -1..1.
    pub cosine: f64,
    /// Score and false-match rate. `None` without a calibration entry.
    pub calibrated: Option<CalibratedSimilarity>,
}

/// A similarity on the scale of a calibration entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibratedSimilarity {
    /// Score 0..100: 60 at FMR 1e-2, 80 at 1e-3, 90 at 1e-4.
    pub score100: f64,
    /// False-match rate of a threshold at this similarity, not below the smallest rate that the
    /// entry supports.
    pub fmr: f64,
}

/// The result of `Verify`.
#[derive(Debug)]
pub struct Verification {
    /// Decision and reasons.
    pub verdict: Verdict,
    /// Similarity of the portrait and the matched live photograph. `None` if either is unusable.
    pub similarity: Option<Similarity>,
    /// False-match rate of the decision.
    pub policy_fmr: f64,
    /// Least cosine that passes at that rate. `None` without a calibration entry.
    pub similarity_min: Option<f64>,
    /// Lowest liveness score of the live photographs, and the limit.
    pub liveness: Option<LivenessScore>,
    /// The portrait.
    pub portrait: PhotoReport,
    /// The live photographs, in the order of the request.
    pub live: Vec<PhotoReport>,
    /// Index of the live photograph that was matched.
    pub matched: Option<usize>,
    /// The calibration entry of the decision.
    pub calibration: Option<CalibrationEntry>,
}

/// A liveness score and its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LivenessScore {
    /// Probability of a live person, 0..1.
    pub score: f64,
    /// Least score that passes.
    pub score_min: f64,
}

/// The result of `Compare`.
#[derive(Debug)]
pub struct Comparison {
    /// `None` if a face could not be embedded.
    pub similarity: Option<Similarity>,
    /// Why there is no similarity.
    pub reasons: Vec<Reason>,
    /// Report on the first side, if it was an image.
    pub a: Option<PhotoReport>,
    /// Report on the second side, if it was an image.
    pub b: Option<PhotoReport>,
    /// The calibration entry of `similarity`.
    pub calibration: Option<CalibrationEntry>,
}

/// The result of `CheckLiveness`.
#[derive(Debug)]
pub struct LivenessCheck {
    /// Decision and reasons.
    pub verdict: Verdict,
    /// `None` if the photograph is unusable.
    pub liveness: Option<LivenessScore>,
    /// Report on the photograph.
    pub photo: PhotoReport,
}
