//! One photograph: decode → detect → align → embed and liveness.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{PhotoReport, Photograph, StageTimes};
use super::{Error, Pipeline, field};
use crate::device::RowOutput;
use crate::face::{
    Alignment, Check, DetectedFace, Embedding, MainFace, check_crop, check_detection, check_norm,
    main_face, yunet,
};
use crate::image::{
    DecodeError, DifferenceHash, Letterbox, LumaImage, RgbImage, crop_resize, decode, letterbox,
};
use crate::liveness::crop_rect;
use crate::scheduler::{Answer, Ticket};
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

/// A picture once its file was read.
struct Decoded {
    image: RgbImage,
    canvas: RgbImage,
    scale: f32,
    fingerprint: DifferenceHash,
}

/// The main face, cut out for the networks that judge it.
struct Cut {
    faces: Vec<DetectedFace>,
    checks: Vec<Check>,
    aligned: Option<RgbImage>,
    liveness_crop: Option<RgbImage>,
}
