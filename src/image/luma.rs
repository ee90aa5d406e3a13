//! Brightness alone: the grey plane of an image, and a hash of it for near-identical pictures.

use std::ops::Range;

use crate::image::RgbImage;
use crate::trust::Secret;

/// The luma plane of an image, 0..=255, `height × width` bytes, wiped on drop.
#[derive(Debug)]
pub struct LumaImage {
    width: usize,
    values: Secret<Vec<u8>>,
}

impl LumaImage {
    /// Luma by ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`, rounded, as in JPEG and OpenCV.
    pub fn new(image: &RgbImage) -> Self {
        let luma = |&[r, g, b]: &[u8; 3]| {
            let sum = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500;
            u8::try_from(sum / 1000).expect("a weighted mean of bytes is a byte")
        };
        let values = image.pixels().as_chunks::<3>().0.iter().map(luma).collect();
        Self { width: image.width(), values: Secret::new(values) }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.values().len() / self.width
    }

    /// The values, row by row.
    pub fn values(&self) -> &[u8] {
        self.values.expose()
    }
}

/// A 64-bit fingerprint of a whole picture that survives resizing and recompression, but not
/// another photograph of the same scene.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DifferenceHash(u64);

impl DifferenceHash {
    /// Of an image: it is averaged down to 9×8 blocks, and each bit says whether a block is
    /// darker than its right neighbour (dHash, N. Krawetz 2013).
    pub fn new(image: &RgbImage) -> Self {
        const COLUMNS: usize = 9;
        const ROWS: usize = 8;
        let mut bits = 0;
        for row in 0..ROWS {
            let rows = block(row, ROWS, image.height());
            let means: [f64; COLUMNS] = std::array::from_fn(|column| {
                mean_luma(image, block(column, COLUMNS, image.width()), rows.clone())
            });
            for pair in means.windows(2) {
                bits = bits << 1 | u64::from(pair[0] < pair[1]);
            }
        }
        Self(bits)
    }

    /// How many of the 64 bits differ.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl std::fmt::Debug for DifferenceHash {
    /// The bits are derived from a face's picture, so they are not printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DifferenceHash(redacted)")
    }
}

/// A thousand times the mean luma of a block of pixels that has at least one.
///
/// A weighted mean of sums is the mean of weighted sums, so only bytes are added, many at once:
/// every third sum is of the same channel.
fn mean_luma(image: &RgbImage, columns: Range<usize>, rows: Range<usize>) -> f64 {
    let count = columns.len() * rows.len();
    let mut sums = [0_u32; 48];
    for y in rows {
        let row = &image.pixels()[(y * image.width() + columns.start) * 3..][..columns.len() * 3];
        let (chunks, rest) = row.as_chunks::<48>();
        for chunk in chunks.iter().map(<[u8; 48]>::as_slice).chain([rest]) {
            for (sum, &value) in sums.iter_mut().zip(chunk) {
                // Pictures are far too small for it to overflow, and a check would keep it scalar.
                *sum = sum.wrapping_add(value.into());
            }
        }
    }
    let of = |channel| sums.iter().skip(channel).step_by(3).map(|&sum| u64::from(sum)).sum::<u64>();
    (299 * of(0) + 587 * of(1) + 114 * of(2)) as f64 / count as f64
}

/// The pixels of block `index` out of `count` along an axis; at least one pixel.
fn block(index: usize, count: usize, length: usize) -> Range<usize> {
    let start = index * length / count;
    start..((index + 1) * length / count).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_counts_every_pixel_of_its_block_and_no_other() {
        let (width, height) = (70, 5);
        let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
        let image = RgbImage::new(width, height, pixels.clone()).unwrap();
        for (columns, rows) in [(0..70, 0..5), (3..4, 2..3), (1..18, 1..4), (0..16, 0..1)] {
            let of = |y: usize| columns.clone().map(move |x| (y * width + x) * 3);
            let luma = |at: usize| {
                let [r, g, b] = [0, 1, 2].map(|channel| f64::from(pixels[at + channel]));
                299.0 * r + 587.0 * g + 114.0 * b
            };
            let sum: f64 = rows.clone().flat_map(of).map(luma).sum();
            let expected = sum / (columns.len() * rows.len()) as f64;
            assert_eq!(mean_luma(&image, columns.clone(), rows.clone()), expected);
        }
    }

    #[test]
    fn a_hash_tells_which_way_a_picture_grows_brighter() {
        let picture = |luma: fn(usize) -> usize| {
            let pixels = (0..90 * 80).flat_map(|i| [luma(i % 90) as u8; 3]).collect();
            DifferenceHash::new(&RgbImage::new(90, 80, pixels).unwrap())
        };
        let (brighter, darker, flat) = (picture(|x| x), picture(|x| 90 - x), picture(|_| 7));
        assert_eq!(brighter.distance(darker), 64);
        assert_eq!(darker.distance(flat), 0);
    }
}
