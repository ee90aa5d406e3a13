//! What a request does: one short function per call, read from top to bottom.
//!
//! [`Pipeline`] answers from photographs; [`LiveSession`] from a stream of frames, each measured
//! (`frame.rs`) in the detail that the rules of [`crate::liveness`] ask for. Both wait for networks
//! at the same lanes, so the rows of calls and of streams share batches.

mod error;
#[cfg(test)]
mod fixture;
mod frame;
mod lanes;
mod look;
mod photo;
mod report;
mod rules;
mod session;
mod settings;
mod standard;

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

pub use error::{Error, Kind, NOT_READY_RETRY_AFTER, Violation};
pub use lanes::lanes;
pub use report::{
    CalibratedSimilarity, Comparison, Liveness, LivenessCheck, PhotoReport, Photograph, Similarity,
    StageTimes, Verification,
};
pub use rules::{Rules, RulesError, check_manifest};
pub use session::{
    Arrived, CameraFrame, CreatedSession, LiveSession, LivenessSettings, PortraitFile,
    SessionOrder, SessionReport, SessionStart, Sessions, SessionsError, session_keys,
    session_store,
};
pub use settings::VerifySettings;
pub use standard::{Standard, Standards, StandardsError};

use self::photo::Wanted;
use crate::catalog::Snapshot;
use crate::device::LoadedModel;
use crate::face::calibration::PairType;
use crate::face::verdict::{Evidence, LiveEvidence, Reason, judge, judge_liveness};
use crate::face::{Embedding, ImageSource, QualityLimits, ReasonCode, cosine};
use crate::image::ImageSettings;
use crate::scheduler::{CpuPool, Scheduler, Ticket};
use crate::telemetry::Metrics;

/// Two pictures whose difference hashes are this close are the same picture: recompressing or
/// resizing a file moves it by 0 to 2 bits of 64.
const SAME_PICTURE_BITS_MAX: u32 = 2;

/// The live models and everything a request needs to be answered by them.
#[derive(Debug)]
pub struct Pipeline {
    /// The live models.
    pub snapshot: Arc<Snapshot>,
    /// How they are fed and read.
    pub rules: Arc<Rules>,
    /// Runs rows on the device.
    pub scheduler: Scheduler,
    /// Decodes, resizes and aligns.
    pub pool: CpuPool,
    /// Places for photographs in memory as pixels.
    pub places: Semaphore,
    /// Limits on pictures.
    pub image: ImageSettings,
    /// Limits on faces.
    pub quality: QualityLimits,
    /// Calibration entries and policy.
    pub standards: Standards,
    /// Tokens of liveness sessions, and which were used.
    pub sessions: Sessions,
    /// Stage times.
    pub metrics: Metrics,
}

/// A live model, as answers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveModel {
    /// What it does.
    pub task: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its weights, hexadecimal.
    pub sha256: String,
    /// What it is computed in.
    pub precision: &'static str,
}

/// One side of a `Compare`.
#[derive(Debug)]
pub enum Side {
    /// A picture to find a face in.
    Photo(Photograph),
    /// An embedding from an earlier call.
    Embedding(Embedding),
}

impl Pipeline {
    /// Does the live person match the portrait, and is the person live?
    ///
    /// Of several live photographs the one with the largest raw embedding norm is matched; each of
    /// the others that is usable must show the same person.
    ///
    /// # Errors
    /// A policy the calibration cannot support, a file that is no picture, time, a fault.
    pub async fn verify(
        &self,
        portrait: Photograph,
        live: Vec<Photograph>,
        policy_fmr: Option<f64>,
        ticket: &Arc<Ticket>,
    ) -> Result<Verification, Error> {
        let pair_type = match portrait.source {
            ImageSource::IdChip => PairType::ChipLive,
            ImageSource::IdFile => PairType::FileLive,
            ImageSource::LivePhoto => PairType::LiveLive,
        };
        let standard = self.standards.standard(pair_type, policy_fmr)?;
        let portrait = self.examine(portrait, Wanted::EMBEDDING, ticket);
        let live = live.into_iter().map(|photo| self.examine(photo, Wanted::ALL, ticket));
        let (portrait, live) = tokio::try_join!(portrait, try_join_all(live))?;
        Ok(self.weigh(portrait, live, standard))
    }

