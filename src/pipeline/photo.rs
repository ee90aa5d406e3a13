//! One photograph: decode → detect → crop → judge.

use std::sync::Arc;

use tokio::time::Instant;

use super::adapters::ModelAdapters;
use super::face_crops::FaceCrops;
use super::report::{PhotoReport, Photograph, StageTimes};
use super::stages::{DetectedImage, Faces};
use super::{Error, Pipeline};
use crate::face::{
    Check, DetectedFace, FaceError, SourceLimits, check_crop, check_detection, check_norm,
};
use crate::image::Orientation;
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
    faces: Vec<DetectedFace>,
    checks: Vec<Check>,
    /// The inputs of the requested networks. Empty unless the quality allows the face to be used.
    crops: FaceCrops,
}

impl Pipeline {
    /// Examines one photograph and runs `tasks` on the main face. A face that fails a quality check
    /// is reported, but not given to the networks that run after the detector.
    pub(super) async fn examine(
        &self,
        photo: Photograph,
        tasks: PhotoTasks,
        ticket: &Arc<Ticket>,
    ) -> Result<PhotoReport, Error> {
        let Photograph { subject, source, file } = photo;
        let began = Instant::now();
        let _place = self.acquire_image_place(ticket).await?;
        let mut times = StageTimes { queue: began.elapsed(), ..StageTimes::default() };

        let file_field = format!("{subject}.data");
        let upright = Orientation::UPRIGHT;
        let detected = self.detect_faces(file, upright, file_field, ticket).await?;
        times += detected.times;
        let (width, height) = (detected.image.width(), detected.image.height());
        let difference_hash = detected.difference_hash;

        let began = Instant::now();
        let adapters = Arc::clone(&self.adapters);
        let limits = source.limits(&self.quality).clone();
        let crop = move || crop_photo(&detected, tasks, &adapters, &limits);
        let cropped = self.compute(crop).await?.map_err(Error::internal)?;
        times.align = began.elapsed();
        self.record_stage_time(Stage::Align, times.align, ticket);

        let CroppedPhoto { faces, mut checks, crops } = cropped;
        let judged = self.judge(crops, ticket).await?;
        times += judged.times;
        let embedding_norm = judged.embedding.as_ref().map(|(_, norm)| f64::from(*norm));
        let embedding = judged.embedding.and_then(|(embedding, norm)| {
            let check = check_norm(norm, source.limits(&self.quality));
            checks.push(check);
            check.passed.then_some(embedding)
        });
        Ok(PhotoReport {
            subject,
            source,
            width,
            height,
            difference_hash,
            faces,
            checks,
            embedding,
            embedding_norm,
            pad_score: judged.pad_score,
            times,
        })
    }
}

/// Finds the faces, and crops the main one for `tasks` if its quality allows.
fn crop_photo(
    photo: &DetectedImage,
    tasks: PhotoTasks,
    adapters: &ModelAdapters,
    limits: &SourceLimits,
) -> Result<CroppedPhoto, FaceError> {
    let Faces { all: faces, main } = Faces::find(photo, &adapters.detector)?;
    let mut crops = FaceCrops::default();
    let Some(main) = main else {
        return Ok(CroppedPhoto { faces, checks: vec![], crops });
    };
    let mut checks = check_detection(&faces, &main, limits).to_vec();
    let alignment = adapters.embedder.alignment;
    let fit = alignment.fit(&main.face.points)?;
    let aligned = alignment.crop(&photo.image, &fit);
    checks.extend(check_crop(&aligned, fit.residual, limits));
    let usable = checks.iter().all(|check| check.passed);
    if usable && tasks.liveness {
        // A face that cannot be cropped has no liveness score, and is refused for that.
        crops.liveness = adapters.liveness.crops(&main.face, &photo.image).unwrap_or_default();
    }
    if usable && tasks.embedding {
        crops.aligned = Some(aligned);
    }
    Ok(CroppedPhoto { faces, checks, crops })
}
