//! Limits on pictures.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::setting::{RangeCheck, Violation};

/// Section `image`. A picture is checked by its file's length and its header before memory for its
/// pixels is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Largest file of one picture in bytes, at least 1.
    pub bytes_max: usize,
    /// Longest side of a picture in pixels, at least 1.
    pub side_max: usize,
    /// Most pixels of a picture (width times height), at least 1.
    pub pixels_max: usize,
    /// Most live photographs in one `Verify`, from 1 to 32.
    pub live_photos_max: usize,
    /// Most decoded pictures in memory at one time, frames of sessions included, at least 1.
    /// Further pictures wait as files. The largest picture that the default of `pixels_max` allows
    /// takes 36 MiB.
    pub decoded_max: usize,
}

impl Default for ImageSettings {
    /// The 12-megapixel photograph of a phone (4032×3024, 3 to 6 MB as JPEG) just fits. It takes 36
    /// MiB of pixels, and 72 MiB more while a progressive JPEG is decoded.
    fn default() -> Self {
        Self {
            bytes_max: 8 << 20,
            side_max: 4096,
            pixels_max: 4096 * 3072,
            live_photos_max: 8,
            decoded_max: 64,
        }
    }
}

/// Most live photographs that any deployment may allow in one request.
const LIVE_PHOTOS_MAX: usize = 32;

impl ImageSettings {
    /// Returns every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("image");
        check.at_least_one("bytes_max", self.bytes_max);
        check.at_least_one("side_max", self.side_max);
        check.at_least_one("pixels_max", self.pixels_max);
        check.within("live_photos_max", self.live_photos_max, 1..=LIVE_PHOTOS_MAX);
        check.at_least_one("decoded_max", self.decoded_max);
        check.violations()
    }

    /// Refuses a picture by the size in its header.
    ///
    /// # Errors
    /// [`DecodeError::SideTooLong`] and [`DecodeError::TooManyPixels`].
    pub(super) fn check_size(&self, width: usize, height: usize) -> Result<(), DecodeError> {
        let side = width.max(height);
        if side > self.side_max {
            return Err(DecodeError::SideTooLong { side, side_max: self.side_max });
        }
        let pixels = width.saturating_mul(height);
        if pixels > self.pixels_max {
            return Err(DecodeError::TooManyPixels { pixels, pixels_max: self.pixels_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_refuse_every_picture_and_too_many_photographs_are_reported() {
        assert_eq!(ImageSettings::default().violations(), []);
        let keys = |settings: ImageSettings| -> Vec<String> {
            settings.violations().into_iter().map(|violation| violation.key).collect()
        };
        let nothing = ImageSettings {
            bytes_max: 0,
            side_max: 0,
            pixels_max: 0,
            live_photos_max: 0,
            decoded_max: 0,
        };
        assert_eq!(keys(nothing).len(), 5);
        let many = ImageSettings { live_photos_max: 33, ..ImageSettings::default() };
        assert_eq!(keys(many), ["image.live_photos_max"]);
    }
}