    /// Similarity of two faces. No liveness, no decision.
    ///
    /// # Errors
    /// Embeddings of another space, a file that is no picture, time, a fault.
    pub async fn compare(
        &self,
        a: Side,
        b: Side,
        ticket: &Arc<Ticket>,
    ) -> Result<Comparison, Error> {
        let standard = self.standards.standard(pair_type_of(&a, &b), None)?;
        let (a, b) = tokio::try_join!(self.side(a, ticket), self.side(b, ticket))?;
        let similarity = match (a.embedding(), b.embedding()) {
            (Some(a), Some(b)) => Some(standard.similarity(self.cosine(a, b)?)),
            _ => None,
        };
        let reasons = [&a, &b].into_iter().flat_map(Examined::problems).collect();
        let calibration = standard.entry.cloned();
        Ok(Comparison { similarity, reasons, a: a.report(), b: b.report(), calibration })
    }

    /// The embedding of the main face.
    ///
    /// # Errors
    /// A file that is no picture, time, a fault.
    pub async fn embed(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        self.examine(photo, Wanted::EMBEDDING, ticket).await
    }

    /// All faces, and the quality of the main one.
    ///
    /// # Errors
    /// A file that is no picture, time, a fault.
    pub async fn detect(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        self.examine(photo, Wanted::FACES, ticket).await
    }

    /// Passive liveness of the main face.
    ///
    /// # Errors
    /// A file that is no picture, time, a fault.
    pub async fn check_liveness(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<LivenessCheck, Error> {
        let photo = self.examine(photo, Wanted::LIVENESS, ticket).await?;
        let score_min = self.liveness_min();
        let evidence = LiveEvidence {
            problems: live_problems(&photo),
            liveness: photo.liveness,
            ..LiveEvidence::default()
        };
        let verdict = judge_liveness(&evidence, photo.subject, score_min);
        let liveness = photo.liveness.map(|score| Liveness { score, score_min });
        Ok(LivenessCheck { verdict, liveness, photo })
    }

    /// The models that answers about photographs stand on.
    pub fn live_models(&self) -> Vec<LiveModel> {
        let Snapshot { detector, embedder, liveness, .. } = &*self.snapshot;
        let models = [detector, embedder].into_iter().chain(&liveness.members);
        let name = |model: &Arc<LoadedModel>| LiveModel {
            task: model.manifest().task.name().to_owned(),
            name: model.manifest().name.clone(),
            version: model.manifest().version.clone(),
            sha256: model.manifest().sha256.to_string(),
            precision: model.manifest().precision.name(),
        };
        models.map(name).collect()
    }

    /// Refuses a request that insists on an embedding model which is not live.
    ///
    /// # Errors
    /// [`Error::ModelNotLive`] unless `asked` is the live embedder's name or `name/version`.
    pub fn require_model(&self, asked: &str) -> Result<(), Error> {
        let manifest = self.snapshot.embedder.manifest();
        let id = manifest.id();
        if asked == manifest.name || asked == id {
            Ok(())
        } else {
            Err(Error::ModelNotLive { live: id })
        }
    }

    /// Decides a `Verify` from what was found about its photographs.
    fn weigh(
        &self,
        portrait: PhotoReport,
        live: Vec<PhotoReport>,
        standard: Standard<'_>,
    ) -> Verification {
        let matched = best(&live);
        let matched_embedding = matched.and_then(|index| live[index].embedding.as_ref());
        let similarity = portrait
            .embedding
            .as_ref()
            .zip(matched_embedding)
            .and_then(|(portrait, live)| cosine(portrait, live).ok())
            .map(|similarity| standard.similarity(f64::from(similarity)));
        let evidence = Evidence {
            portrait_problems: portrait.problems(),
            live: live
                .iter()
                .enumerate()
                .map(|(index, photo)| {
                    let other = matched_embedding.filter(|_| Some(index) != matched);
                    live_evidence(&portrait, photo, other)
                })
                .collect(),
            similarity: similarity.map(|similarity| similarity.cosine),
            bar: standard.bar,
            liveness_min: self.liveness_min(),
        };
        Verification {
            verdict: judge(&evidence),
            similarity,
            policy_fmr: standard.policy_fmr,
            similarity_min: standard.similarity_min(),
            liveness: lowest_liveness(&live, self.liveness_min()),
            portrait,
            live,
            matched,
            calibration: standard.entry.cloned(),
        }
    }

    async fn side(&self, side: Side, ticket: &Arc<Ticket>) -> Result<Examined, Error> {
        match side {
            Side::Embedding(embedding) => Ok(Examined::Embedding(embedding)),
            Side::Photo(photo) => {
                let report = self.examine(photo, Wanted::EMBEDDING, ticket).await?;
                Ok(Examined::Photo(Box::new(report)))
            }
        }
    }

    fn cosine(&self, a: &Embedding, b: &Embedding) -> Result<f64, Error> {
        let live = &self.rules.embedder.space;
        if a.space() != live || b.space() != live {
            return Err(Error::SpaceMismatch { live: live.to_string() });
        }
        cosine(a, b).map(f64::from).map_err(Error::internal)
    }

    fn liveness_min(&self) -> f64 {
        self.rules.liveness.score_min
    }
}

/// One side of a comparison once it was looked at.
enum Examined {
    Photo(Box<PhotoReport>),
    Embedding(Embedding),
}

impl Examined {
    fn embedding(&self) -> Option<&Embedding> {
        match self {
            Self::Photo(report) => report.embedding.as_ref(),
            Self::Embedding(embedding) => Some(embedding),
        }
    }

