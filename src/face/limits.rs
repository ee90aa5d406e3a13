//! Quality limits of a face, one set per image source.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::setting::{RangeCheck, Violation};

/// Section `quality`: the quality limits of each image source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Photographs taken at the counter. The clerk can take another one, so the limits are strict.
    pub live_photo: SourceLimits,
    /// Portraits from a document scan or a registry file.
    pub(super) id_file: SourceLimits,
    /// Portraits from an identity card's chip, 102×126 pixels. They cannot be taken again.
    pub id_chip: SourceLimits,
}

impl Default for QualityLimits {
    fn default() -> Self {
        Self { live_photo: LIVE_PHOTO, id_file: ID_FILE, id_chip: ID_CHIP }
    }
}

/// Chosen on eight public portraits, a counter photograph, and copies of each that were blurred,
/// darkened, overexposed and shrunk. The comments give the values measured on them.
const LIVE_PHOTO: SourceLimits = SourceLimits {
    // Good faces have 0.93 to 0.96. OpenCV's demonstrations use limits of 0.6 to 0.9.
    detector_score_min: 0.8,
    // A person in the background has a tenth of the area; two customers side by side have similar
    // areas.
    second_face_area_max: 0.25,
    // A counter camera of 480×640 gives 75. The template has 35; below that the crop is enlarged.
    inter_eye_distance_min: 60.0,
    // The embedder was measured on near-frontal pairs. Its errors rise quickly beyond (ISO/IEC
    // 29794-5).
    yaw_max: 25.0,
    pitch_max: 20.0,
    roll_max: 25.0,
    // 775 to 3,800 as taken; 44 to 139 after a blur of 3 % of the inter-eye distance.
    sharpness_min: 150.0,
    // 0.42 to 0.60 as taken; 0.15 to 0.21 at 35 % of the light, 0.06 to 0.09 at 15 %.
    brightness_min: 0.22,
    // 0.76 to 0.96 overexposed.
    brightness_max: 0.8,
    // At most 0.19 as taken (dark hair and skin); 0.5 to 0.9 at 15 % of the light.
    under_exposed_max: 0.35,
    // At most 0.07 as taken; 0.47 to 0.78 overexposed.
    over_exposed_max: 0.15,
    // 10.4 to 14.5 as taken; 8.2 to 10.3 after a blur of 10 % of the inter-eye distance.
    embedding_norm_min: 10.0,
    // A canonical head turned by 40° has 0.19; random points have at least 0.31.
    landmark_fit_max: 0.25,
};

/// A stored portrait may be small, but not much smaller than the template, whose eyes are 35 pixels
/// apart.
const ID_FILE: SourceLimits = SourceLimits {
    detector_score_min: 0.7,
    // Small press portraits: 34 and 44 pixels.
    inter_eye_distance_min: 30.0,
    pitch_max: 25.0,
    // At least 306 as published; 36 to 139 after a blur of 3 % of the inter-eye distance.
    sharpness_min: 60.0,
    brightness_min: 0.2,
    brightness_max: 0.85,
    ..LIVE_PHOTO
};

/// A chip portrait cannot be improved: 102×126 pixels, eyes about 26 pixels apart. Only faces that
/// the embedder cannot use are refused.
const ID_CHIP: SourceLimits = SourceLimits {
    detector_score_min: 0.6,
    inter_eye_distance_min: 20.0,
    // Chip-sized copies have 95 to 412; a flat surface has less than 5.
    sharpness_min: 10.0,
    brightness_min: 0.15,
    brightness_max: 0.9,
    under_exposed_max: 0.5,
    over_exposed_max: 0.3,
    // Chip-sized copies have 9.9 to 14.8.
    embedding_norm_min: 9.0,
    ..ID_FILE
};

/// Quality limits of one image source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct SourceLimits {
    /// Least detector score of the main face, 0 to 1.
    pub(super) detector_score_min: f64,
    /// Largest area of a second face as a fraction of the main face's area (ISO/IEC 29794-5 "single
    /// face").
    pub(super) second_face_area_max: f64,
    /// Least distance between the eye centres in pixels, corrected for yaw.
    pub(super) inter_eye_distance_min: f64,
    /// Largest yaw to either side, in degrees.
    pub yaw_max: f64,
    /// Largest pitch up or down, in degrees.
    pub(super) pitch_max: f64,
    /// Largest roll to either side, in degrees.
    pub(super) roll_max: f64,
    /// Least variance of the Laplacian of the aligned 112×112 luma. Sharp faces have hundreds.
    pub(super) sharpness_min: f64,
    /// Least mean luma of the aligned face, 0 (black) to 1 (white).
    pub brightness_min: f64,
    /// Largest mean luma of the aligned face, at least `brightness_min`.
    pub brightness_max: f64,
    /// Largest fraction of the aligned face's pixels with luma 25 or less of 255, 0 to 1.
    pub(super) under_exposed_max: f64,
    /// Largest fraction of the aligned face's pixels with luma 247 or more of 255, 0 to 1.
    pub(super) over_exposed_max: f64,
    /// Least L2 norm of the raw embedding. The norm falls with blur, noise and occlusion; its scale
    /// depends on the embedding model.
    pub(super) embedding_norm_min: f64,
    /// Largest residual of the 5-point alignment, in inter-eye distances of the template.
    pub(super) landmark_fit_max: f64,
}

impl QualityLimits {
    /// Returns every limit outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let sources = [
            ("live_photo", &self.live_photo),
            ("id_file", &self.id_file),
            ("id_chip", &self.id_chip),
        ];
        let of_source = |(name, limits): (&str, &SourceLimits)| limits.violations(name);
        sources.into_iter().flat_map(of_source).collect()
    }
}

impl SourceLimits {
    /// Returns the limits that are negative or NaN. Such a limit would refuse every picture or
    /// none.
    fn violations(&self, source: &str) -> Vec<Violation> {
        let mut check = RangeCheck::of(format!("quality.{source}"));
        let limits = [
            ("detector_score_min", self.detector_score_min),
            ("second_face_area_max", self.second_face_area_max),
            ("inter_eye_distance_min", self.inter_eye_distance_min),
            ("yaw_max", self.yaw_max),
            ("pitch_max", self.pitch_max),
            ("roll_max", self.roll_max),
            ("sharpness_min", self.sharpness_min),
            ("brightness_min", self.brightness_min),
            ("brightness_max", self.brightness_max),
            ("under_exposed_max", self.under_exposed_max),
            ("over_exposed_max", self.over_exposed_max),
            ("embedding_norm_min", self.embedding_norm_min),
            ("landmark_fit_max", self.landmark_fit_max),
        ];
        for (key, limit) in limits {
            check.require(limit >= 0.0, key, limit, "at least 0");
        }
        // A NaN is reported above and not again here.
        let is_reversed = self.brightness_max < self.brightness_min;
        check.require(
            !is_reversed,
            "brightness_max",
            self.brightness_max,
            "at least brightness_min",
        );
        check.violations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_limit_and_one_that_is_nan_are_reported_with_their_source() {
        let mut limits = QualityLimits::default();
        assert_eq!(limits.violations(), []);
        limits.live_photo.yaw_max = -1.0;
        limits.id_file.sharpness_min = f64::NAN;
        limits.id_chip.brightness_max = limits.id_chip.brightness_min - 0.01;
        let keys: Vec<String> = limits.violations().into_iter().map(|found| found.key).collect();
        let expected = [
            "quality.live_photo.yaw_max",
            "quality.id_file.sharpness_min",
            "quality.id_chip.brightness_max",
        ];
        assert_eq!(keys, expected);
    }
}
