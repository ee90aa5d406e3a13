//! Resizing: onto the detector's square canvas, and of the crops for the PAD networks.

use fast_image_resize as fir;
use fast_image_resize::pixels::U8x3;

use crate::image::RgbImage;
use crate::image::rgb::nearest_byte;
use crate::trust::Secret;

/// An image scaled so that its longer side fills a square canvas. The image lies in the upper left
/// corner; the rest of the canvas is black and not stored.
#[derive(Debug)]
pub struct Letterbox {
    /// The scaled image.
    pub image: RgbImage,
    /// Canvas pixels per source pixel. A source point is the canvas point divided by this scale.
    pub scale: f32,
}

/// Scales `source` to a canvas of `side × side` pixels (at least 1) and keeps the aspect ratio.
///
/// Shrinking averages over all source pixels (triangle filter widened by the scale); enlarging is
/// bilinear. The shorter side is rounded to whole pixels, so along it `scale` is off by at most
/// half a canvas pixel.
pub fn letterbox(source: &RgbImage, side: usize) -> Letterbox {
    let (width, height) = (source.width(), source.height());
    let scale = side as f64 / width.max(height) as f64;
    let scaled = |length: usize| ((length as f64 * scale).round() as usize).clamp(1, side);
    let mut image = RgbImage::black(scaled(width), scaled(height));
    resize(source, &mut image);
    Letterbox { image, scale: scale as f32 }
}

/// Resizes all of `source` into all of `target`.
fn resize(source: &RgbImage, target: &mut RgbImage) {
    let to_u32 = |side: usize| u32::try_from(side).expect("sides of images fit into 32 bits");
    let [width, height] = [source.width(), source.height()].map(to_u32);
    let source = fir::images::TypedImageRef::<U8x3>::from_buffer(width, height, source.pixels())
        .expect("an image holds width × height × 3 bytes");
    let [width, height] = [target.width(), target.height()].map(to_u32);
    let mut target =
        fir::images::TypedImage::<U8x3>::from_buffer(width, height, target.pixels_mut())
            .expect("an image holds width × height × 3 bytes");
    let triangle = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
    // `Resizer::resize` would compile all 20 pixel types; `resize_typed` compiles one.
    fir::Resizer::new()
        .resize_typed(&source, &mut target, &fir::ResizeOptions::new().resize_alg(triangle))
        .expect("both images have pixels");
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelRect {
    /// Left column.
    pub x: usize,
    /// Top line.
    pub y: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of lines.
    pub height: usize,
}

impl PixelRect {
    /// Returns the part of the rectangle inside `image`, or `None` if there is none.
    fn clip(self, image: &RgbImage) -> Option<Self> {
        let width = self.width.min(image.width().checked_sub(self.x)?);
        let height = self.height.min(image.height().checked_sub(self.y)?);
        (width > 0 && height > 0).then_some(Self { width, height, ..self })
    }
}

/// Cuts `crop` out of `source` and resizes it bilinearly to `width × height` pixels (both at least
/// 1). Returns `None` if the crop lies outside the image. A crop that extends beyond the image is
/// cut.
///
/// Pixel centres are at half coordinates, borders repeat, and shrinking does not average. This
/// equals OpenCV's `resize` with `INTER_LINEAR`, with which the PAD networks were trained.
pub fn crop_resize(
    source: &RgbImage,
    crop: PixelRect,
    width: usize,
    height: usize,
) -> Option<RgbImage> {
    let crop = crop.clip(source)?;
    let columns = taps(crop.x, crop.width, width);
    let lines = taps(crop.y, crop.height, height);
    let source_line = |y: usize| {
        let pixels = source.pixels().as_chunks::<3>().0;
        &pixels[y * source.width()..][..source.width()]
    };
    let [mut upper, mut lower] = [(); 2].map(|()| Secret::new(vec![0.0; width * 3]));
    let mut target = RgbImage::black(width, height);
    for (line, target_line) in lines.iter().zip(target.pixels_mut().chunks_exact_mut(width * 3)) {
        interpolate_columns(source_line(line.first), &columns, upper.expose_mut());
        interpolate_columns(source_line(line.second), &columns, lower.expose_mut());
        let between = upper.expose().iter().zip(lower.expose());
        for (value, (&upper, &lower)) in target_line.iter_mut().zip(between) {
            *value = nearest_byte(upper + (lower - upper) * line.second_share);
        }
    }
    Some(target)
}

/// Interpolates a line of pixels at `columns`.
fn interpolate_columns(line: &[[u8; 3]], columns: &[Taps], interpolated: &mut [f32]) {
    for (column, interpolated) in columns.iter().zip(interpolated.as_chunks_mut::<3>().0) {
        let (first, second) = (line[column.first], line[column.second]);
        for (channel, value) in interpolated.iter_mut().enumerate() {
            *value = column.interpolate(first[channel], second[channel]);
        }
    }
}

/// The two source pixels next to a target pixel along one axis, and the share of the second.
struct Taps {
    first: usize,
    second: usize,
    second_share: f32,
}

impl Taps {
    fn interpolate(&self, first: u8, second: u8) -> f32 {
        let (first, second) = (f32::from(first), f32::from(second));
        first + (second - first) * self.second_share
    }
}

/// Returns the taps of each target pixel along an axis. The source pixels start at `start`.
fn taps(start: usize, source_length: usize, target_length: usize) -> Vec<Taps> {
    let step = source_length as f64 / target_length as f64;
    let last = source_length - 1;
    (0..target_length)
        .map(|i| {
            let at = ((i as f64 + 0.5) * step - 0.5).clamp(0.0, last as f64);
            let first = at as usize;
            Taps {
                first: start + first,
                second: start + (first + 1).min(last),
                second_share: (at - first as f64) as f32,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_fills_the_canvas_and_the_shorter_one_is_rounded() {
        for ([width, height], expected) in [
            ([300, 200], [64, 43]),
            ([20, 40], [32, 64]),
            ([1, 900], [1, 64]),
            ([64, 64], [64, 64]),
        ] {
            let boxed = letterbox(&RgbImage::black(width, height), 64);
            assert_eq!([boxed.image.width(), boxed.image.height()], expected);
            assert_eq!(boxed.scale, 64.0 / width.max(height) as f32);
        }
    }

    #[test]
    fn an_image_of_the_canvas_size_stays_as_it_is() {
        let image = RgbImage::new(2, 2, (1..=12).collect()).unwrap();
        assert_eq!(letterbox(&image, 2).image.pixels(), image.pixels());
    }

    #[test]
    fn shrinking_counts_every_pixel() {
        let pixels = [0, 90, 30, 240].iter().flat_map(|&value| [value; 3]).collect();
        let boxed = letterbox(&RgbImage::new(2, 2, pixels).unwrap(), 1);
        assert_eq!(boxed.image.pixels(), [90; 3]);
    }
}
