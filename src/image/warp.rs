//! Similarity transforms and resampling.

use crate::image::RgbImage;
use crate::image::rgb::nearest_byte;

/// A rotation, uniform scale and shift from source to target pixels, without reflection:
/// `x' = a·x − b·y + tx`, `y' = b·x + a·y + ty`. It is always invertible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimilarityTransform {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

/// Least scale: a smaller one would shrink an image of 4096 pixels to less than a hundredth of a
/// pixel.
const SCALE_MIN: f64 = 1e-6;

impl SimilarityTransform {
    /// Creates the transform. Returns `None` if a number is not finite or the scale `hypot(a, b)`
    /// is below 1e-6 or above 1e6.
    pub fn new(a: f64, b: f64, tx: f64, ty: f64) -> Option<Self> {
        let scale = a.hypot(b);
        let is_sane = (SCALE_MIN..=1.0 / SCALE_MIN).contains(&scale);
        (is_sane && tx.is_finite() && ty.is_finite()).then_some(Self { a, b, tx, ty })
    }

    /// Returns the size of one source pixel in target pixels.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// Maps a source pixel to the target.
    pub fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        (self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty)
    }

    /// Maps a target pixel to the source.
    pub(super) fn invert(&self, x: f64, y: f64) -> (f64, f64) {
        let square = self.a * self.a + self.b * self.b;
        let (x, y) = (x - self.tx, y - self.ty);
        ((self.a * x + self.b * y) / square, (self.a * y - self.b * x) / square)
    }
}

/// Samples `width × height` pixels of `source` bilinearly through `transform` (source to target).
///
/// Integer coordinates are pixel centres, and everything outside the source is black, as in
/// OpenCV's `warpAffine` with a constant border. There is no low-pass filter: InsightFace and
/// OpenCV align faces without one, and the calibration was measured on such faces.
pub fn warp(
    source: &RgbImage,
    transform: &SimilarityTransform,
    width: usize,
    height: usize,
) -> RgbImage {
    let mut target = RgbImage::black(width, height);
    for (y, line) in target.pixels_mut().chunks_exact_mut(width * 3).enumerate() {
        for (block, pixels) in line.as_chunks_mut::<3>().0.chunks_mut(BLOCK).enumerate() {
            let points = SamplePoints::new(source, transform, block * BLOCK, y);
            let corners = points.corners(source, pixels.len());
            points.interpolate(&corners, pixels);
        }
    }
    target
}

/// Number of target pixels sampled together. Each step is a loop over all of them, which the
/// compiler vectorises.
const BLOCK: usize = 16;

/// Source positions of neighbouring target pixels in a line.
struct SamplePoints {
    /// Column and line of the source pixel to the upper left, which may lie outside.
    left: [i32; BLOCK],
    top: [i32; BLOCK],
    /// Distance of the point from that pixel, 0 to 1.
    right_share: [f32; BLOCK],
    lower_share: [f32; BLOCK],
}

/// For each corner (upper left, upper right, lower left, lower right) and channel, the value at
/// each point.
type Corners = [[[u8; BLOCK]; 3]; 4];

impl SamplePoints {
    /// Returns the source positions of the target pixels from `x` on in line `y`.
    fn new(source: &RgbImage, transform: &SimilarityTransform, x: usize, y: usize) -> Self {
        // Beyond these limits everything is black. The limits also keep the integers small.
        let [right_end, lower_end] = [source.width(), source.height()].map(|side| side as f64);
        let mut points = Self {
            left: [0; BLOCK],
            top: [0; BLOCK],
            right_share: [0.0; BLOCK],
            lower_share: [0.0; BLOCK],
        };
        for i in 0..BLOCK {
            let (source_x, source_y) = transform.invert(x as f64 + i as f64, y as f64);
            let (left, right_share) = floor_and_fraction(source_x.max(-2.0).min(right_end));
            let (top, lower_share) = floor_and_fraction(source_y.max(-2.0).min(lower_end));
            (points.left[i], points.right_share[i]) = (left, right_share);
            (points.top[i], points.lower_share[i]) = (top, lower_share);
        }
        points
    }

    /// Returns the four source pixels around each of the first `count` points.
    fn corners(&self, source: &RgbImage, count: usize) -> Corners {
        let mut corners = [[[0; BLOCK]; 3]; 4];
        for i in 0..count {
            let (left, top) = (self.left[i], self.top[i]);
            let [[upper_left, upper_right], [lower_left, lower_right]] =
                [pixel_pair(source, left, top), pixel_pair(source, left, top.wrapping_add(1))];
            for (corner, pixel) in
                corners.iter_mut().zip([upper_left, upper_right, lower_left, lower_right])
            {
                for (channel, value) in corner.iter_mut().zip(pixel) {
                    channel[i] = value;
                }
            }
        }
        corners
    }

