//! Strips: the pixels of several rows in one line, for kernels that compute sixteen pixels at once.
//!
//! In memory, a row is followed by its border and by the next row. A window that moves by one pixel
//! at a time passes over the border and reaches the start of the next row. So some rows of an image
//! form one strip, and a tile need not end where a row ends. Sums over the border are not stored.
//! In images 14 wide with a border of one, two of sixteen positions are wasted; tiles that end with
//! their rows waste as many. In images 7 wide, two of nine positions are wasted, where tiles that
//! end with their rows waste nine of sixteen. With stride 2, every other row would be computed for
//! nothing, so there each row is a line of its own.
//!
//! All pieces of a line have the same height, because changing the height is expensive. The last
//! piece starts early enough to end with the line, and positions that it shares with the piece
//! before are stored once. The sum of a position is the same in every piece, so results do not
//! depend on how a strip is divided.

#![cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AMX works by strips"))]

use std::ops::Range;

use super::Epilogue;
use super::tile::{StridedPtr, Taps};
use crate::cpu::lanes::LANES;

/// The memory of one run. `input` points to the first tap of the first pixel; all taps of all
/// positions lie in one buffer. `weights` hold the packed group, in whole blocks. `bias` points to
/// one number for each channel of the group. `output` and `residual` point to the first pixel.
pub(in crate::cpu) struct StripArgs {
    pub(in crate::cpu) taps: Taps,
    pub(in crate::cpu) strip: Strip,
    pub(in crate::cpu) input: *const u8,
    pub(in crate::cpu) weights: *const u8,
    pub(in crate::cpu) bias: *const f32,
    pub(in crate::cpu) residual: Option<StridedPtr<*const u8>>,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: StridedPtr<*mut u8>,
}

/// Kernels for groups of one and of two blocks of output channels.
pub(in crate::cpu) type StripFns = [unsafe fn(&StripArgs); 2];

/// Strip kernels from one format to the same format, and to `f32`.
pub(in crate::cpu) struct StripTable {
    pub(in crate::cpu) strips: StripFns,
    pub(in crate::cpu) strips_to_f32: StripFns,
}

/// Some rows of an output image as lines of positions. Distances are in elements of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Strip {
    lines: usize,
    line_stride: usize,
    /// Positions of a line, and the distance from one position to the next.
    len: usize,
    step: usize,
    /// Positions from one row of the output to the next. The first `width` of them are pixels.
    pitch: usize,
    width: usize,
}

/// Positions of a line that are summed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset of the first tap of the first position.
    pub(super) input: usize,
    line: usize,
    first: usize,
    /// The positions of the line that this piece stores; no other piece stores them.
    stored: Range<usize>,
}

/// Adjacent pixels that a piece stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PixelSpan {
    /// Row and column of the first pixel.
    pub(super) at: [usize; 2],
    /// The pixels' positions in the piece.
    pub(super) positions: Range<usize>,
}

/// Most positions of a piece.
pub(super) const PIECE_HEIGHT_MAX: usize = 16;

impl Strip {
    /// Returns the strip of `rows` rows of `width` pixels with stride `stride`. `row` is the length
    /// of an input row in elements.
    pub(in crate::cpu) fn new(rows: usize, width: usize, stride: usize, row: usize) -> Self {
        let step = stride * LANES;
        if stride > 1 {
            let line_stride = stride * row;
            return Self { lines: rows, line_stride, len: width, step, pitch: width, width };
        }
        let pitch = row / LANES;
        debug_assert!(width <= pitch, "a window with stride 1 stays in its row");
        let len = (rows - 1) * pitch + width;
        Self { lines: 1, line_stride: 0, len, step, pitch, width }
    }

    /// Distance from one position to the next, in elements.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Returns the positions of every piece: the smallest height that needs no more pieces than the
    /// largest height.
    pub(super) fn piece_height(&self) -> usize {
        self.len.div_ceil(self.len.div_ceil(PIECE_HEIGHT_MAX))
    }

    /// Returns the pieces, which store each position once.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (strip, height) = (*self, self.piece_height());
        (0..strip.lines).flat_map(move |line| {
            (0..strip.len).step_by(height).map(move |from| {
                let first = from.min(strip.len - height);
                let input = line * strip.line_stride + first * strip.step;
                Piece { input, line, first, stored: from..first + height }
            })
        })
    }

    /// Returns the pixels that a piece stores.
    pub(super) fn spans(&self, piece: &Piece) -> impl Iterator<Item = PixelSpan> + use<> {
        let (Self { pitch, width, .. }, line, first) = (*self, piece.line, piece.first);
        let Range { start, end } = piece.stored;
        let rows = start / pitch..end.div_ceil(pitch);
        rows.map(move |row| {
            let from = start.max(row * pitch);
            let to = end.min(row * pitch + width).max(from);
            PixelSpan { at: [line + row, from - row * pitch], positions: from - first..to - first }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Returns combinations of rows, width, stride and pixels of an input row.
    fn shapes() -> impl Iterator<Item = [usize; 4]> {
        (1..9).flat_map(|rows| (1..40).map(move |width| (rows, width))).flat_map(|(rows, width)| {
            let beyond = [(1, 0), (1, 1), (1, 6), (2, 0), (2, 3)];
            beyond.map(|(stride, more)| [rows, width, stride, stride * width + more])
        })
    }

    #[test]
    fn every_pixel_is_stored_once_from_its_own_window() {
        for [rows, width, stride, pixels] in shapes() {
            let strip = Strip::new(rows, width, stride, pixels * LANES);
            let mut inputs = BTreeMap::new();
            for piece in strip.pieces() {
                for PixelSpan { at: [y, x], positions } in strip.spans(&piece) {
                    for (beside, position) in positions.enumerate() {
                        assert!(position < strip.piece_height());
                        let input = piece.input + position * strip.step();
                        assert_eq!(inputs.insert([y, x + beside], input), None);
                    }
                }
            }
            let expected = (0..rows).flat_map(|y| (0..width).map(move |x| [y, x]));
            let window = |[y, x]: [usize; 2]| (y * pixels + x) * stride * LANES;
            assert!(inputs.into_iter().eq(expected.map(|at| (at, window(at)))));
        }
    }

    #[test]
    fn no_window_starts_after_that_of_the_last_pixel() {
        for [rows, width, stride, pixels] in shapes() {
            let strip = Strip::new(rows, width, stride, pixels * LANES);
            let last = ((rows - 1) * pixels + width - 1) * stride * LANES;
            let ends =
                strip.pieces().map(|piece| piece.input + (strip.piece_height() - 1) * strip.step);
            assert_eq!(ends.max(), Some(last));
            assert!(strip.piece_height() <= PIECE_HEIGHT_MAX);
        }
    }
}
