//! Strips: the pixels of several rows in one line, for kernels that take sixteen at once.
//!
//! Behind a row lie its border and the next row. A window that moves on by one pixel each time
//! passes over the border and stands at the beginning of the next row, so some rows of an image
//! are one strip, and a tile need not end where a row does. What was summed over the border is
//! not stored: with a border of one, two of sixteen positions in images 14 wide, as many as tiles
//! that end with their rows would leave empty, but two of nine in images 7 wide, where those would
//! leave nine of sixteen. With stride 2 every other row would be for nothing, so there each row is
//! a line of its own.
//!
//! All pieces of a line have one height, as changing it is expensive. The last one begins early
//! enough to end with the line, and what it has in common with the one before is stored once. A
//! position's sum is the same in every piece, so nothing depends on how a strip was cut.

#![cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AMX works by strips"))]

use std::ops::Range;

use super::Epilogue;
use super::tile::{StridedPtr, Taps};
use crate::cpu::lanes::LANES;

/// What one run reads and writes: `input` points at the first tap of the first pixel and all taps
/// of all positions lie in one buffer; `weights` hold the packed group, every block whole; `bias`
/// points to a number for each of its channels; `output` and `residual` point at the first pixel.
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

/// Strips of one format, and from it to `f32`.
pub(in crate::cpu) struct StripTable {
    pub(in crate::cpu) strips: StripFns,
    pub(in crate::cpu) strips_to_f32: StripFns,
}

/// Some rows of an output image as lines of positions. Distances are in elements of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Strip {
    lines: usize,
    line_stride: usize,
    /// Positions of a line, and the distance from one to the next.
    len: usize,
    step: usize,
    /// Positions from one row of the output to the next, of which the first `width` are pixels.
    pitch: usize,
    width: usize,
}

/// Positions that are summed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where the first tap of the first position is.
    pub(super) input: usize,
    line: usize,
    first: usize,
    /// Those of its line's positions that no other piece stores.
    stored: Range<usize>,
}

/// Pixels beside each other that a piece stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PixelSpan {
    /// The first pixel.
    pub(super) at: [usize; 2],
    /// Which positions of the piece they are.
    pub(super) positions: Range<usize>,
}

/// Most positions of a piece.
pub(super) const PIECE_HEIGHT_MAX: usize = 16;

impl Strip {
    /// `rows` rows of `width` pixels, computed with `stride` from rows that are `row` elements.
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

    /// From one position to the next.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Positions of every piece: the fewest that make as few pieces as the most do.
    pub(super) fn piece_height(&self) -> usize {
        self.len.div_ceil(self.len.div_ceil(PIECE_HEIGHT_MAX))
    }

    /// The pieces, which store each position once.
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

    /// The pixels that a piece stores.
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

    /// Rows, width, stride and pixels of an input row.
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
