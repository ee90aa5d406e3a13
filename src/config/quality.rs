//! Limits a face must keep before it is embedded and judged, one set per image source.

use serde::{Deserialize, Serialize};

/// Quality limits for every source of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Photographs taken at the counter: the clerk can take another, so the limits are strict.
    pub live_photo: SourceLimits,
    /// Portraits from a document scan or a registry file.
    pub id_file: SourceLimits,
    /// Portraits from an identity card's chip, 102×126 pixels: they cannot be taken again.
    pub id_chip: SourceLimits,
}

impl Default for QualityLimits {
    fn default() -> Self {
        Self { live_photo: LIVE_PHOTO, id_file: ID_FILE, id_chip: ID_CHIP }
    }
}

const LIVE_PHOTO: SourceLimits = SourceLimits {
    detector_score_min: 0.8,
    second_face_area_max: 0.25,
    inter_eye_distance_min: 60.0,
    yaw_max: 25.0,
    pitch_max: 25.0,
    roll_max: 20.0,
    sharpness_min: 100.0,
    brightness_min: 0.2,
    brightness_max: 0.8,
    under_exposed_max: 0.3,
    over_exposed_max: 0.1,
    embedding_norm_min: 10.0,
    landmark_fit_max: 0.25,
};
const ID_FILE: SourceLimits = LIVE_PHOTO;
const ID_CHIP: SourceLimits = LIVE_PHOTO;

/// Limits of one image source. Angles are degrees, fractions and scores 0..1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLimits {
    /// Least detector score of the main face.
    pub detector_score_min: f64,
    /// Largest area of a second face relative to the main one (ISO/IEC 29794-5 "single face").
    pub second_face_area_max: f64,
    /// Least distance between the eye centres in pixels, corrected for yaw.
    pub inter_eye_distance_min: f64,
    /// Largest absolute yaw.
    pub yaw_max: f64,
    /// Largest absolute pitch.
    pub pitch_max: f64,
    /// Largest absolute roll.
    pub roll_max: f64,
    /// Least variance of the Laplacian of the aligned 112×112 luma.
    pub sharpness_min: f64,
    /// Least mean luma of the aligned face.
    pub brightness_min: f64,
    /// Largest mean luma of the aligned face.
    pub brightness_max: f64,
    /// Largest fraction of the aligned face's pixels with luma 25 or less.
    pub under_exposed_max: f64,
    /// Largest fraction of the aligned face's pixels with luma 247 or more.
    pub over_exposed_max: f64,
    /// Least L2 norm of the raw embedding; it falls with blur, noise and occlusion.
    pub embedding_norm_min: f64,
    /// Largest residual of the 5-point alignment, in inter-eye distances of the template.
    pub landmark_fit_max: f64,
}
