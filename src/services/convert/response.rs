//! Converts the pipeline's results to wire messages.

use std::time::Duration;

use crate::face::calibration::CalibrationEntry;
use crate::face::decision::{Decision, Reason};
use crate::face::{
    Check, DetectedFace, Embedding, ImageSource, LimitKind, Measure, Point, ReasonCode,
};
use crate::pipeline::{
    Comparison, LiveModel, LivenessCheck, LivenessScore, PhotoReport, StageTimes, Verification,
};
use crate::proto::v1;

/// The fields that every answer has.
#[derive(Debug)]
pub struct ResponseInfo {
    /// The caller's identifier, or the server's own if the caller sent none.
    pub request_id: String,
    pub models: Vec<LiveModel>,
    /// Time from the request message to the answer.
    pub total: Duration,
}

pub fn verify_response(info: ResponseInfo, verification: &Verification) -> v1::VerifyResponse {
    let Verification { portrait, live, similarity, .. } = verification;
    let calibrated = similarity.and_then(|similarity| similarity.calibrated);
    v1::VerifyResponse {
        request_id: info.request_id,
        decision: decision(verification.verdict.decision).into(),
        reasons: reasons(&verification.verdict.reasons),
        similarity: similarity.map(|similarity| similarity.cosine),
        score100: calibrated.map(|value| value.score100),
        similarity_fmr: calibrated.map(|value| value.fmr),
        policy_fmr: verification.policy_fmr,
        similarity_min: verification.similarity_min,
        liveness: verification.liveness.map(liveness),
        portrait: Some(image_report(portrait)),
        live_photos: live.iter().map(image_report).collect(),
        matched_live_photo: verification.matched.and_then(|index| u32::try_from(index).ok()),
        models: models(info.models),
        calibration: verification.calibration.as_ref().map(calibration),
        times: Some(times(info.total, std::iter::once(portrait).chain(live))),
    }
}

pub fn compare_response(info: ResponseInfo, comparison: &Comparison) -> v1::CompareResponse {
    let Comparison { similarity, a, b, .. } = comparison;
    let calibrated = similarity.and_then(|similarity| similarity.calibrated);
    v1::CompareResponse {
        request_id: info.request_id,
        similarity: similarity.map(|similarity| similarity.cosine),
        score100: calibrated.map(|value| value.score100),
        similarity_fmr: calibrated.map(|value| value.fmr),
        reasons: reasons(&comparison.reasons),
        a: a.as_ref().map(image_report),
        b: b.as_ref().map(image_report),
        calibration: comparison.calibration.as_ref().map(calibration),
        models: models(info.models),
        times: Some(times(info.total, a.iter().chain(b))),
    }
}

pub fn embed_response(info: ResponseInfo, photo: &PhotoReport) -> v1::EmbedResponse {
    v1::EmbedResponse {
        request_id: info.request_id,
        embedding: photo.embedding.as_ref().map(embedding),
        image: Some(image_report(photo)),
        reasons: reasons(&photo.problems()),
        models: models(info.models),
        times: Some(times(info.total, std::iter::once(photo))),
    }
}

pub fn detect_response(info: ResponseInfo, photo: &PhotoReport) -> v1::DetectResponse {
    v1::DetectResponse {
        request_id: info.request_id,
        faces: photo.faces.iter().map(face).collect(),
        image: Some(image_report(photo)),
        reasons: reasons(&photo.problems()),
        models: models(info.models),
        times: Some(times(info.total, std::iter::once(photo))),
    }
}

pub fn check_liveness_response(
    info: ResponseInfo,
    check: &LivenessCheck,
) -> v1::CheckLivenessResponse {
    v1::CheckLivenessResponse {
        request_id: info.request_id,
        decision: decision(check.verdict.decision).into(),
        liveness: check.liveness.map(liveness),
        reasons: reasons(&check.verdict.reasons),
        image: Some(image_report(&check.photo)),
        models: models(info.models),
        times: Some(times(info.total, std::iter::once(&check.photo))),
    }
}

