//! Pixels of the puppet: RGB, sampled bilinearly, written as JPEG.

use jpeg_encoder::{ColorType, Encoder};

/// 8-bit RGB, interleaved. Integer coordinates are the centres of pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// Wraps `pixels` (RGB, interleaved, line by line).
    ///
    /// # Panics
    /// If the length is not `width × height × 3`.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), width * height * 3, "a picture has three bytes a pixel");
        Self { width, height, pixels }
    }

    /// Creates a picture of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// Returns the colour between pixels; beyond the border, the colour of the border.
    pub(crate) fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let right = (left + 1).min(self.width - 1);
        let bottom = (top + 1).min(self.height - 1);
        let (fraction_x, fraction_y) = (x - left as f32, y - top as f32);
        let (above, below) = (top * self.width, bottom * self.width);
        let corners = [above + left, above + right, below + left, below + right].map(|at| at * 3);
        let mut colour = [0.0; 3];
        for (channel, mixed) in colour.iter_mut().enumerate() {
            let value = |corner: usize| f32::from(self.pixels[corners[corner] + channel]);
            let upper = value(0) + (value(1) - value(0)) * fraction_x;
            let lower = value(2) + (value(3) - value(2)) * fraction_x;
            *mixed = upper + (lower - upper) * fraction_y;
        }
        colour
    }

    /// Returns the colour of the pixel in column `x` and line `y`.
    pub fn get(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Sets the colour of a pixel, in levels of 255; other values become the nearest level.
    pub fn put(&mut self, x: usize, y: usize, colour: [f32; 3]) {
        let at = (y * self.width + x) * 3;
        // The cast saturates, so a colour out of range becomes the nearest valid one.
        for (pixel, value) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            *pixel = (value + 0.5) as u8;
        }
    }

    /// Returns the picture at half the size. Each pixel is the mean of four, which prevents
    /// aliasing.
    pub(crate) fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height / 2);
        let mut half = Self::filled(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                // The corner that four pixels share.
                let mean = self.sample(2.0 * x as f32 + 0.5, 2.0 * y as f32 + 0.5);
                half.put(x, y, mean);
            }
        }
        half
    }

    /// Returns the picture with left and right exchanged.
    pub(crate) fn mirrored(&self) -> Self {
        let rows = self.pixels.chunks_exact(self.width * 3);
        let pixels = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        Self { pixels, ..*self }
    }

    /// Returns a baseline JPEG. A session keeps one quality and so one set of quantisation tables.
    pub(crate) fn jpeg(&self, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let [width, height] = [self.width, self.height]
            .map(|side| u16::try_from(side).expect("a frame has sides of at most 65,535 pixels"));
        Encoder::new(&mut bytes, quality)
            .encode(&self.pixels, width, height, ColorType::Rgb)
            .expect("a frame has all its pixels, at least one, and a vector takes all bytes");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_read_between_its_pixels_and_beyond_its_border() {
        let picture = Picture::new(2, 1, vec![0, 10, 20, 100, 110, 120]);
        assert_eq!(picture.sample(0.5, 0.0), [50.0, 60.0, 70.0]);
        assert_eq!(picture.sample(-3.0, 7.0), [0.0, 10.0, 20.0]);
        assert_eq!(picture.mirrored().get(0, 0), [100, 110, 120]);
    }
}