    fn problems(&self) -> Vec<Reason> {
        match self {
            Self::Photo(report) => report.problems(),
            Self::Embedding(_) => Vec::new(),
        }
    }

    fn report(self) -> Option<PhotoReport> {
        match self {
            Self::Photo(report) => Some(*report),
            Self::Embedding(_) => None,
        }
    }
}

/// The kind of pair two sides make; embeddings are taken for live photographs.
fn pair_type_of(a: &Side, b: &Side) -> PairType {
    let source = |side: &Side| match side {
        Side::Photo(photo) => photo.source,
        Side::Embedding(_) => ImageSource::LivePhoto,
    };
    match (source(a), source(b)) {
        (ImageSource::IdChip, _) | (_, ImageSource::IdChip) => PairType::ChipLive,
        (ImageSource::IdFile, _) | (_, ImageSource::IdFile) => PairType::FileLive,
        (ImageSource::LivePhoto, ImageSource::LivePhoto) => PairType::LiveLive,
    }
}

/// The usable photograph whose raw embedding is longest, the first of equals.
fn best(live: &[PhotoReport]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    let usable = |photo: &PhotoReport| live_problems(photo).is_empty();
    for (index, photo) in live.iter().enumerate().filter(|(_, photo)| usable(photo)) {
        let Some(norm) = photo.embedding_norm else { continue };
        if best.is_none_or(|(_, longest)| norm > longest) {
            best = Some((index, norm));
        }
    }
    best.map(|(index, _)| index)
}

fn live_evidence(
    portrait: &PhotoReport,
    photo: &PhotoReport,
    matched: Option<&Embedding>,
) -> LiveEvidence {
    LiveEvidence {
        problems: live_problems(photo),
        same_image: portrait.fingerprint.distance(photo.fingerprint) <= SAME_PICTURE_BITS_MAX,
        liveness: photo.liveness,
        similarity_to_matched: photo
            .embedding
            .as_ref()
            .zip(matched)
            .and_then(|(own, matched)| cosine(own, matched).ok())
            .map(f64::from),
    }
}

/// Why a live photograph cannot be used; one whose liveness could not be judged cannot.
fn live_problems(photo: &PhotoReport) -> Vec<Reason> {
    let mut problems = photo.problems();
    if problems.is_empty() && photo.liveness.is_none() {
        problems.push(Reason::plain(ReasonCode::FaceUnusable, photo.subject));
    }
    problems
}

fn lowest_liveness(live: &[PhotoReport], score_min: f64) -> Option<Liveness> {
    live.iter()
        .filter_map(|photo| photo.liveness)
        .min_by(f64::total_cmp)
        .map(|score| Liveness { score, score_min })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::verdict::Subject;
    use crate::face::{DetectedFace, Point, Rect};
    use crate::image::{DifferenceHash, LumaImage, RgbImage};

    fn photo(index: usize, norm: f64, liveness: Option<f64>) -> PhotoReport {
        let rect = Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 };
        PhotoReport {
            subject: Subject::LivePhoto(index),
            source: ImageSource::LivePhoto,
            width: 9,
            height: 9,
            fingerprint: DifferenceHash::new(&LumaImage::new(&RgbImage::black(9, 9))),
            faces: vec![DetectedFace { rect, score: 1.0, points: [Point { x: 4.0, y: 4.0 }; 5] }],
            checks: vec![],
            embedding: None,
            embedding_norm: Some(norm),
            liveness,
            times: StageTimes::default(),
        }
    }

    #[test]
    fn the_longest_embedding_is_matched_and_the_first_of_equals() {
        let live = [1.0, 3.0, 3.0, 2.0];
        let live: Vec<_> =
            live.into_iter().enumerate().map(|(i, norm)| photo(i, norm, Some(0.9))).collect();
        assert_eq!(best(&live), Some(1));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn a_photograph_whose_liveness_is_unknown_is_never_matched() {
        let unknown = photo(0, 9.0, None);
        assert_eq!(best(&[unknown]), None);
        assert_eq!(best(&[photo(0, 9.0, None), photo(1, 1.0, Some(0.9))]), Some(1));
    }
}
