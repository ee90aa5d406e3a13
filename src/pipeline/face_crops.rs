//! The networks that take the crop of a face: the embedder, and the ensemble of passive liveness
//! (the PAD networks). Photographs and frames are judged by the same function.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::report::StageTimes;
use super::{Error, Pipeline};
use crate::device::{LoadedModel, RowOutput};
use crate::face::Embedding;
use crate::image::RgbImage;
use crate::liveness::FrameJudgement;
use crate::scheduler::{RowAnswer, Ticket};
use crate::telemetry::Stage;

/// The main face of an image, cropped for the embedder and for each PAD network. A network without
/// a crop is not run. A frame has crops before the session says whether the frame is judged.
#[derive(Debug, Default)]
pub(super) struct FaceCrops {
    /// The input of the embedder.
    pub(super) aligned: Option<RgbImage>,
    /// The input of each member of the liveness ensemble, or empty.
    pub(super) liveness: Vec<RgbImage>,
}

/// The results of the networks for one face. The result of a network that was not run is `None`.
#[derive(Debug, Default)]
pub(super) struct JudgedFace {
    /// The unit embedding, and the L2 norm of the raw one.
    pub(super) embedding: Option<(Embedding, f32)>,
    /// Fused score of the ensemble: the probability of a live person.
    pub(super) pad_score: Option<f64>,
    /// Times in the queues, of the embedder and of the PAD networks.
    pub(super) times: StageTimes,
}

impl JudgedFace {
    /// Returns the judgement for a liveness session, or `None` unless both networks were run.
    pub(super) fn frame_judgement(self) -> Option<FrameJudgement> {
        let (embedding, norm) = self.embedding?;
        Some(FrameJudgement { embedding, norm: norm.into(), pad_score: self.pad_score? })
    }
}

impl Pipeline {
    /// Runs the embedder and the liveness ensemble on the crops of a face, concurrently.
    ///
    /// # Errors
    /// The deadline, a fault.
    pub(super) async fn judge(
        &self,
        crops: FaceCrops,
        ticket: &Arc<Ticket>,
    ) -> Result<JudgedFace, Error> {
        let FaceCrops { aligned, liveness } = crops;
        let (embedded, scored) = tokio::try_join!(
            self.infer_optional(Stage::Embed, &self.snapshot.embedder, aligned, ticket),
            self.infer_liveness(liveness, ticket),
        )?;
        let mut judged = JudgedFace::default();
        if let Some(answer) = embedded {
            judged.times.queue += answer.queue_time;
            judged.times.embed = answer.run_time;
            judged.embedding = Some(self.read_embedding(&answer)?);
        }
        for answer in &scored {
            judged.times.queue += answer.queue_time;
            judged.times.liveness += answer.run_time;
        }
        if !scored.is_empty() {
            judged.pad_score = Some(self.fused_pad_score(&scored)?);
        }
        Ok(judged)
    }

    async fn infer_optional(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: Option<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Option<RowAnswer>, Error> {
        match row {
            Some(row) => self.infer(stage, model, row, ticket).await.map(Some),
            None => Ok(None),
        }
    }

    /// Runs each member of the liveness ensemble on its crop, concurrently. No crops give no
    /// answers.
    async fn infer_liveness(
        &self,
        crops: Vec<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Vec<RowAnswer>, Error> {
        let members = self.snapshot.liveness.members.iter();
        let infer = |(model, crop)| self.infer(Stage::Liveness, model, crop, ticket);
        try_join_all(members.zip(crops).map(infer)).await
    }

    /// Computes the probability of a live person from the answers of all members of the ensemble.
    fn fused_pad_score(&self, answers: &[RowAnswer]) -> Result<f64, Error> {
        let outputs: Vec<&RowOutput> = answers.iter().map(|answer| &answer.output).collect();
        self.adapters.liveness.score(&outputs).map_err(Error::internal)
    }

    /// Returns the unit embedding in the embedder's answer, and the norm of the raw one.
    fn read_embedding(&self, answer: &RowAnswer) -> Result<(Embedding, f32), Error> {
        let adapter = &self.adapters.embedder;
        Embedding::from_raw(adapter.raw_embedding(&answer.output), adapter.space.clone())
            .map_err(Error::internal)
    }
}
