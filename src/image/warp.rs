//! Similarity transforms and sampling through them.

use crate::image::RgbImage;

/// A rotation, uniform scale and shift from source to target pixels, without reflection:
/// `x' = a·x − b·y + tx`, `y' = b·x + a·y + ty`. It can always be inverted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

/// A smaller scale would squeeze an image of 4096 pixels into a hundredth of one.
const SCALE_MIN: f64 = 1e-6;

impl Similarity {
    /// Builds the transform; `None` when a number is not finite or the scale `hypot(a, b)` is
    /// below 1e-6 or above 1e6.
    pub fn new(a: f64, b: f64, tx: f64, ty: f64) -> Option<Self> {
        let scale = a.hypot(b);
        let is_sane = (SCALE_MIN..=1.0 / SCALE_MIN).contains(&scale);
        (is_sane && tx.is_finite() && ty.is_finite()).then_some(Self { a, b, tx, ty })
    }

    /// How many target pixels one source pixel becomes.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// Angle by which the source is turned, in degrees, clockwise as seen (y points down).
    pub fn rotation(&self) -> f64 {
        self.b.atan2(self.a).to_degrees()
    }

    /// Where a source pixel goes.
    pub fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        (self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty)
    }

    /// Where a target pixel comes from.
    pub fn invert(&self, x: f64, y: f64) -> (f64, f64) {
        let square = self.a * self.a + self.b * self.b;
        let (x, y) = (x - self.tx, y - self.ty);
        ((self.a * x + self.b * y) / square, (self.a * y - self.b * x) / square)
    }
}

/// Samples `width × height` pixels of `source` through `transform` (source to target), bilinear.
///
/// Integer coordinates are pixel centres and everything outside the source is black, as in
/// OpenCV's `warpAffine` with a constant border. There is no low-pass filter: InsightFace and
/// OpenCV align faces without one, and embeddings were calibrated so.
pub fn warp(source: &RgbImage, transform: &Similarity, width: usize, height: usize) -> RgbImage {
    let mut target = RgbImage::black(width, height);
    for (y, row) in target.pixels_mut().chunks_exact_mut(width * 3).enumerate() {
        for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (source_x, source_y) = transform.invert(x as f64, y as f64);
            *pixel = sample(source, source_x, source_y);
        }
    }
    target
}

/// The bilinear mean of the four pixels around a point; pixels outside are black.
fn sample(source: &RgbImage, x: f64, y: f64) -> [u8; 3] {
    let is_near = x > -1.0 && y > -1.0 && x < source.width() as f64 && y < source.height() as f64;
    if !is_near {
        return [0; 3];
    }
    let (left, top) = (x.floor(), y.floor());
    let (right_share, lower_share) = ((x - left) as f32, (y - top) as f32);
    let mut sums = [0.0_f32; 3];
    for (dy, row_share) in [(0, 1.0 - lower_share), (1, lower_share)] {
        for (dx, column_share) in [(0, 1.0 - right_share), (1, right_share)] {
            if let Some(pixel) = pixel_at(source, left as isize + dx, top as isize + dy) {
                let share = row_share * column_share;
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += share * f32::from(value);
                }
            }
        }
    }
    sums.map(|sum| sum.round() as u8)
}

fn pixel_at(image: &RgbImage, x: isize, y: isize) -> Option<&[u8; 3]> {
    let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
    let is_inside = x < image.width() && y < image.height();
    if is_inside { image.pixels().as_chunks::<3>().0.get(y * image.width() + x) } else { None }
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
        let same = warp(&image, &Similarity::new(1.0, 0.0, 0.0, 0.0).unwrap(), 2, 2);
        assert_eq!(same.pixels(), image.pixels());
    }

    #[test]
    fn half_a_pixel_of_shift_takes_means_and_fades_into_black() {
        let image = grey(2, &[100, 200]);
        let shifted = warp(&image, &Similarity::new(1.0, 0.0, 0.5, 0.0).unwrap(), 3, 1);
        assert_eq!(reds(&shifted), [50, 150, 100]);
    }

    #[test]
    fn a_quarter_turn_moves_rows_to_columns() {
        // Clockwise by 90 degrees: (x, y) goes to (1 − y, x).
        let image = grey(2, &[1, 2, 3, 4]);
        let turned = warp(&image, &Similarity::new(0.0, 1.0, 1.0, 0.0).unwrap(), 2, 2);
        assert_eq!(reds(&turned), [3, 1, 4, 2]);
    }

    #[test]
    fn doubling_keeps_pixel_centres_on_integers() {
        let image = grey(3, &[0, 100, 200]);
        let doubled = warp(&image, &Similarity::new(2.0, 0.0, 0.0, 0.0).unwrap(), 5, 1);
        assert_eq!(reds(&doubled), [0, 50, 100, 150, 200]);
    }

    #[test]
    fn a_transform_that_cannot_be_inverted_cannot_be_built() {
        assert_eq!(Similarity::new(0.0, 0.0, 1.0, 1.0), None);
        assert_eq!(Similarity::new(f64::NAN, 1.0, 0.0, 0.0), None);
        assert_eq!(Similarity::new(1.0, 0.0, f64::INFINITY, 0.0), None);
    }

    proptest! {
        #[test]
        fn inverting_undoes_applying(
            (a, b) in (-2.0..2.0_f64, 0.1..2.0_f64),
            (tx, ty) in (-500.0..500.0_f64, -500.0..500.0_f64),
            (x, y) in (-4096.0..4096.0_f64, -4096.0..4096.0_f64),
        ) {
            let transform = Similarity::new(a, b, tx, ty).unwrap();
            let (there_x, there_y) = transform.apply(x, y);
            let (back_x, back_y) = transform.invert(there_x, there_y);
            prop_assert!((back_x - x).abs() < 1e-6 && (back_y - y).abs() < 1e-6);
        }

        #[test]
        fn any_transform_gives_a_picture(
            (a, b, tx, ty) in any::<(f64, f64, f64, f64)>(),
        ) {
            if let Some(transform) = Similarity::new(a, b, tx, ty) {
                warp(&grey(2, &[1, 2, 3, 4]), &transform, 3, 3);
            }
        }
    }
}