    /// Computes the bilinear interpolation of the corners.
    fn interpolate(&self, corners: &Corners, pixels: &mut [[u8; 3]]) {
        let mut means = [[0; BLOCK]; 3];
        for channel in 0..3 {
            for i in 0..BLOCK {
                let (right, lower) = (self.right_share[i], self.lower_share[i]);
                let (left, upper) = (1.0 - right, 1.0 - lower);
                let corner = |number: usize| f32::from(corners[number][channel][i]);
                means[channel][i] = nearest_byte(
                    upper * left * corner(0)
                        + upper * right * corner(1)
                        + lower * left * corner(2)
                        + lower * right * corner(3),
                );
            }
        }
        for (i, pixel) in pixels.iter_mut().enumerate() {
            *pixel = [means[0][i], means[1][i], means[2][i]];
        }
    }
}

/// Returns two neighbouring pixels of a line; pixels outside the image are black.
#[inline]
fn pixel_pair(image: &RgbImage, x: i32, y: i32) -> [[u8; 3]; 2] {
    let pixels = image.pixels().as_chunks::<3>().0;
    let [(column, width), (line, height)] =
        [(x, image.width()), (y, image.height())].map(|(at, side)| (at as usize, side));
    // Negative coordinates became large unsigned numbers.
    if column < width - 1 && line < height {
        let at = line * width + column;
        return [pixels[at], pixels[at + 1]];
    }
    let pixel = |column: usize| match column < width && line < height {
        true => pixels[line * width + column],
        false => [0; 3],
    };
    [pixel(column), pixel(column.wrapping_add(1))]
}

