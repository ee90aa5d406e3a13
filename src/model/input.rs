//! The input of a network: size, layout, colour order, range and crop.

use serde::Deserialize;

use super::ModelError;
use super::values::parse_tensor_name;
use crate::face::Alignment;
use crate::image::RgbImage;

/// Largest width or height of an input in pixels. Detectors use at most 1,280.
const SIDE_MAX: usize = 2048;

/// Order of the axes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[3, height, width]`.
    Nchw,
    /// `[height, width, 3]`.
    Nhwc,
}

/// Order of the channels. With the wrong order a liveness network lets attacks pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The part of a photograph that a network receives.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CropRule {
    /// The whole photograph, scaled to fit, at the top left of a black canvas. A row holds the
    /// scaled picture alone; [`InputContract::fill`] adds the rest of the canvas.
    // The braces matter: serde accepts unknown keys beside the tag of a unit variant.
    Letterbox {},
    /// The face, after the similarity transform that maps its points to a template.
    Align {
        /// The target positions of the points.
        template: Alignment,
    },
    /// The box of the face, enlarged `scale` times and moved to lie inside the photograph.
    Box {
        /// Side relative to the box of the face.
        scale: f64,
    },
    /// A square of `scale` times the longer side of the box of the face, rotated until the eyes
    /// are level.
    EyesLevelSquare {
        /// Side relative to the longer side of the box of the face.
        scale: f64,
    },
    /// A square of `scale` times the width of the eye, rotated to be level. The second eye is
    /// mirrored.
    Eye {
        /// Side relative to the width of the eye.
        scale: f64,
    },
}

/// `[input]` as written in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInput {
    tensor: String,
    width: usize,
    height: usize,
    side_multiple: Option<usize>,
    layout: Layout,
    colour: ColourOrder,
    mean: [f32; 3],
    scale: [f32; 3],
    crop: CropRule,
}

/// The input of a network. A pixel value `x` in 0..255 becomes `(x − mean) × scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct InputContract {
    /// Name of the input in the ONNX file.
    pub tensor: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Set if the network also takes other square inputs: their sides are multiples of this.
    pub(super) side_multiple: Option<usize>,
    /// Order of the axes.
    pub layout: Layout,
    /// Order of the channels.
    pub colour: ColourOrder,
    /// Subtracted first. One value for each channel, in the order of `colour`.
    pub mean: [f32; 3],
    /// Multiplied last. One value for each channel, in the order of `colour`.
    pub scale: [f32; 3],
    /// How the input is cut out of the photograph.
    pub crop: CropRule,
}

/// [`InputContract::fill`] received an image or a row of the wrong size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The image does not have the sides of the contract.
    #[error("the image has {0}×{1} pixels, the network takes {2}×{3}")]
    Image(usize, usize, usize, usize),
    /// The row does not have the length of the contract.
    #[error("the row has {0} values, the network takes {1}")]
    Row(usize, usize),
}

impl InputContract {
    pub(super) fn parse(raw: RawInput) -> Result<Self, ModelError> {
        for (key, side) in [("input.width", raw.width), ("input.height", raw.height)] {
            if !(1..=SIDE_MAX).contains(&side) {
                return Err(ModelError::value(key, format!("must lie in 1..={SIDE_MAX}")));
            }
        }
        if !raw.mean.iter().all(|m| m.is_finite()) {
            return Err(ModelError::value("input.mean", "must be finite"));
        }
        if !raw.scale.iter().all(|s| s.is_normal()) {
            return Err(ModelError::value("input.scale", "must be finite and not 0"));
        }
        check_crop(&raw.crop, raw.width, raw.height)?;
        let contract = Self {
            tensor: parse_tensor_name("input.tensor", raw.tensor)?,
            width: raw.width,
            height: raw.height,
            side_multiple: raw.side_multiple,
            layout: raw.layout,
            colour: raw.colour,
            mean: raw.mean,
            scale: raw.scale,
            crop: raw.crop,
        };
        if contract.side_multiple.is_some() && !contract.allows_side(contract.width) {
            let rule = "needs a square input whose side is a multiple of it";
            return Err(ModelError::value("input.side_multiple", rule));
        }
        Ok(contract)
    }

