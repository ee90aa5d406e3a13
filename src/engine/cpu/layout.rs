//! The layout of an image in memory.

use super::lanes::LANES;

/// The layout of an image of one item, `[block][top + height + bottom][left + width + right][16
/// channels]`.
///
/// The border is real memory around every block, so the taps of a convolution need no test at the
/// edges; pools clamp their windows instead. Lanes beyond the last channel hold numbers that are
/// never read, or are multiplied by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ImageLayout {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Top, left, bottom, right.
    pub(super) border: [usize; 4],
    /// Rows of a block that are in memory at a time. All rows, unless the image is in a band chain.
    pub(super) stored_rows: usize,
}

impl ImageLayout {
    /// Returns the layout of an image with every row in memory.
    pub(super) fn whole([channels, height, width]: [usize; 3], border: [usize; 4]) -> Self {
        Self { channels, height, width, border, stored_rows: border[0] + height + border[2] }
    }

    /// Number of blocks of sixteen channels.
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Elements from one row to the next.
    #[inline]
    pub(super) fn row_stride(&self) -> usize {
        (self.border[1] + self.width + self.border[3]) * LANES
    }

    /// Rows of a block, including the border.
    #[inline]
    pub(super) fn bordered_height(&self) -> usize {
        self.border[0] + self.height + self.border[2]
    }

    /// Elements from one block to the next.
    #[inline]
    pub(super) fn block_stride(&self) -> usize {
        self.stored_rows * self.row_stride()
    }

    /// Elements of the image in memory, for one item.
    pub(super) fn elements(&self) -> usize {
        self.blocks() * self.block_stride()
    }

    /// Offset of pixel `[y - pads[0], x - pads[1]]` in the first block, in elements. A convolution
    /// with these pads reads the first tap of output `[y, x]` there, if its stride is 1.
    #[inline]
    pub(super) fn pixel_offset(&self, y: usize, x: usize, pads: [usize; 2]) -> usize {
        let (y, x) = (y + self.border[0], x + self.border[1]);
        (y - pads[0]) * self.row_stride() + (x - pads[1]) * LANES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pixel_of_image_and_border_has_an_offset_of_its_own() {
        for (channels, border) in [(1, [0; 4]), (16, [1, 2, 0, 3]), (33, [2, 0, 1, 0])] {
            let layout = ImageLayout::whole([channels, 5, 3], border);
            let [top, left, bottom, right] = border;
            let offsets: BTreeSet<usize> = (0..layout.blocks())
                .flat_map(|block| (0..top + 5 + bottom).map(move |y| (block, y)))
                .flat_map(|(block, y)| (0..left + 3 + right).map(move |x| (block, y, x)))
                .map(|(block, y, x)| {
                    block * layout.block_stride() + layout.pixel_offset(y, x, [top, left])
                })
                .collect();
            assert!(offsets.into_iter().eq((0..layout.elements()).step_by(LANES)));
            assert_eq!(layout.blocks(), channels.div_ceil(16));
        }
    }

    #[test]
    fn a_smaller_border_begins_inside_a_larger_one() {
        let layout = ImageLayout::whole([1, 4, 4], [3, 2, 3, 2]);
        assert_eq!(layout.pixel_offset(0, 0, [3, 2]), 0);
        assert_eq!(layout.pixel_offset(0, 0, [1, 1]), 2 * layout.row_stride() + LANES);
        assert_eq!(layout.pixel_offset(2, 1, [0, 0]), 5 * layout.row_stride() + 3 * LANES);
    }
}
