//! What photographs and frames have in common: bytes → picture → faces → crops → networks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::rules::DetectorRule;
use super::{Error, Pipeline};
use crate::device::{LoadedModel, RowOutput};
use crate::face::{DetectedFace, Embedding, FaceError, MainFace, main_face};
use crate::image::{
    DecodeError, DifferenceHash, ImageSettings, LumaImage, Orientation, RgbImage, decode, letterbox,
};
use crate::scheduler::{Answer, PoolError, Ticket};
use crate::telemetry::Stage;

/// A picture once its file was read.
pub(super) struct Decoded {
    pub(super) image: RgbImage,
    /// What the detector is shown: the image, scaled for its canvas.
    pub(super) scaled: RgbImage,
    /// Canvas pixels per image pixel.
    pub(super) scale: f32,
    pub(super) fingerprint: DifferenceHash,
}

impl Decoded {
    /// Reads a file; `orientation` is undone after what the file itself says about it.
    pub(super) fn read(
        file: &[u8],
        limits: &ImageSettings,
        orientation: Orientation,
        side: usize,
    ) -> Result<Self, DecodeError> {
        let image = orientation.upright(decode(file, limits)?);
        let fingerprint = DifferenceHash::new(&LumaImage::new(&image));
        let boxed = letterbox(&image, side);
        Ok(Self { image, scaled: boxed.image, scale: boxed.scale, fingerprint })
    }
}

/// The faces of a picture.
pub(super) struct Faces {
    /// The main one first, then by area; source pixel coordinates.
    pub(super) all: Vec<DetectedFace>,
    /// The first of them; `None` when there is none.
    pub(super) main: Option<MainFace>,
}

impl Faces {
    /// Reads the faces off the detector's output and chooses the main one.
    pub(super) fn find(
        detected: &RowOutput,
        scale: f32,
        image: &RgbImage,
        rule: &DetectorRule,
    ) -> Result<Self, FaceError> {
        let mut all: Vec<DetectedFace> =
            rule.faces(detected)?.iter().map(|face| face.to_source(scale)).collect();
        let main = main_face(&all, image.width(), image.height());
        if let Some(main) = &main {
            all.remove(main.index);
            all.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
            all.insert(0, main.face);
        }
        Ok(Self { all, main: main.map(|main| MainFace { index: 0, ..main }) })
    }
}

impl Pipeline {
    /// Runs a job on the CPU pool; one that panics is counted and is a fault of the server.
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

    /// Waits for a place among the decoded pictures; it is free again when dropped.
    pub(super) async fn place(&self, ticket: &Ticket) -> Result<SemaphorePermit<'_>, Error> {
        let began = Instant::now();
        let place = self.places.acquire().await.map_err(Error::internal)?;
        let wait = began.elapsed();
        ticket.times().add_wait(wait);
        self.metrics.observe_place_wait(wait);
        Ok(place)
    }

    /// Counts the time of one picture in `stage`.
    pub(super) fn spent(&self, stage: Stage, time: Duration, ticket: &Ticket) {
        ticket.times().add_stage(stage, time);
        self.metrics.observe_stage(stage, time);
    }

    /// Runs `row` on the model of `stage`. The lane has measured how long the row waited.
    pub(super) async fn ask(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: RgbImage,
        ticket: &Arc<Ticket>,
    ) -> Result<Answer, Error> {
        let answer = self.scheduler.submit(model, row, ticket).await?;
        ticket.times().add_wait(answer.queue_time);
        self.spent(stage, answer.run_time, ticket);
        Ok(answer)
    }

    pub(super) async fn ask_some(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: Option<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Option<Answer>, Error> {
        match row {
            Some(row) => self.ask(stage, model, row, ticket).await.map(Some),
            None => Ok(None),
        }
    }

    /// Shows each member of the liveness ensemble its crop, side by side; no crops, no answers.
    pub(super) async fn ask_liveness(
        &self,
        crops: Vec<RgbImage>,
        ticket: &Arc<Ticket>,
    ) -> Result<Vec<Answer>, Error> {
        let members = self.snapshot.liveness.members.iter();
        let ask = |(model, crop)| self.ask(Stage::Liveness, model, crop, ticket);
        try_join_all(members.zip(crops).map(ask)).await
    }

    /// The probability of a live person, from the answers of all members of the ensemble.
    pub(super) fn live(&self, answers: &[Answer]) -> Result<f64, Error> {
        let outputs: Vec<&RowOutput> = answers.iter().map(|answer| &answer.output).collect();
        self.rules.liveness.score(&outputs).map_err(Error::internal)
    }

    /// The embedding that the embedder answered, and the norm it had.
    pub(super) fn embedding(&self, answer: &Answer) -> Result<(Embedding, f32), Error> {
        let rule = &self.rules.embedder;
        Embedding::from_raw(rule.raw(&answer.output), rule.space.clone()).map_err(Error::internal)
    }
}
