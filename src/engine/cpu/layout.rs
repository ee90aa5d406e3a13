//! How an image lies in memory.

use super::lanes::LANES;

/// An image of one row of a batch, `[block][height + border][width + border][16 channels]`.
///
/// The border is real memory around every block, so that kernels need no test at the edges. Lanes
/// beyond the last channel hold numbers nobody reads, or multiplies with zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Top, left, bottom, right.
    pub(super) border: [usize; 4],
}

impl Layout {
    /// Blocks of sixteen channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Elements from one row to the next.
    pub(super) fn row(&self) -> usize {
        (self.border[1] + self.width + self.border[3]) * LANES
    }

    /// Rows of a block, border included.
    pub(super) fn rows(&self) -> usize {
        self.border[0] + self.height + self.border[2]
    }

    /// Elements from one block to the next.
    pub(super) fn block(&self) -> usize {
        self.rows() * self.row()
    }

    /// Elements of the image.
    pub(super) fn image(&self) -> usize {
        self.blocks() * self.block()
    }

    /// Where pixel `[y, x]` of the first block is; `y` and `x` count from the border's corner
    /// when `back` of each is subtracted, as a convolution with a border does.
    pub(super) fn pixel(&self, y: usize, x: usize, back: [usize; 2]) -> usize {
        let (y, x) = (y + self.border[0], x + self.border[1]);
        (y - back[0]) * self.row() + (x - back[1]) * LANES
    }
}
