//! A convolution that reads the network's input as the caller laid it out.
//!
//! With three or four channels, blocks of sixteen would be mostly empty. A few rows of each
//! channel are copied into a bordered strip that stays in the first-level cache, and tiles read
//! single numbers from it.

use super::{ImageRef, OutputRegion, PackedEpilogue, RowWindow, RunContext, Work, numbers};
use crate::cpu::kernels::cut::Cut;
use crate::cpu::kernels::tile::{Plane, Taps, TileArgs};
use crate::cpu::memory::Buffer;
use crate::cpu::pack::DenseShape;

/// A convolution of a flat `[channels, height, width]` or `[height, width, channels]`.
pub(in crate::cpu) struct Planar {
    pub(in crate::cpu) input: usize,
    /// Height and width of the input.
    pub(in crate::cpu) size: [usize; 2],
    pub(in crate::cpu) channels_last: bool,
    pub(in crate::cpu) output: ImageRef,
    pub(in crate::cpu) shape: DenseShape,
    /// 1 or 2.
    pub(in crate::cpu) stride: usize,
    /// Border: top, left, bottom, right.
    pub(in crate::cpu) pads: [usize; 4],
    /// What the border holds, per channel.
    pub(in crate::cpu) border: Vec<f32>,
    pub(in crate::cpu) weights: Buffer,
    pub(in crate::cpu) bias: Buffer,
    pub(in crate::cpu) epilogue: PackedEpilogue,
}

/// Output rows of one strip: at most so many, and as many as take up part of a first-level cache.
const STRIP_ROWS_MAX: usize = 4;
const STRIP_BYTES: usize = 40 << 10;

impl Planar {
    fn channels(&self) -> usize {
        self.shape.inputs
    }

    fn strip_width(&self) -> usize {
        self.pads[1] + self.size[1] + self.pads[3]
    }

    /// Input rows under `rows` output rows.
    fn strip_height(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.shape.kernel[0]
    }

    fn strip_rows(&self) -> usize {
        let fits = |&rows: &usize| self.strip_bytes(rows) <= STRIP_BYTES;
        (1..=STRIP_ROWS_MAX).rev().find(fits).unwrap_or(1)
    }

    fn strip_bytes(&self, rows: usize) -> usize {
        self.channels() * self.strip_height(rows) * self.strip_width() * size_of::<f32>()
    }

    /// Copies the input rows under output rows `y..y + rows` to the strip, border included.
    unsafe fn fill(&self, input: *const f32, strip: *mut f32, y: usize, rows: usize) {
        let ([height, width], [top, left, ..]) = (self.size, self.pads);
        let high = self.strip_height(rows);
        for (channel, &border) in self.border.iter().enumerate() {
            for row in 0..high {
                let at = (channel * high + row) * self.strip_width();
                // SAFETY: the strip has room for so many rows, and rows inside the image are
                // rows of the input.
                unsafe {
                    let to = std::slice::from_raw_parts_mut(strip.add(at), self.strip_width());
                    let from = (y * self.stride + row).checked_sub(top).filter(|&y| y < height);
                    let Some(from) = from else {
                        to.fill(border);
                        continue;
                    };
                    to[..left].fill(border);
                    to[left + width..].fill(border);
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

    /// The tiles of output rows `y..y + rows` from a filled strip.
    unsafe fn tiles(
        &self,
        run: &RunContext<'_>,
        item: usize,
        y: usize,
        rows: usize,
        region: &OutputRegion,
    ) {
        let (pitch, high) = (self.strip_width(), self.strip_height(rows));
        let taps = Taps {
            blocks: self.channels(),
            block_stride: high * pitch,
            rows: self.shape.kernel[0],
            columns: self.shape.kernel[1],
            row_stride: pitch,
            pixel_stride: 1,
            dots: 1,
            dots_last: 1,
        };
        let output = self.output.layout;
        let cut = Cut::of(output.width, 1, run.kernels.tile_pixels);
        let strip = run.scratch.cast::<f32>();
        for (row, group) in (0..rows).flat_map(|row| region.groups.clone().map(move |g| (row, g))) {
            let (block, blocks) = self.shape.group(group);
            let weights = block * self.shape.block_elements() * size_of::<f32>();
            for tiles in cut.runs() {
                // SAFETY: taps lie in the strip, the tile in the output, the weights were packed.
                unsafe {
                    let args = TileArgs {
                        taps: &taps,
                        count: tiles.count,
                        input_row: 0,
                        input: strip.add(row * self.stride * pitch + tiles.x * self.stride).cast(),
                        weights: self.weights.start().add(weights),
                        ahead: 0,
                        bias: Some(numbers(&self.bias, block)),
                        residual: None,
                        epilogue: self.epilogue.at_block(block),
                        output: Plane {
                            first: self.output.pixel_ptr(
                                run,
                                item,
                                block,
                                [y + row, tiles.x],
                                [0, 0],
                            ),
                            block: output.block_stride(),
                            row: output.row_stride(),
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
            for y in region.rows.clone().step_by(self.strip_rows()) {
                let rows = self.strip_rows().min(region.rows.end - y);
                // SAFETY: what the caller promises.
                unsafe {
                    let input = run.item_ptr(self.input, item).cast_const().cast();
                    self.fill(input, run.scratch.cast(), y, rows);
                    self.tiles(run, item, y, rows, region);
                }
            }
        }
    }

    fn scratch_bytes(&self, _items: usize) -> usize {
        self.strip_bytes(self.strip_rows())
    }

    /// Of the caller's input, which is there whole.
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
