//! The stages that photographs and frames share: decode → detect → find the main face. The stage
//! after these is in `face_crops.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::adapters::DetectorAdapter;
use super::report::StageTimes;
use super::{Error, Pipeline};
use crate::device::{LoadedModel, RowOutput};
use crate::face::{DetectedFace, FaceError, MainFace, choose_main_face};
use crate::image::{
    DecodeError, DifferenceHash, ImageSettings, LumaImage, Orientation, RgbImage, decode, letterbox,
};
use crate::scheduler::{PoolError, RowAnswer, Ticket};
use crate::telemetry::Stage;
use crate::trust::Secret;

/// A decoded image with the output of the detector.
pub(super) struct DetectedImage {
    pub(super) image: RgbImage,
    pub(super) difference_hash: DifferenceHash,
    /// Pixels of the detector's square canvas per image pixel.
    scale: f32,
    /// Output of the detector.
    output: RowOutput,
    /// Times of decoding, and of the detector and its queue.
    pub(super) times: StageTimes,
}

struct DecodedImage {
    image: RgbImage,
    /// The image scaled to the detector's canvas.
    scaled: RgbImage,
    /// Canvas pixels per image pixel.
    scale: f32,
    difference_hash: DifferenceHash,
}

impl DecodedImage {
    /// Decodes a file and scales the image to a canvas of `side` pixels. Undoes the file's own EXIF
    /// orientation first, then `orientation`.
    fn decode(
        file: &[u8],
        limits: &ImageSettings,
        orientation: Orientation,
        side: usize,
    ) -> Result<Self, DecodeError> {
        let image = orientation.make_upright(decode(file, limits)?);
        let difference_hash = DifferenceHash::new(&LumaImage::new(&image));
        let boxed = letterbox(&image, side);
        Ok(Self { image, scaled: boxed.image, scale: boxed.scale, difference_hash })
    }
}

pub(super) struct Faces {
    /// All faces in pixels of the decoded image, the main one first, then by area.
    pub(super) all: Vec<DetectedFace>,
    /// The main face. `None` if there is no face.
    pub(super) main: Option<MainFace>,
}

impl Faces {
    /// Decodes the detector's output and chooses the main face.
    pub(super) fn find(
        detected: &DetectedImage,
        adapter: &DetectorAdapter,
    ) -> Result<Self, FaceError> {
        let DetectedImage { image, scale, output, .. } = detected;
        let mut all: Vec<DetectedFace> =
            adapter.faces(output)?.iter().map(|face| face.to_source(*scale)).collect();
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

    /// Waits for a place for one decoded image in memory. Dropping the permit frees the place.
    pub(super) async fn acquire_image_place(
        &self,
        ticket: &Ticket,
    ) -> Result<SemaphorePermit<'_>, Error> {
        let began = Instant::now();
        let place = self.image_places.acquire().await.map_err(Error::internal)?;
        let wait = began.elapsed();
        ticket.times().add_wait(wait);
        self.metrics.observe_place_wait(wait);
        Ok(place)
    }

    /// Decodes an image file and runs the detector on it. Undoes `orientation`, how the camera was
    /// held.
    ///
    /// # Errors
    /// Invalid image bytes ([`Error::Invalid`] with `field`), the deadline, a fault.
    pub(super) async fn detect_faces(
        &self,
        file: Secret<Vec<u8>>,
        orientation: Orientation,
        field: String,
        ticket: &Arc<Ticket>,
    ) -> Result<DetectedImage, Error> {
        let began = Instant::now();
        let (limits, side) = (self.image, self.adapters.detector.side);
        let decode = move || DecodedImage::decode(file.expose(), &limits, orientation, side);
        let decoded = self.compute(decode).await?;
        let decode_time = began.elapsed();
        self.record_stage_time(Stage::Decode, decode_time, ticket);
        let DecodedImage { image, scaled, scale, difference_hash } =
            decoded.map_err(|error| Error::invalid(field, error.to_string()))?;
        let RowAnswer { output, queue_time, run_time } =
            self.infer(Stage::Detect, &self.snapshot.detector, scaled, ticket).await?;
        let times = StageTimes {
            decode: decode_time,
            queue: queue_time,
            detect: run_time,
            ..StageTimes::default()
        };
        Ok(DetectedImage { image, difference_hash, scale, output, times })
    }

    /// Adds the time of one image in `stage` to the call and to the metrics.
    pub(super) fn record_stage_time(&self, stage: Stage, time: Duration, ticket: &Ticket) {
        ticket.times().add_stage(stage, time);
        self.metrics.observe_stage(stage, time);
    }

    /// Runs `row` on `model`. Records the queue time, which the scheduler measured, and the run
    /// time.
    pub(super) async fn infer(
        &self,
        stage: Stage,
        model: &Arc<LoadedModel>,
        row: RgbImage,
        ticket: &Arc<Ticket>,
    ) -> Result<RowAnswer, Error> {
        let answer = self.scheduler.submit(model, row, ticket).await?;
        ticket.times().add_wait(answer.queue_time);
        self.record_stage_time(stage, answer.run_time, ticket);
        Ok(answer)
    }
}
