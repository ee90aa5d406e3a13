//! One photograph: decode → detect → align → embed and liveness.

use std::sync::Arc;

use tokio::time::Instant;

use super::report::{PhotoReport, Photograph, StageTimes};
use super::rules::Rules;
use super::stages::{DecodedImage, Faces};
use super::{Error, Pipeline};
use crate::device::RowOutput;
use crate::face::decision::Subject;
use crate::face::{
    Check, DetectedFace, FaceError, SourceLimits, check_crop, check_detection, check_norm,
};
use crate::image::{DecodeError, Orientation, RgbImage};
use crate::scheduler::Ticket;
use crate::telemetry::Stage;

/// Which networks a call runs on the main face after detection and quality checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhotoTasks {
    embedding: bool,
    liveness: bool,
}

impl PhotoTasks {
    pub(super) const DETECTION: Self = Self { embedding: false, liveness: false };
    pub(super) const EMBEDDING: Self = Self { embedding: true, liveness: false };
    pub(super) const LIVENESS: Self = Self { embedding: false, liveness: true };
    pub(super) const ALL: Self = Self { embedding: true, liveness: true };
}

/// The faces of a photograph, and the crops of the main face.
struct CroppedPhoto {
    width: usize,
    height: usize,
    faces: Vec<DetectedFace>,
    checks: Vec<Check>,
    /// Set if the quality allows the face to be used.
    crops: Option<Crops>,
}

struct Crops {
    aligned: RgbImage,
    /// One crop for each member of the liveness ensemble. Empty if the face cannot be cropped.
    liveness: Vec<RgbImage>,
}

impl Pipeline {
    /// Examines one photograph and runs `tasks` on the main face. A face that fails a quality check
    /// is reported, but not given to the networks behind the detector.
    pub(super) async fn examine(
        &self,
        photo: Photograph,
        tasks: PhotoTasks,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        let Photograph { subject, source, file } = photo;
        let mut times = StageTimes::default();

        let began = Instant::now();
        let _permit = self.acquire_decode_permit(ticket).await?;
        times.queue = began.elapsed();

        let began = Instant::now();
        let (limits, side) = (self.image, self.rules.detector.side);
        let upright = Orientation::UPRIGHT;
        let decode = move || DecodedImage::decode(file.expose(), &limits, upright, side);
        let decoded = self.compute(decode).await?;
        times.decode = began.elapsed();
        self.record_stage_time(Stage::Decode, times.decode, ticket);
        let DecodedImage { image, scaled, scale, fingerprint } =
            decoded.map_err(|error| invalid_image(error, subject))?;

        let detector = &self.snapshot.detector;
        let detected = self.infer(Stage::Detect, detector, scaled, ticket).await?;
        times.queue += detected.queue_time;
        times.detect = detected.run_time;

        let began = Instant::now();
        let rules = Arc::clone(&self.rules);
        let limits = source.limits(&self.quality).clone();
        let crop = move || crop_photo(image, &detected.output, scale, &rules, &limits);
        let cropped = self.compute(crop).await?.map_err(Error::internal)?;
        times.align = began.elapsed();
        self.record_stage_time(Stage::Align, times.align, ticket);

        let CroppedPhoto { width, height, faces, checks, crops } = cropped;
        let mut report = PhotoReport {
            subject,
            source,
            width,
            height,
            fingerprint,
            faces,
            checks,
            embedding: None,
            embedding_norm: None,
            liveness: None,
            times,
        };
        if let Some(crops) = crops {
            self.judge_face(crops, tasks, &mut report, ticket).await?;
        }
        Ok(report)
    }

    /// Runs the embedder and the liveness networks on the main face, concurrently.
    async fn judge_face(
        &self,
        crops: Crops,
        tasks: PhotoTasks,
        report: &mut PhotoReport,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Error> {
        let aligned = tasks.embedding.then_some(crops.aligned);
        let liveness_crops = if tasks.liveness { crops.liveness } else { Vec::new() };
        let (embedded, judged) = tokio::try_join!(
            self.infer_optional(Stage::Embed, &self.snapshot.embedder, aligned, ticket),
            self.infer_liveness(liveness_crops, ticket),
        )?;
        if let Some(answer) = embedded {
            report.times.queue += answer.queue_time;
            report.times.embed = answer.run_time;
            let (embedding, norm) = self.read_embedding(&answer)?;
            let check = check_norm(norm, report.source.limits(&self.quality));
            report.checks.push(check);
            report.embedding = check.passed.then_some(embedding);
            report.embedding_norm = Some(f64::from(norm));
        }
        for answer in &judged {
            report.times.queue += answer.queue_time;
            report.times.liveness += answer.run_time;
        }
        if !judged.is_empty() {
            report.liveness = Some(self.liveness_score(&judged)?);
        }
        Ok(())
    }
}

fn invalid_image(error: DecodeError, subject: Subject) -> Error {
    Error::invalid(format!("{subject}.data"), error.to_string())
}

/// Finds the faces, and crops the main one if its quality allows.
fn crop_photo(
    image: RgbImage,
    detected: &RowOutput,
    scale: f32,
    rules: &Rules,
    limits: &SourceLimits,
) -> Result<CroppedPhoto, FaceError> {
    let (width, height) = (image.width(), image.height());
    let Faces { all: faces, main } = Faces::find(detected, scale, &image, &rules.detector)?;
    let Some(main) = main else {
        return Ok(CroppedPhoto { width, height, faces, checks: vec![], crops: None });
    };
    let mut checks = check_detection(&faces, &main, limits).to_vec();
    let fit = rules.embedder.alignment.fit(&main.face.points)?;
    let aligned = rules.embedder.alignment.crop(&image, &fit);
    checks.extend(check_crop(&aligned, fit.residual, limits));
    let usable = checks.iter().all(|check| check.passed);
    let liveness = rules.liveness.crops(&main.face, &image).unwrap_or_default();
    Ok(CroppedPhoto {
        width,
        height,
        faces,
        checks,
        crops: usable.then_some(Crops { aligned, liveness }),
    })
}
