//! A convolution that reads the network's input in the caller's layout.
//!
//! With three or four channels, blocks of sixteen channels would be mostly empty. So a few rows of
//! each channel are copied, with their border, into memory that stays in the first-level cache. The
//! tiles read single numbers from this padded copy.

use super::{ImageRef, OutputRegion, PackedEpilogue, RowWindow, RunContext, Work, block_ptr};
use crate::cpu::kernels::tile::{StridedPtr, Taps, TileArgs};
use crate::cpu::kernels::tiling::Tiling;
use crate::cpu::memory::MappedMemory;
use crate::cpu::pack::ProductShape;

/// A convolution of a flat `[channels, height, width]` or `[height, width, channels]`.
pub(in crate::cpu) struct Planar {
    pub(in crate::cpu) input: usize,
    /// Height and width of the input.
    pub(in crate::cpu) size: [usize; 2],
    pub(in crate::cpu) channels_last: bool,
    pub(in crate::cpu) output: ImageRef,
    pub(in crate::cpu) shape: ProductShape,
    /// 1 or 2.
    pub(in crate::cpu) stride: usize,
    /// Border: top, left, bottom, right.
    pub(in crate::cpu) pads: [usize; 4],
    /// Value of the border elements, per channel.
    pub(in crate::cpu) border_values: Vec<f32>,
    pub(in crate::cpu) weights: MappedMemory,
    pub(in crate::cpu) bias: MappedMemory,
    pub(in crate::cpu) epilogue: PackedEpilogue,
}

/// Most output rows computed from one padded copy, and most bytes of the copy: a part of a
/// first-level cache.
const ROWS_AT_ONCE_MAX: usize = 4;
const PADDED_BYTES_MAX: usize = 40 << 10;

impl Planar {
    fn channels(&self) -> usize {
        self.shape.inputs
    }

    fn padded_width(&self) -> usize {
        self.pads[1] + self.size[1] + self.pads[3]
    }

    /// Input rows that `rows` output rows read.
    fn padded_height(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.shape.kernel[0]
    }

    fn rows_at_once(&self) -> usize {
        let fits = |&rows: &usize| self.padded_bytes(rows) <= PADDED_BYTES_MAX;
        (1..=ROWS_AT_ONCE_MAX).rev().find(fits).unwrap_or(1)
    }

    fn padded_bytes(&self, rows: usize) -> usize {
        self.channels() * self.padded_height(rows) * self.padded_width() * size_of::<f32>()
    }

    /// Copies the input rows of output rows `y..y + rows`, with their border, to `padded`.
    unsafe fn copy_padded(&self, input: *const f32, padded: *mut f32, y: usize, rows: usize) {
        let ([height, width], [top, left, ..]) = (self.size, self.pads);
        let high = self.padded_height(rows);
        for (channel, &border_value) in self.border_values.iter().enumerate() {
            for row in 0..high {
                let at = (channel * high + row) * self.padded_width();
                // SAFETY: `padded` has room for these rows, and rows inside the image are rows of
                // the input.
                unsafe {
                    let to = std::slice::from_raw_parts_mut(padded.add(at), self.padded_width());
                    let from = (y * self.stride + row).checked_sub(top).filter(|&y| y < height);
                    let Some(from) = from else {
                        to.fill(border_value);
                        continue;
                    };
                    to[..left].fill(border_value);
                    to[left + width..].fill(border_value);
                    let to = &mut to[left..left + width];
                    if self.channels_last {
                        let pixels = input.add(from * width * self.channels() + channel);
                        for (x, number) in to.iter_mut().enumerate() {
                            *number = *pixels.add(x * self.channels());
                        }
                    } else {
                        let pixels = input.add((channel * height + from) * width);
                        to.copy_from_slice(std::slice::from_raw_parts(pixels, width));
                    }
                }
            }
        }
    }

    /// Computes output rows `y..y + rows` from the padded copy in the scratch.
    unsafe fn run_tiles(
        &self,
        run: &RunContext<'_>,
        item: usize,
        y: usize,
        rows: usize,
        region: &OutputRegion,
    ) {
        let (row_stride, high) = (self.padded_width(), self.padded_height(rows));
        let taps = Taps {
            blocks: self.channels(),
            block_stride: high * row_stride,
            rows: self.shape.kernel[0],
            columns: self.shape.kernel[1],
            row_stride,
            pixel_stride: 1,
            dots: 1,
            dots_last: 1,
        };
        let output = self.output.layout;
        let tiling = Tiling::new(output.width, 1, run.kernels.tile_pixels);
        let padded = run.scratch.cast::<f32>();
        for (row, group) in (0..rows).flat_map(|row| region.groups.clone().map(move |g| (row, g))) {
            let (block, blocks) = self.shape.group_blocks(group);
            let weights = block * self.shape.block_elements() * size_of::<f32>();
            for tiles in tiling.spans() {
                // SAFETY: the taps lie in the padded copy, the tiles in the output, and the weights
                // are packed.
                unsafe {
                    let args = TileArgs {
                        taps: &taps,
                        count: tiles.count,
                        input_row_stride: 0,
                        input: padded
                            .add(row * self.stride * row_stride + tiles.x * self.stride)
                            .cast(),
                        weights: self.weights.start().add(weights),
                        prefetch_bytes: 0,
                        bias: Some(block_ptr(&self.bias, block)),
                        residual: None,
                        epilogue: self.epilogue.at_block(block),
                        output: StridedPtr {
                            first: self.output.pixel_ptr(
                                run,
                                item,
                                block,
                                [y + row, tiles.x],
                                [0, 0],
                            ),
                            block_stride: output.block_stride(),
                            row_stride: output.row_stride(),
                        },
                    };
                    run.kernels.planar.get(self.stride, [blocks, tiles.width])(&args);
                }
            }
        }
    }
}

impl Work for Planar {
    fn algorithm(&self) -> &'static str {
        "planar"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            for y in region.rows.clone().step_by(self.rows_at_once()) {
                let rows = self.rows_at_once().min(region.rows.end - y);
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let input = run.item_ptr(self.input, item).cast_const().cast();
                    self.copy_padded(input, run.scratch.cast(), y, rows);
                    self.run_tiles(run, item, y, rows, region);
                }
            }
        }
    }

    fn scratch_bytes(&self, _items: usize) -> usize {
        self.padded_bytes(self.rows_at_once())
    }

    /// The window lies on the caller's input, whose rows are all in memory.
    fn row_window(&self) -> Option<RowWindow> {
        Some(RowWindow { stride: self.stride, height: self.shape.kernel[0], offset: 0 })
    }

    fn update_layout(&mut self, image: &ImageRef) {
        self.output.update_layout(image);
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }
}
