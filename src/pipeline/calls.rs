//! The calls about photographs: one short function per call, and the evidence for the decisions.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::photo::PhotoTasks;
use super::policy::DecisionPolicy;
use super::report::{
    Comparison, LivenessCheck, LivenessScore, PhotoReport, Photograph, Verification,
};
use super::{Error, Pipeline, SAME_PICTURE_BITS_MAX};
use crate::face::calibration::PairType;
use crate::face::decision::Reason;
use crate::face::verify_decision::{
    LivePhotoEvidence, VerifyEvidence, decide_liveness, decide_verify,
};
use crate::face::{Embedding, ImageSource, ReasonCode, cosine};
use crate::scheduler::Ticket;

/// One side of a `Compare`.
#[derive(Debug)]
pub enum Side {
    /// A photograph in which to find a face.
    Photo(Photograph),
    /// An embedding from an earlier call.
    Embedding(Embedding),
}

impl Pipeline {
    /// Decides whether the live person matches the portrait, and whether the person is live.
    ///
    /// Of several live photographs, the one with the largest norm of the raw embedding is matched.
    /// Every other usable live photograph must show the same person.
    ///
    /// # Errors
    /// A false-match rate that the calibration does not support, an invalid image, the deadline, a
    /// fault.
    pub async fn verify(
        &self,
        portrait: Photograph,
        live: Vec<Photograph>,
        policy_fmr: Option<f64>,
        ticket: &Arc<Ticket>,
    ) -> Result<Verification, Error> {
        let pair_type = PairType::against_live(portrait.source);
        let policy = self.policies.for_pair(pair_type, policy_fmr)?;
        let portrait = self.examine(portrait, PhotoTasks::EMBEDDING, ticket);
        let live = live.into_iter().map(|photo| self.examine(photo, PhotoTasks::ALL, ticket));
        let (portrait, live) = tokio::try_join!(portrait, try_join_all(live))?;
        Ok(self.decide(portrait, live, policy))
    }

    /// Computes the similarity of two faces. No liveness, no decision.
    ///
    /// # Errors
    /// An embedding of another space, an invalid image, the deadline, a fault.
    pub async fn compare(
        &self,
        a: Side,
        b: Side,
        ticket: &Arc<Ticket>,
    ) -> Result<Comparison, Error> {
        let policy = self.policies.for_pair(pair_type_of(&a, &b), None)?;
        let (a, b) = tokio::try_join!(self.examine_side(a, ticket), self.examine_side(b, ticket))?;
        let similarity = match (a.embedding(), b.embedding()) {
            (Some(a), Some(b)) => Some(policy.similarity(self.cosine(a, b)?)),
            _ => None,
        };
        let reasons = [&a, &b].into_iter().flat_map(ExaminedSide::problems).collect();
        let calibration = policy.calibration.cloned();
        Ok(Comparison { similarity, reasons, a: a.report(), b: b.report(), calibration })
    }

    /// Computes the embedding of the main face.
    ///
    /// # Errors
    /// An invalid image, the deadline, a fault.
    pub async fn embed(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        self.examine(photo, PhotoTasks::EMBEDDING, ticket).await
    }

    /// Finds all faces and measures the quality of the main one.
    ///
    /// # Errors
    /// An invalid image, the deadline, a fault.
    pub async fn detect(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        self.examine(photo, PhotoTasks::DETECTION, ticket).await
    }

    /// Judges the passive liveness of the main face.
    ///
    /// # Errors
    /// An invalid image, the deadline, a fault.
    pub async fn check_liveness(
        &self,
        photo: Photograph,
        ticket: &Arc<Ticket>,
    ) -> Result<LivenessCheck, Error> {
        let photo = self.examine(photo, PhotoTasks::LIVENESS, ticket).await?;
        let score_min = self.pad_score_min();
        let evidence = LivePhotoEvidence {
            problems: live_problems(&photo),
            pad_score: photo.pad_score,
            ..LivePhotoEvidence::default()
        };
        let verdict = decide_liveness(&evidence, photo.subject, score_min);
        let liveness = photo.pad_score.map(|score| LivenessScore { score, score_min });
        Ok(LivenessCheck { verdict, liveness, photo })
    }

    /// Decides a `Verify` from the reports on its photographs.
    fn decide(
        &self,
        portrait: PhotoReport,
        live: Vec<PhotoReport>,
        policy: DecisionPolicy<'_>,
    ) -> Verification {
        let matched = best_live_photo(&live);
        let matched_embedding = matched.and_then(|index| live[index].embedding.as_ref());
        let similarity = portrait
            .embedding
            .as_ref()
            .zip(matched_embedding)
            .and_then(|(portrait, live)| cosine(portrait, live).ok())
            .map(|similarity| policy.similarity(f64::from(similarity)));
        let evidence = VerifyEvidence {
            portrait_problems: portrait.problems(),
            live_photos: live
                .iter()
                .enumerate()
                .map(|(index, photo)| {
                    let other = matched_embedding.filter(|_| Some(index) != matched);
                    live_evidence(&portrait, photo, other)
                })
                .collect(),
            similarity: similarity.map(|similarity| similarity.cosine),
            thresholds: policy.thresholds,
            pad_score_min: self.pad_score_min(),
        };
        Verification {
            verdict: decide_verify(&evidence),
            similarity,
            policy_fmr: policy.policy_fmr,
            similarity_min: policy.similarity_min(),
            liveness: lowest_liveness(&live, self.pad_score_min()),
            portrait,
            live,
            matched,
            calibration: policy.calibration.cloned(),
        }
    }