pub(super) fn decision(decision: Decision) -> v1::Decision {
    match decision {
        Decision::Pass => v1::Decision::Pass,
        Decision::Fail => v1::Decision::Fail,
        Decision::Review => v1::Decision::Review,
        Decision::Retry => v1::Decision::Retry,
    }
}

pub(super) fn reasons(reasons: &[Reason]) -> Vec<v1::Reason> {
    let convert = |reason: &Reason| v1::Reason {
        code: reason_code(reason.code).into(),
        subject: reason.subject.to_string(),
        value: reason.value,
        limit: reason.limit,
        message: reason.code.message().to_owned(),
    };
    reasons.iter().map(convert).collect()
}

fn liveness(liveness: LivenessScore) -> v1::Liveness {
    let LivenessScore { score, score_min } = liveness;
    v1::Liveness { score, score_min, passed: score >= score_min }
}

fn image_report(photo: &PhotoReport) -> v1::ImageReport {
    v1::ImageReport {
        subject: photo.subject.to_string(),
        source: source(photo.source).into(),
        width: saturating_u32(photo.width),
        height: saturating_u32(photo.height),
        face: photo.faces.first().map(face),
        faces_found: saturating_u32(photo.faces.len()),
        checks: photo.checks.iter().map(check).collect(),
        liveness_score: photo.pad_score,
    }
}

fn face(face: &DetectedFace) -> v1::Face {
    let [right_eye, left_eye, nose, right_mouth, left_mouth] = face.points.map(point);
    v1::Face {
        r#box: Some(v1::Box {
            x: face.rect.x,
            y: face.rect.y,
            width: face.rect.width,
            height: face.rect.height,
        }),
        detector_score: face.score,
        right_eye: Some(right_eye),
        left_eye: Some(left_eye),
        nose: Some(nose),
        right_mouth_corner: Some(right_mouth),
        left_mouth_corner: Some(left_mouth),
    }
}

fn point(point: Point) -> v1::Point {
    v1::Point { x: point.x, y: point.y }
}

fn check(check: &Check) -> v1::Check {
    v1::Check {
        measure: measure(check.measure).into(),
        value: check.value,
        limit: check.limit,
        kind: limit_kind(check.kind).into(),
        passed: check.passed,
    }
}

pub(super) fn limit_kind(kind: LimitKind) -> v1::LimitKind {
    match kind {
        LimitKind::Min => v1::LimitKind::Min,
        LimitKind::Max => v1::LimitKind::Max,
    }
}

fn embedding(embedding: &Embedding) -> v1::Embedding {
    v1::Embedding { values: embedding.values().to_vec(), space: embedding.space().to_string() }
}

pub(super) fn models(models: Vec<LiveModel>) -> Vec<v1::ModelVersion> {
    let convert = |model: LiveModel| v1::ModelVersion {
        task: model.task,
        name: model.name,
        version: model.version,
        sha256: model.sha256,
        precision: model.precision.to_owned(),
    };
    models.into_iter().map(convert).collect()
}

pub(super) fn calibration(entry: &CalibrationEntry) -> v1::Calibration {
    v1::Calibration {
        id: entry.id().to_owned(),
        pair_type: entry.pair_type().name().to_owned(),
        generic: entry.is_generic(),
        impostor_pairs: entry.impostor_pairs(),
        genuine_pairs: entry.genuine_pairs(),
        fmr_min: entry.fmr_min(),
    }
}

