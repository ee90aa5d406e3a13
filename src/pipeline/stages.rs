//! The stages that photographs and frames share: decode → detect → crop → networks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::rules::DetectorRule;
use super::{Error, Pipeline};
use crate::device::{LoadedModel, RowOutput};
use crate::face::{DetectedFace, Embedding, FaceError, MainFace, choose_main_face};
use crate::image::{
    DecodeError, DifferenceHash, ImageSettings, LumaImage, Orientation, RgbImage, decode, letterbox,
};
use crate::scheduler::{Answer, PoolError, Ticket};
use crate::telemetry::Stage;

/// A decoded image.
pub(super) struct DecodedImage {
    pub(super) image: RgbImage,
    /// The image scaled to the detector's canvas.
    pub(super) scaled: RgbImage,
    /// Canvas pixels per image pixel.
    pub(super) scale: f32,
    pub(super) fingerprint: DifferenceHash,
}

impl DecodedImage {
    /// Decodes a file. Undoes the file's own EXIF orientation first, then `orientation`.
    pub(super) fn decode(
        file: &[u8],
        limits: &ImageSettings,
        orientation: Orientation,
        side: usize,
    ) -> Result<Self, DecodeError> {
        let image = orientation.make_upright(decode(file, limits)?);
        let fingerprint = DifferenceHash::new(&LumaImage::new(&image));
        let boxed = letterbox(&image, side);
        Ok(Self { image, scaled: boxed.image, scale: boxed.scale, fingerprint })
    }
}

/// The faces of an image.
pub(super) struct Faces {
    /// All faces in source pixel coordinates, the main one first, then by area.
    pub(super) all: Vec<DetectedFace>,
    /// The main face. `None` if there is no face.
    pub(super) main: Option<MainFace>,
}

impl Faces {
    /// Decodes the detector's output and chooses the main face.
    pub(super) fn find(
        detected: &RowOutput,
        scale: f32,
        image: &RgbImage,
        rule: &DetectorRule,
    ) -> Result<Self, FaceError> {
        let mut all: Vec<DetectedFace> =
            rule.faces(detected)?.iter().map(|face| face.to_source(scale)).collect();
        let main = choose_main_face(&all, image.width(), image.height());
        if let Some(main) = &main {
            all.remove(main.index);
            all.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
            all.insert(0, main.face);
        }
        Ok(Self { all, main: main.map(|main| MainFace { index: 0, ..main }) })
    }
}

impl Pipeline {
    /// Runs a job on the CPU pool. A panic of the job is counted and is a fault of the server.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.pool.run(job).await.map_err(|error| {
            if matches!(error, PoolError::Panicked) {
                self.metrics.count_panic();
            }
            Error::internal(error)
        })
    }

    /// Waits for a permit to hold one decoded image in memory. Dropping the permit releases it.
    pub(super) async fn acquire_decode_permit(
        &self,
        ticket: &Ticket,
    ) -> Result<SemaphorePermit<'_>, Error> {
        let began = Instant::now();
        let permit = self.decode_permits.acquire().await.map_err(Error::internal)?;
        let wait = began.elapsed();
        ticket.times().add_wait(wait);
        self.metrics.observe_place_wait(wait);
        Ok(permit)
    }

    /// Adds the time of one image in `stage` to the call and to the metrics.
    pub(super) fn record_stage_time(&self, stage: Stage, time: Duration, ticket: &Ticket) {
        ticket.times().add_stage(stage, time);
        self.metrics.observe_stage(stage, time);
    }

    /// Runs `row` on `model`. Records the queue time, which the lane measured, and the run time.
    pub(super) async fn infer(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: RgbImage,
        ticket: &Arc<Ticket>,
    ) -> Result<Answer, Error> {
        let answer = self.scheduler.submit(model, row, ticket).await?;
        ticket.times().add_wait(answer.queue_time);
        self.record_stage_time(stage, answer.run_time, ticket);
        Ok(answer)
    }

    pub(super) async fn infer_optional(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: Option<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Option<Answer>, Error> {
        match row {
            Some(row) => self.infer(stage, model, row, ticket).await.map(Some),
            None => Ok(None),
        }
    }

    /// Runs each member of the liveness ensemble on its crop, concurrently. No crops give no
    /// answers.
    pub(super) async fn infer_liveness(
        &self,
        crops: Vec<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Vec<Answer>, Error> {
        let members = self.snapshot.liveness.members.iter();
        let infer = |(model, crop)| self.infer(Stage::Liveness, model, crop, ticket);
        try_join_all(members.zip(crops).map(infer)).await
    }

    /// Computes the probability of a live person from the answers of all members of the ensemble.
    pub(super) fn liveness_score(&self, answers: &[Answer]) -> Result<f64, Error> {
        let outputs: Vec<&RowOutput> = answers.iter().map(|answer| &answer.output).collect();
        self.rules.liveness.score(&outputs).map_err(Error::internal)
    }

    /// Returns the unit embedding in the embedder's answer, and the norm of the raw one.
    pub(super) fn read_embedding(&self, answer: &Answer) -> Result<(Embedding, f32), Error> {
        let rule = &self.rules.embedder;
        Embedding::from_raw(rule.raw_embedding(&answer.output), rule.space.clone())
            .map_err(Error::internal)
    }
}