/// Returns the largest integer not above `x`, and the remaining fraction.
///
/// Adding 3·2⁵¹ shifts the fraction out of the mantissa; the lowest bits are then the rounded
/// integer. `f64::floor` would be a library call, because this is compiled for processors without
/// SSE 4.1.
#[inline]
fn floor_and_fraction(x: f64) -> (i32, f32) {
    const SHIFT: f64 = (3_u64 << 51) as f64;
    let shifted = x + SHIFT;
    let nearest = shifted - SHIFT;
    let over = f64::from(u8::from(nearest > x));
    ((shifted.to_bits() as i32).wrapping_sub((nearest > x).into()), (x - (nearest - over)) as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grey(width: usize, values: &[u8]) -> RgbImage {
        let pixels = values.iter().flat_map(|&v| [v; 3]).collect();
        RgbImage::new(width, values.len() / width, pixels).unwrap()
    }

    fn reds(image: &RgbImage) -> Vec<u8> {
        image.pixels().iter().step_by(3).copied().collect()
    }

    #[test]
    fn the_identity_changes_nothing() {
        let image = RgbImage::new(2, 2, (1..=12).collect()).unwrap();
        let same = warp(&image, &SimilarityTransform::new(1.0, 0.0, 0.0, 0.0).unwrap(), 2, 2);
        assert_eq!(same.pixels(), image.pixels());
    }

    #[test]
    fn half_a_pixel_of_shift_takes_means_and_fades_into_black() {
        let image = grey(2, &[100, 200]);
        let shifted = warp(&image, &SimilarityTransform::new(1.0, 0.0, 0.5, 0.0).unwrap(), 3, 1);
        assert_eq!(reds(&shifted), [50, 150, 100]);
    }

    #[test]
    fn a_quarter_turn_moves_lines_to_columns() {
        // Clockwise by 90 degrees: (x, y) goes to (1 − y, x).
        let image = grey(2, &[1, 2, 3, 4]);
        let turned = warp(&image, &SimilarityTransform::new(0.0, 1.0, 1.0, 0.0).unwrap(), 2, 2);
        assert_eq!(reds(&turned), [3, 1, 4, 2]);
    }

    #[test]
    fn doubling_keeps_pixel_centres_on_integers() {
        let image = grey(3, &[0, 100, 200]);
        let doubled = warp(&image, &SimilarityTransform::new(2.0, 0.0, 0.0, 0.0).unwrap(), 5, 1);
        assert_eq!(reds(&doubled), [0, 50, 100, 150, 200]);
    }

    #[test]
    fn a_transform_that_cannot_be_inverted_cannot_be_built() {
        assert_eq!(SimilarityTransform::new(0.0, 0.0, 1.0, 1.0), None);
        assert_eq!(SimilarityTransform::new(f64::NAN, 1.0, 0.0, 0.0), None);
        assert_eq!(SimilarityTransform::new(1.0, 0.0, f64::INFINITY, 0.0), None);
    }

    #[test]
    fn a_point_is_split_at_the_whole_number_below() {
        for x in [-2.0, -1.5, -1.0, -0.5, -1e-20, 0.0, 0.5, 1.0, 1.5, 2.5, 4095.5, 8192.0] {
            for x in [f64::next_down(x), x, f64::next_up(x)] {
                assert_eq!(
                    floor_and_fraction(x),
                    (x.floor() as i32, (x - x.floor()) as f32),
                    "{x}"
                );
            }
        }
    }

    #[test]
    fn pixels_on_the_border_and_far_outside_are_as_documented() {
        for (width, height) in [(3, 2), (1, 1), (1, 4)] {
            let pixels = (0..width * height * 3).map(|i| i as u8 + 100).collect();
            let source = RgbImage::new(width, height, pixels).unwrap();
            for shift in [-1e300, -1e9, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 1e9, 1e300] {
                let transform = SimilarityTransform::new(1.0, 0.0, shift, 0.0).unwrap();
                let target = warp(&source, &transform, 5, 5);
                for (index, pixel) in target.pixels().as_chunks::<3>().0.iter().enumerate() {
                    let expected = reference_pixel(&source, &transform, index % 5, index / 5);
                    assert_eq!(*pixel, expected, "{width}×{height} by {shift}");
                }
            }
        }
    }

    /// Computes one pixel as [`warp`] documents it.
    fn reference_pixel(
        source: &RgbImage,
        transform: &SimilarityTransform,
        x: usize,
        y: usize,
    ) -> [u8; 3] {
        let (x, y) = transform.invert(x as f64, y as f64);
        let (left, top) = (x.floor(), y.floor());
        let (right, lower) = ((x - left) as f32, (y - top) as f32);
        let at = |x: f64, y: f64, channel: usize| {
            let is_inside = (0.0..source.width() as f64).contains(&x)
                && (0.0..source.height() as f64).contains(&y);
            let index = || (y as usize * source.width() + x as usize) * 3 + channel;
            if is_inside { f32::from(source.pixels()[index()]) } else { 0.0 }
        };
        [0, 1, 2].map(|channel| {
            let sum = (1.0 - lower) * (1.0 - right) * at(left, top, channel)
                + (1.0 - lower) * right * at(left + 1.0, top, channel)
                + lower * (1.0 - right) * at(left, top + 1.0, channel)
                + lower * right * at(left + 1.0, top + 1.0, channel);
            sum.round() as u8
        })
    }

    proptest! {
        #[test]
        fn blocks_of_pixels_are_sampled_as_single_ones_are(
            (a, b) in (-1.0..1.0_f64, 0.1..1.0_f64),
            (tx, ty) in (-20.0..20.0_f64, -20.0..20.0_f64),
            (width, height) in (1..40_usize, 1..9_usize),
            pixels in prop::collection::vec(any::<u8>(), 23 * 17 * 3),
        ) {
            let source = RgbImage::new(23, 17, pixels).unwrap();
            let transform = SimilarityTransform::new(a, b, tx, ty).unwrap();
            let target = warp(&source, &transform, width, height);
            for (index, pixel) in target.pixels().as_chunks::<3>().0.iter().enumerate() {
                let expected = reference_pixel(&source, &transform, index % width, index / width);
                prop_assert_eq!(*pixel, expected);
            }
        }

        #[test]
        fn inverting_undoes_applying(
            (a, b) in (-2.0..2.0_f64, 0.1..2.0_f64),
            (tx, ty) in (-500.0..500.0_f64, -500.0..500.0_f64),
            (x, y) in (-4096.0..4096.0_f64, -4096.0..4096.0_f64),
        ) {
            let transform = SimilarityTransform::new(a, b, tx, ty).unwrap();
            let (there_x, there_y) = transform.apply(x, y);
            let (back_x, back_y) = transform.invert(there_x, there_y);
            prop_assert!((back_x - x).abs() < 1e-6 && (back_y - y).abs() < 1e-6);
        }

        #[test]
        fn any_transform_gives_a_picture(
            (a, b, tx, ty) in any::<(f64, f64, f64, f64)>(),
        ) {
            if let Some(transform) = SimilarityTransform::new(a, b, tx, ty) {
                warp(&grey(2, &[1, 2, 3, 4]), &transform, 3, 3);
            }
        }
    }
}