    async fn examine_side(&self, side: Side, ticket: &Arc<Ticket>) -> Result<ExaminedSide, Error> {
        match side {
            Side::Embedding(embedding) => Ok(ExaminedSide::Embedding(embedding)),
            Side::Photo(photo) => {
                let report = self.examine(photo, PhotoTasks::EMBEDDING, ticket).await?;
                Ok(ExaminedSide::Photo(Box::new(report)))
            }
        }
    }

    fn cosine(&self, a: &Embedding, b: &Embedding) -> Result<f64, Error> {
        let live = &self.adapters.embedder.space;
        if a.space() != live || b.space() != live {
            return Err(Error::SpaceMismatch { live: live.to_string() });
        }
        cosine(a, b).map(f64::from).map_err(Error::internal)
    }
}

/// One side of a `Compare` after its image was examined.
enum ExaminedSide {
    Photo(Box<PhotoReport>),
    Embedding(Embedding),
}

impl ExaminedSide {
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

/// Returns the type of the pair of two sides. An embedding counts as a live photograph. Two
/// document portraits count as the poorer one and a live photograph; a chip portrait is poorer than
/// a file.
fn pair_type_of(a: &Side, b: &Side) -> PairType {
    let sources = [a, b].map(|side| match side {
        Side::Photo(photo) => photo.source,
        Side::Embedding(_) => ImageSource::LivePhoto,
    });
    let documents = [ImageSource::IdChip, ImageSource::IdFile];
    let poorest = documents.into_iter().find(|document| sources.contains(document));
    PairType::against_live(poorest.unwrap_or(ImageSource::LivePhoto))
}

/// Returns the index of the usable photograph with the largest norm of the raw embedding; of equal
/// ones, the first.
fn best_live_photo(live: &[PhotoReport]) -> Option<usize> {
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

/// Returns the evidence of a live photograph. `matched` is the embedding of the matched photograph,
/// or `None` if this is the matched one.
fn live_evidence(
    portrait: &PhotoReport,
    photo: &PhotoReport,
    matched: Option<&Embedding>,
) -> LivePhotoEvidence {
    LivePhotoEvidence {
        problems: live_problems(photo),
        same_image: portrait.difference_hash.distance(photo.difference_hash)
            <= SAME_PICTURE_BITS_MAX,
        pad_score: photo.pad_score,
        similarity_to_matched: photo
            .embedding
            .as_ref()
            .zip(matched)
            .and_then(|(own, matched)| cosine(own, matched).ok())
            .map(f64::from),
    }
}

/// Returns why a live photograph cannot be used. A photograph without a liveness score cannot be
/// used.
fn live_problems(photo: &PhotoReport) -> Vec<Reason> {
    let mut problems = photo.problems();
    if problems.is_empty() && photo.pad_score.is_none() {
        problems.push(Reason::plain(ReasonCode::FaceUnusable, photo.subject));
    }
    problems
}

fn lowest_liveness(live: &[PhotoReport], score_min: f64) -> Option<LivenessScore> {
    live.iter()
        .filter_map(|photo| photo.pad_score)
        .min_by(f64::total_cmp)
        .map(|score| LivenessScore { score, score_min })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::decision::Subject;
    use crate::face::{DetectedFace, Point, Rect};
    use crate::image::{DifferenceHash, LumaImage, RgbImage};
    use crate::pipeline::report::StageTimes;

    fn photo(index: usize, norm: f64, pad_score: Option<f64>) -> PhotoReport {
        let rect = Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 };
        PhotoReport {
            subject: Subject::LivePhoto(index),
            source: ImageSource::LivePhoto,
            width: 9,
            height: 9,
            difference_hash: DifferenceHash::new(&LumaImage::new(&RgbImage::black(9, 9))),
            faces: vec![DetectedFace { rect, score: 1.0, points: [Point { x: 4.0, y: 4.0 }; 5] }],
            checks: vec![],
            embedding: None,
            embedding_norm: Some(norm),
            pad_score,
            times: StageTimes::default(),
        }
    }

    #[test]
    fn the_longest_embedding_is_matched_and_the_first_of_equals() {
        let live = [1.0, 3.0, 3.0, 2.0];
        let live: Vec<_> =
            live.into_iter().enumerate().map(|(i, norm)| photo(i, norm, Some(0.9))).collect();
        assert_eq!(best_live_photo(&live), Some(1));
        assert_eq!(best_live_photo(&[]), None);
    }

    #[test]
    fn a_photograph_whose_liveness_is_unknown_is_never_matched() {
        let unknown = photo(0, 9.0, None);
        assert_eq!(best_live_photo(&[unknown]), None);
        assert_eq!(best_live_photo(&[photo(0, 9.0, None), photo(1, 1.0, Some(0.9))]), Some(1));
    }
}
