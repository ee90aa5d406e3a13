//! The RGB image, the only image type of the server.

use crate::trust::Secret;

/// An 8-bit RGB image, interleaved (`height × width × 3` bytes), wiped on drop.
#[derive(Debug)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Secret<Vec<u8>>,
}

impl RgbImage {
    /// Wraps `pixels` (RGB, interleaved, line by line). Returns `None` if the length is not
    /// `width × height × 3` or a side is zero.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let pixels = Secret::new(pixels);
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && bytes == pixels.expose().len()).then_some(Self { width, height, pixels })
    }

    /// Creates a black image.
    ///
    /// # Panics
    /// If `width` or `height` is 0.
    pub fn black(width: usize, height: usize) -> Self {
        assert!(width > 0 && height > 0, "an image has at least one pixel");
        Self { width, height, pixels: Secret::new(vec![0; width * height * 3]) }
    }

    /// Returns the width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the bytes: RGB, interleaved, `height × width × 3`.
    pub fn pixels(&self) -> &[u8] {
        self.pixels.expose()
    }

    /// Returns the bytes for writing.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        self.pixels.expose_mut()
    }
}

/// Rounds a value of 0 to 255 to the nearest byte; halves round up.
///
/// Adding 2²³ shifts the fraction out of the mantissa; the lowest bits are then the rounded
/// integer. `f32::round` would be a library call, because this is compiled for processors without
/// SSE 4.1.
#[inline]
pub(super) fn nearest_byte(value: f32) -> u8 {
    const SHIFT: f32 = (1 << 23) as f32;
    let shifted = value + SHIFT;
    let whole = shifted - SHIFT;
    shifted.to_bits().wrapping_add((value - whole >= 0.5).into()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_byte_is_that_of_rounding() {
        for value in (0..=255 * 64).map(|n| n as f32 / 64.0) {
            for near in [value, value.next_down().max(0.0), value.next_up().min(255.0)] {
                assert_eq!(nearest_byte(near), near.round() as u8, "{near}");
            }
        }
    }
}
