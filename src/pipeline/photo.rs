//! One photograph: decode → detect → align → embed and liveness.

use std::sync::Arc;

use tokio::time::Instant;

use super::look::{Decoded, Faces};
use super::report::{PhotoReport, Photograph, StageTimes};
use super::rules::Rules;
use super::{Error, Pipeline};
use crate::device::RowOutput;
use crate::face::decision::Subject;
use crate::face::{
    Check, DetectedFace, FaceError, SourceLimits, check_crop, check_detection, check_norm,
};
use crate::image::{DecodeError, Orientation, RgbImage};
use crate::scheduler::Ticket;
use crate::telemetry::Stage;

/// What a call needs to know about the main face beyond its place and quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    embedding: bool,
    liveness: bool,
}

impl Wanted {
    pub(super) const FACES: Self = Self { embedding: false, liveness: false };
    pub(super) const EMBEDDING: Self = Self { embedding: true, liveness: false };
    pub(super) const LIVENESS: Self = Self { embedding: false, liveness: true };
    pub(super) const ALL: Self = Self { embedding: true, liveness: true };
}

/// The faces of a picture, and the main one cut out for the networks that judge it.
struct Cut {
    width: usize,
    height: usize,
    faces: Vec<DetectedFace>,
    checks: Vec<Check>,
    /// Set when quality allows the face to be used.
    crops: Option<Crops>,
}

struct Crops {
    aligned: RgbImage,
    /// One for each member of the liveness ensemble; none where the face cannot be cropped.
    liveness: Vec<RgbImage>,
}

impl Pipeline {
    /// Finds out what `wanted` asks about one photograph. A face that fails a quality check is
    /// reported but not shown to the networks behind the detector.
    pub(super) async fn examine(
        &self,
        photo: Photograph,
        wanted: Wanted,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        let Photograph { subject, source, file } = photo;
        let mut times = StageTimes::default();

        let began = Instant::now();
        let _place = self.place(ticket).await?;
        times.queue = began.elapsed();

        let began = Instant::now();
        let (limits, side) = (self.image, self.rules.detector.side);
        let upright = Orientation::UPRIGHT;
        let read = move || Decoded::read(file.expose(), &limits, upright, side);
        let decoded = self.compute(read).await?;
        times.decode = began.elapsed();
        self.spent(Stage::Decode, times.decode, ticket);
        let Decoded { image, scaled, scale, fingerprint } =
            decoded.map_err(|error| refuse(error, subject))?;

        let detector = &self.snapshot.detector;
        let detected = self.ask(Stage::Detect, detector, scaled, ticket).await?;
        times.queue += detected.queue_time;
        times.detect = detected.run_time;

        let began = Instant::now();
        let rules = Arc::clone(&self.rules);
        let limits = source.limits(&self.quality).clone();
        let cut = move || cut(image, &detected.output, scale, &rules, &limits);
        let cut = self.compute(cut).await?.map_err(Error::internal)?;
        times.align = began.elapsed();
        self.spent(Stage::Align, times.align, ticket);

        let Cut { width, height, faces, checks, crops } = cut;
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
            self.judge_face(crops, wanted, &mut report, ticket).await?;
        }
        Ok(report)
    }

    /// Shows the main face to the embedder and the liveness networks, side by side.
    async fn judge_face(
        &self,
        crops: Crops,
        wanted: Wanted,
        report: &mut PhotoReport,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Error> {
        let aligned = wanted.embedding.then_some(crops.aligned);
        let cropped = if wanted.liveness { crops.liveness } else { Vec::new() };
        let (embedded, judged) = tokio::try_join!(
            self.ask_some(Stage::Embed, &self.snapshot.embedder, aligned, ticket),
            self.ask_liveness(cropped, ticket),
        )?;
        if let Some(answer) = embedded {
            report.times.queue += answer.queue_time;
            report.times.embed = answer.run_time;
            let (embedding, norm) = self.embedding(&answer)?;
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
            report.liveness = Some(self.live(&judged)?);
        }
        Ok(())
    }
}

fn refuse(error: DecodeError, subject: Subject) -> Error {
    Error::invalid(format!("{subject}.data"), error.to_string())
}

/// Finds the faces and cuts the main one out if its quality allows.
fn cut(
    image: RgbImage,
    detected: &RowOutput,
    scale: f32,
    rules: &Rules,
    limits: &SourceLimits,
) -> Result<Cut, FaceError> {
    let (width, height) = (image.width(), image.height());
    let Faces { all: faces, main } = Faces::find(detected, scale, &image, &rules.detector)?;
    let Some(main) = main else {
        return Ok(Cut { width, height, faces, checks: vec![], crops: None });
    };
    let mut checks = check_detection(&faces, &main, limits).to_vec();
    let fit = rules.embedder.alignment.fit(&main.face.points)?;
    let aligned = rules.embedder.alignment.crop(&image, &fit);
    checks.extend(check_crop(&aligned, fit.residual, limits));
    let usable = checks.iter().all(|check| check.passed);
    let liveness = rules.liveness.crops(&main.face, &image).unwrap_or_default();
    Ok(Cut { width, height, faces, checks, crops: usable.then_some(Crops { aligned, liveness }) })
}
