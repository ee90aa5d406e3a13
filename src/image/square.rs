//! Rotated squares of an image, the crops of the landmark networks.

use crate::image::{RgbImage, SimilarityTransform, warp};

/// A square of an image, rotated about its centre, and its crop of `size × size` pixels for a
/// network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnedSquare {
    /// Maps pixels of the image to pixels of the crop.
    to_crop: SimilarityTransform,
    size: usize,
}

impl TurnedSquare {
    /// Returns the square of `side` image pixels about `center` whose upper edge has the direction
    /// `along`. Returns `None` if a number is not finite, or if side or direction are nearly zero.
    ///
    /// Pixel centres are at integers, so the centre of the crop is at `(size − 1) / 2`. Mirroring
    /// the crop keeps the centre there.
    pub fn new(center: [f64; 2], side: f64, along: [f64; 2], size: usize) -> Option<Self> {
        let scale = size as f64 / side / along[0].hypot(along[1]);
        // Rotates the direction onto the x axis: by the negative of its angle.
        let (a, b) = (along[0] * scale, -along[1] * scale);
        let middle = (size as f64 - 1.0) / 2.0;
        let [x, y] = center;
        let to_crop =
            SimilarityTransform::new(a, b, middle - (a * x - b * y), middle - (b * x + a * y))?;
        Some(Self { to_crop, size })
    }

    /// Returns the crop, black outside the image.
    pub fn sample(&self, image: &RgbImage) -> RgbImage {
        warp(image, &self.to_crop, self.size, self.size)
    }

    /// Maps a point of the crop to the image.
    pub fn to_image(&self, x: f64, y: f64) -> (f64, f64) {
        self.to_crop.invert(x, y)
    }

    /// Returns the side of the crop in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns the width of one crop pixel in image pixels.
    pub fn image_pixels_per_crop_pixel(&self) -> f64 {
        1.0 / self.to_crop.scale()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_square_of_its_own_size_is_cut_out_as_it_is() {
        let image = RgbImage::new(4, 4, (0..48).collect()).unwrap();
        let square = TurnedSquare::new([1.5, 1.5], 2.0, [9.0, 0.0], 2).unwrap();
        let crop = square.sample(&image);
        assert_eq!(crop.pixels(), [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
    }

    #[test]
    fn the_direction_becomes_the_upper_edge() {
        // Along the image's downward axis: a point below is at the right of the crop.
        let square = TurnedSquare::new([10.0, 20.0], 8.0, [0.0, 3.0], 4).unwrap();
        let (x, y) = square.to_image(3.5, 1.5);
        assert!((x - 10.0).abs() < 1e-9 && (y - 24.0).abs() < 1e-9, "{x} {y}");
        assert_eq!(square.image_pixels_per_crop_pixel(), 2.0);
    }

    #[test]
    fn a_square_without_side_or_direction_is_none() {
        for (side, along) in
            [(0.0, [1.0, 0.0]), (5.0, [0.0, 0.0]), (f64::NAN, [1.0, 0.0]), (5.0, [f64::NAN, 0.0])]
        {
            assert_eq!(TurnedSquare::new([0.0, 0.0], side, along, 4), None);
        }
    }
}
