//! Steps that only move pixels.

use std::ops::Range;
use std::sync::Arc;

use super::{ImageRef, OutputRegion, RunContext, Work};
use crate::cpu::lanes::LANES;
use crate::cpu::memory::MappedMemory;

/// Builds an image from other images: padding and concatenation.
pub(in crate::cpu) struct Assemble {
    /// The numbers for the places that no source covers, per channel in the network's format.
    pub(in crate::cpu) fill: MappedMemory,
    /// Blocks that the sources do not cover completely: all blocks, or a last one with lanes beyond
    /// the last channel.
    pub(in crate::cpu) filled_blocks: Range<usize>,
    pub(in crate::cpu) sources: Vec<PlacedImage>,
    pub(in crate::cpu) output: ImageRef,
}

/// A source image, and the place of its first channel and pixel in the output.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct PlacedImage {
    pub(in crate::cpu) image: ImageRef,
    pub(in crate::cpu) channel: usize,
    pub(in crate::cpu) top: usize,
    pub(in crate::cpu) left: usize,
}

impl Assemble {
    unsafe fn fill_row(&self, run: &RunContext<'_>, item: usize, y: usize) {
        let bytes = LANES * self.output.element_bytes;
        for block in self.filled_blocks.clone() {
            for x in 0..self.output.layout.width {
                // SAFETY: the pixel lies in the output, and `fill` holds a number for each lane of
                // the block.
                unsafe {
                    let to = self.output.pixel_ptr(run, item, block, [y, x], [0, 0]);
                    std::ptr::copy_nonoverlapping(self.fill.start().add(block * bytes), to, bytes);
                }
            }
        }
    }

    /// Copies one row of a source: in whole blocks if the first channel starts a block, else
    /// channel by channel.
    unsafe fn copy_row(&self, run: &RunContext<'_>, source: &PlacedImage, item: usize, y: usize) {
        let PlacedImage { image: from, channel, top, left } = source;
        let Some(row) = y.checked_sub(*top).filter(|&row| row < from.layout.height) else { return };
        let element_bytes = from.element_bytes;
        let whole_blocks = channel.is_multiple_of(LANES);
        let channels = from.layout.channels;
        for first in (0..channels).step_by(if whole_blocks { LANES } else { 1 }) {
            let count = if whole_blocks { LANES.min(channels - first) } else { 1 };
            let to = channel + first;
            for x in 0..from.layout.width {
                // SAFETY: the pixels lie in the source and in the output, which has room for the
                // source's channels.
                unsafe {
                    let read = from.pixel_ptr(run, item, first / LANES, [row, x], [0, 0]);
                    let write = self.output.pixel_ptr(run, item, to / LANES, [y, x + left], [0, 0]);
                    std::ptr::copy_nonoverlapping(
                        read.add(first % LANES * element_bytes),
                        write.add(to % LANES * element_bytes),
                        count * element_bytes,
                    );
                }
            }
        }
    }
}

impl Work for Assemble {
    fn algorithm(&self) -> &'static str {
        "copy"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            for y in region.rows.clone() {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    self.fill_row(run, item, y);
                    for source in &self.sources {
                        self.copy_row(run, source, item, y);
                    }
                }
            }
        }
    }
}

/// Repeats each pixel an integer number of times.
pub(in crate::cpu) struct Upsample {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) output: ImageRef,
    /// Rows and columns of the output for each pixel.
    pub(in crate::cpu) factor: [usize; 2],
}

impl Work for Upsample {
    fn algorithm(&self) -> &'static str {
        "copy"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let bytes = LANES * self.output.element_bytes;
        for item in region.items.clone() {
            for block in region.groups.clone() {
                for y in region.rows.clone() {
                    let row = y / self.factor[0];
                    for x in 0..self.input.layout.width {
                        // SAFETY: the pixels lie in the input and in the output, which has `factor`
                        // times as many.
                        unsafe {
                            let from = self.input.pixel_ptr(run, item, block, [row, x], [0, 0]);
                            let at = [y, x * self.factor[1]];
                            let to = self.output.pixel_ptr(run, item, block, at, [0, 0]);
                            for copy in 0..self.factor[1] {
                                std::ptr::copy_nonoverlapping(from, to.add(copy * bytes), bytes);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Writes the border of an image in every run: values other than zero, or zeros where the image
/// shares memory or is stored in part.
#[derive(Clone)]
pub(in crate::cpu) struct FillBorder {
    pub(in crate::cpu) image: ImageRef,
    /// One number per channel, in the network's format.
    pub(in crate::cpu) values: Arc<MappedMemory>,
}

impl FillBorder {
    /// Fills the border of some rows, counted from the border's corner.
    ///
    /// # Safety
    /// The buffer has the item, and the rows are in memory.
    pub(super) unsafe fn fill_rows(&self, run: &RunContext<'_>, item: usize, rows: Range<usize>) {
        let layout = self.image.layout;
        let [top, left, _, right] = layout.border;
        let bytes = LANES * self.image.element_bytes;
        let columns = layout.row_stride() / LANES;
        for block in 0..layout.blocks() {
            // SAFETY: the pixels lie in the bordered block; they count from the border's corner.
            unsafe {
                let value = self.values.start().add(block * bytes);
                let first = self.image.pixel_ptr(run, item, block, [0, 0], [top, left]);
                let put = |row: usize, column: usize| {
                    let to = first.wrapping_add((row * columns + column) * bytes);
                    std::ptr::copy_nonoverlapping(value, to, bytes);
                };
                for row in rows.clone() {
                    if (top..top + layout.height).contains(&row) {
                        (0..left).for_each(|column| put(row, column));
                        (columns - right..columns).for_each(|column| put(row, column));
                    } else {
                        (0..columns).for_each(|column| put(row, column));
                    }
                }
            }
        }
    }
}

impl Work for FillBorder {
    fn algorithm(&self) -> &'static str {
        "border"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            // SAFETY: guaranteed by the caller.
            unsafe { self.fill_rows(run, item, 0..self.image.layout.bordered_height()) };
        }
    }

    fn as_border(&self) -> Option<&Self> {
        Some(self)
    }
}