    /// Returns the shape of one row: `[3, height, width]` or `[height, width, 3]`.
    pub fn row_shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Nchw => vec![3, self.height, self.width],
            Layout::Nhwc => vec![self.height, self.width, 3],
        }
    }

    /// Returns the number of values in one row.
    pub fn row_len(&self) -> usize {
        3 * self.height * self.width
    }

    /// Returns the contract for a square of `side` pixels.
    ///
    /// # Errors
    /// [`ModelError::Value`] if the network does not take that side.
    pub fn with_side(&self, side: usize) -> Result<Self, ModelError> {
        if (self.width, self.height) != (side, side) && !self.allows_side(side) {
            let rule = format!("of this network does not allow {side}");
            return Err(ModelError::value("input.side_multiple", rule));
        }
        Ok(Self { width: side, height: side, ..self.clone() })
    }

    /// Writes `image` into `row` in the layout, colour order and range of the network. The rest of
    /// the canvas of a letterboxed image becomes black.
    ///
    /// # Errors
    /// [`FillError`] if [`Self::check`] refuses `image`, or `row` is not [`Self::row_len`] long.
    pub fn fill(&self, image: &RgbImage, row: &mut [f32]) -> Result<(), FillError> {
        self.check(image)?;
        if row.len() != self.row_len() {
            return Err(FillError::Row(row.len(), self.row_len()));
        }
        match self.layout {
            Layout::Nchw => self.fill_planes(image, row),
            Layout::Nhwc => self.fill_pixels(image, row),
        }
        Ok(())
    }

    /// Checks the size of `image`.
    ///
    /// # Errors
    /// [`FillError`] if `image` is not `width × height`. A letterboxed image may be smaller on one
    /// side, but not on both.
    pub fn check(&self, image: &RgbImage) -> Result<(), FillError> {
        let (width, height) = (image.width(), image.height());
        let fits = match self.crop {
            CropRule::Letterbox {} => {
                let reaches = width == self.width || height == self.height;
                reaches && width <= self.width && height <= self.height
            }
            _ => (width, height) == (self.width, self.height),
        };
        match fits {
            true => Ok(()),
            false => Err(FillError::Image(width, height, self.width, self.height)),
        }
    }

    fn fill_planes(&self, image: &RgbImage, row: &mut [f32]) {
        let planes = row.chunks_exact_mut(self.width * self.height);
        for ((plane, source), (mean, scale)) in planes.zip(self.sources()).zip(self.ranges()) {
            let normalise = |value: u8| (f32::from(value) - mean) * scale;
            let (image_part, below) = plane.split_at_mut(image.height() * self.width);
            for (line, pixels) in image_part.chunks_exact_mut(self.width).zip(lines(image)) {
                let (image_part, beside) = line.split_at_mut(image.width());
                for (value, pixel) in image_part.iter_mut().zip(pixels) {
                    *value = normalise(pixel[source]);
                }
                beside.fill(normalise(0));
            }
            below.fill(normalise(0));
        }
    }

    fn fill_pixels(&self, image: &RgbImage, row: &mut [f32]) {
        let sources = self.sources();
        let (mean, scale) = (self.mean, self.scale);
        let normalise = |k: usize, value: u8| (f32::from(value) - mean[k]) * scale[k];
        let black = [normalise(0, 0), normalise(1, 0), normalise(2, 0)];
        let (image_part, below) =
            row.as_chunks_mut::<3>().0.split_at_mut(image.height() * self.width);
        for (line, pixels) in image_part.chunks_exact_mut(self.width).zip(lines(image)) {
            let (image_part, beside) = line.split_at_mut(image.width());
            for (values, pixel) in image_part.iter_mut().zip(pixels) {
                for k in 0..3 {
                    values[k] = normalise(k, pixel[sources[k]]);
                }
            }
            beside.fill(black);
        }
        below.fill(black);
    }

    /// Returns, for each channel of the network, the index of the channel in an RGB pixel.
    fn sources(&self) -> [usize; 3] {
        match self.colour {
            ColourOrder::Rgb => [0, 1, 2],
            ColourOrder::Bgr => [2, 1, 0],
        }
    }

    /// Returns, for each channel of the network, its mean and its scale.
    fn ranges(&self) -> impl Iterator<Item = (f32, f32)> {
        self.mean.into_iter().zip(self.scale)
    }

    fn allows_side(&self, side: usize) -> bool {
        let is_multiple = |multiple| side.checked_rem(multiple) == Some(0);
        self.width == self.height
            && (1..=SIDE_MAX).contains(&side)
            && self.side_multiple.is_some_and(is_multiple)
    }
}

fn check_crop(crop: &CropRule, width: usize, height: usize) -> Result<(), ModelError> {
    match *crop {
        CropRule::Letterbox {} => Ok(()),
        CropRule::Align { template: Alignment::Arcface112 } if (width, height) != (112, 112) => {
            Err(ModelError::value("input.crop.template", "needs an input of 112×112"))
        }
        CropRule::Align { .. } => Ok(()),
        CropRule::EyesLevelSquare { .. } | CropRule::Eye { .. } if width != height => {
            Err(ModelError::value("input.crop.rule", "needs a square input"))
        }
        CropRule::Box { scale } | CropRule::EyesLevelSquare { scale } | CropRule::Eye { scale } => {
            if !(1.0..=10.0).contains(&scale) {
                return Err(ModelError::value("input.crop.scale", "must lie in 1..=10"));
            }
            Ok(())
        }
    }
}

