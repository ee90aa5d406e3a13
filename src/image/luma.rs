//! The luma plane of an image, and a hash that finds near-identical pictures.

use crate::image::RgbImage;
use crate::trust::Secret;

/// The luma plane of an image, 0..=255, `height × width` bytes, wiped on drop.
#[derive(Debug)]
pub struct LumaImage {
    width: usize,
    values: Secret<Vec<u8>>,
}

impl LumaImage {
    /// Computes the luma by ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`, rounded, as in JPEG and
    /// OpenCV.
    pub fn new(image: &RgbImage) -> Self {
        let luma = |&[r, g, b]: &[u8; 3]| {
            let sum = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500;
            u8::try_from(sum / 1000).expect("a weighted mean of bytes is a byte")
        };
        let values = image.pixels().as_chunks::<3>().0.iter().map(luma).collect();
        Self { width: image.width(), values: Secret::new(values) }
    }

    /// Returns the width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.values().len() / self.width
    }

    /// Returns the values, line by line.
    pub fn values(&self) -> &[u8] {
        self.values.expose()
    }

    /// Returns the mean of a block of at least one pixel.
    fn block_mean(&self, columns: std::ops::Range<usize>, lines: std::ops::Range<usize>) -> f64 {
        let count = columns.len() * lines.len();
        let sum: u64 = lines
            .flat_map(|y| &self.values()[y * self.width..][columns.clone()])
            .map(|&value| u64::from(value))
            .sum();
        sum as f64 / count as f64
    }
}

/// A 64-bit hash of a picture. Resizing and recompression change at most a few bits. Another
/// photograph of the same scene has another hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DifferenceHash(u64);

impl DifferenceHash {
    /// Computes the hash: the image is averaged to 9×8 blocks, and each bit is set if a block is
    /// darker than its right neighbour (dHash, N. Krawetz 2013).
    pub fn new(image: &LumaImage) -> Self {
        const COLUMNS: usize = 9;
        const LINES: usize = 8;
        let mut bits = 0;
        for line in 0..LINES {
            let lines = block_range(line, LINES, image.height());
            let means: [f64; COLUMNS] = std::array::from_fn(|column| {
                image.block_mean(block_range(column, COLUMNS, image.width()), lines.clone())
            });
            for pair in means.windows(2) {
                bits = bits << 1 | u64::from(pair[0] < pair[1]);
            }
        }
        Self(bits)
    }

    /// Returns the number of different bits, out of 64.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl std::fmt::Debug for DifferenceHash {
    /// Prints no bits, because they are derived from a face's picture.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DifferenceHash(redacted)")
    }
}

/// Returns the pixels of block `index` of `count` along an axis; at least one pixel.
fn block_range(index: usize, count: usize, length: usize) -> std::ops::Range<usize> {
    let start = index * length / count;
    start..((index + 1) * length / count).max(start + 1)
}