fn times<'a>(total: Duration, photos: impl IntoIterator<Item = &'a PhotoReport>) -> v1::StageTimes {
    let mut sum = StageTimes::default();
    for photo in photos {
        sum += photo.times;
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    v1::StageTimes {
        total_ms: ms(total),
        decode_ms: ms(sum.decode),
        queue_ms: ms(sum.queue),
        detect_ms: ms(sum.detect),
        align_ms: ms(sum.align),
        embed_ms: ms(sum.embed),
        liveness_ms: ms(sum.liveness),
    }
}

pub(super) fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn source(source: ImageSource) -> v1::ImageSource {
    match source {
        ImageSource::LivePhoto => v1::ImageSource::LivePhoto,
        ImageSource::IdFile => v1::ImageSource::IdFile,
        ImageSource::IdChip => v1::ImageSource::IdChip,
    }
}

fn measure(measure: Measure) -> v1::Measure {
    match measure {
        Measure::FaceCount => v1::Measure::FaceCount,
        Measure::DetectorScore => v1::Measure::DetectorScore,
        Measure::InterEyeDistance => v1::Measure::InterEyeDistance,
        Measure::Yaw => v1::Measure::Yaw,
        Measure::Pitch => v1::Measure::Pitch,
        Measure::Roll => v1::Measure::Roll,
        Measure::Sharpness => v1::Measure::Sharpness,
        Measure::Brightness => v1::Measure::Brightness,
        Measure::UnderExposed => v1::Measure::UnderExposed,
        Measure::OverExposed => v1::Measure::OverExposed,
        Measure::EmbeddingNorm => v1::Measure::EmbeddingNorm,
        Measure::LandmarkFit => v1::Measure::LandmarkFit,
    }
}

fn reason_code(code: ReasonCode) -> v1::ReasonCode {
    match code {
        ReasonCode::FaceNotFound => v1::ReasonCode::FaceNotFound,
        ReasonCode::MultipleFaces => v1::ReasonCode::MultipleFaces,
        ReasonCode::FaceTooSmall => v1::ReasonCode::FaceTooSmall,
        ReasonCode::FaceUncertain => v1::ReasonCode::FaceUncertain,
        ReasonCode::FaceTurned => v1::ReasonCode::FaceTurned,
        ReasonCode::FaceTilted => v1::ReasonCode::FaceTilted,
        ReasonCode::Blurred => v1::ReasonCode::Blurred,
        ReasonCode::TooDark => v1::ReasonCode::TooDark,
        ReasonCode::TooBright => v1::ReasonCode::TooBright,
        ReasonCode::FaceUnusable => v1::ReasonCode::FaceUnusable,
        ReasonCode::LandmarksImplausible => v1::ReasonCode::LandmarksImplausible,
        ReasonCode::SimilarityLow => v1::ReasonCode::SimilarityLow,
        ReasonCode::SimilarityBorderline => v1::ReasonCode::SimilarityBorderline,
        ReasonCode::LivePhotosDiffer => v1::ReasonCode::LivePhotosDiffer,
        ReasonCode::SameImage => v1::ReasonCode::SameImage,
        ReasonCode::LivenessLow => v1::ReasonCode::LivenessLow,
        ReasonCode::Uncalibrated => v1::ReasonCode::Uncalibrated,
        ReasonCode::GenericCalibration => v1::ReasonCode::GenericCalibration,
        ReasonCode::FpsTooLow => v1::ReasonCode::FpsTooLow,
        ReasonCode::TimeGap => v1::ReasonCode::TimeGap,
        ReasonCode::ClockDrift => v1::ReasonCode::ClockDrift,
        ReasonCode::TooEarly => v1::ReasonCode::TooEarly,
        ReasonCode::StepTimeout => v1::ReasonCode::StepTimeout,
        ReasonCode::WrongAction => v1::ReasonCode::WrongAction,
        ReasonCode::TrackLost => v1::ReasonCode::TrackLost,
        ReasonCode::SessionExpired => v1::ReasonCode::SessionExpired,
        ReasonCode::TooFewFrames => v1::ReasonCode::TooFewFrames,
        ReasonCode::JumpCut => v1::ReasonCode::JumpCut,
        ReasonCode::IdentitySwitch => v1::ReasonCode::IdentitySwitch,
        ReasonCode::DuplicateFrames => v1::ReasonCode::DuplicateFrames,
        ReasonCode::LoopSuspect => v1::ReasonCode::LoopSuspect,
        ReasonCode::ReplayedMedia => v1::ReasonCode::ReplayedMedia,
        ReasonCode::InjectionSuspect => v1::ReasonCode::InjectionSuspect,
        ReasonCode::PlanarFace => v1::ReasonCode::PlanarFace,
        ReasonCode::PadUncertain => v1::ReasonCode::PadUncertain,
        ReasonCode::LivenessFailed => v1::ReasonCode::LivenessFailed,
    }
}