/// Returns the lines of pixels of an image.
fn lines(image: &RgbImage) -> impl Iterator<Item = &[[u8; 3]]> {
    image.pixels().as_chunks().0.chunks_exact(image.width())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contract(layout: Layout, colour: ColourOrder) -> InputContract {
        InputContract {
            tensor: "x".to_owned(),
            width: 2,
            height: 1,
            side_multiple: None,
            layout,
            colour,
            mean: [1.0, 2.0, 3.0],
            scale: [1.0, 10.0, 100.0],
            crop: CropRule::Letterbox {},
        }
    }

    #[test]
    fn a_row_has_the_networks_layout_order_and_range() {
        let image = RgbImage::new(2, 1, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let cases = [
            (Layout::Nchw, ColourOrder::Rgb, [9.0, 39.0, 180.0, 480.0, 2700.0, 5700.0]),
            (Layout::Nchw, ColourOrder::Bgr, [29.0, 59.0, 180.0, 480.0, 700.0, 3700.0]),
            (Layout::Nhwc, ColourOrder::Rgb, [9.0, 180.0, 2700.0, 39.0, 480.0, 5700.0]),
            (Layout::Nhwc, ColourOrder::Bgr, [29.0, 180.0, 700.0, 59.0, 480.0, 3700.0]),
        ];
        for (layout, colour, expected) in cases {
            let mut row = [f32::NAN; 6];
            contract(layout, colour).fill(&image, &mut row).unwrap();
            assert_eq!(row, expected, "{layout:?} {colour:?}");
        }
    }

    #[test]
    fn a_letterboxed_image_lies_in_the_upper_left_of_black() {
        let image = RgbImage::new(2, 1, vec![10, 20, 30, 40, 50, 60]).unwrap();
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let canvas =
                InputContract { width: 2, height: 3, ..contract(layout, ColourOrder::Bgr) };
            let mut padded = RgbImage::black(2, 3);
            padded.pixels_mut()[..6].copy_from_slice(image.pixels());
            let [mut row, mut expected] = [[f32::NAN; 18]; 2];
            canvas.fill(&image, &mut row).unwrap();
            canvas.fill(&padded, &mut expected).unwrap();
            assert_eq!(row, expected, "{layout:?}");
            assert!(canvas.fill(&RgbImage::black(1, 2), &mut row).is_err(), "reaches no side");
            assert!(canvas.fill(&RgbImage::black(3, 3), &mut row).is_err(), "sticks out");
            let exact = InputContract { crop: CropRule::Box { scale: 2.0 }, ..canvas };
            assert!(exact.fill(&image, &mut row).is_err());
        }
    }

    #[test]
    fn an_image_or_row_of_another_size_is_refused_with_both_sizes() {
        let contract = contract(Layout::Nchw, ColourOrder::Rgb);
        let tall = contract.fill(&RgbImage::black(1, 2), &mut [0.0; 6]).unwrap_err();
        assert_eq!(tall.to_string(), "the image has 1×2 pixels, the network takes 2×1");
        let short = contract.fill(&RgbImage::black(2, 1), &mut [0.0; 5]).unwrap_err();
        assert_eq!(short.to_string(), "the row has 5 values, the network takes 6");
    }

    #[test]
    fn only_allowed_squares_can_be_asked_for() {
        let fixed = InputContract { height: 2, ..contract(Layout::Nchw, ColourOrder::Rgb) };
        assert!(fixed.with_side(2).is_ok());
        assert!(fixed.with_side(4).is_err());
        let free = InputContract { side_multiple: Some(2), ..fixed };
        assert_eq!(free.with_side(64).unwrap().row_shape(), [3, 64, 64]);
        for side in [0, 3, SIDE_MAX + 2] {
            assert!(free.with_side(side).is_err(), "{side}");
        }
    }

    proptest! {
        #[test]
        fn every_value_of_a_row_is_written(pixels in prop::collection::vec(any::<u8>(), 6)) {
            let image = RgbImage::new(2, 1, pixels).unwrap();
            for layout in [Layout::Nchw, Layout::Nhwc] {
                let mut row = [f32::NAN; 6];
                contract(layout, ColourOrder::Bgr).fill(&image, &mut row).unwrap();
                prop_assert!(row.iter().all(|value| value.is_finite()));
            }
        }
    }
}
