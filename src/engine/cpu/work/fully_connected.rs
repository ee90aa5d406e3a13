//! A matrix product per item: fully connected layers, and convolutions whose output has one pixel.
//!
//! The items of a region are the adjacent pixels of a tile. So the weights, which are far larger
//! than the inputs here, are read once for all items.

use super::{OutputRegion, Product, RunContext, Work, block_ptr};
use crate::cpu::kernels::tile::{StridedPtr, Taps, TileArgs};
use crate::cpu::kernels::tiling::Tiling;
use crate::cpu::lanes::LANES;

/// A convolution whose kernel covers the whole input.
pub(in crate::cpu) struct FullyConnected {
    /// The kernel of its shape has the height and width of the input.
    pub(in crate::cpu) product: Product,
}

impl FullyConnected {
    /// Pixels of all blocks of an input image, without its border.
    fn pixels(&self) -> usize {
        let layout = &self.product.input.layout;
        layout.blocks() * layout.height * layout.width
    }

    /// Bytes of the gathered inputs, `[block][row][column][item][16]`.
    fn gathered_bytes(&self, items: usize) -> usize {
        self.pixels() * items * LANES * self.product.input.element_bytes
    }

    unsafe fn gather(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let layout = self.product.input.layout;
        let count = region.items.len();
        let bytes = LANES * self.product.input.element_bytes;
        for (at, item) in region.items.clone().enumerate() {
            let mut to = at * bytes;
            for block in 0..layout.blocks() {
                for y in 0..layout.height {
                    // SAFETY: the rows lie in the input, and the scratch has room for the gathered
                    // inputs.
                    unsafe {
                        let from = self.product.input.pixel_ptr(run, item, block, [y, 0], [0, 0]);
                        for x in 0..layout.width {
                            let to = run.scratch.add(to + x * count * bytes);
                            std::ptr::copy_nonoverlapping(from.add(x * bytes), to, bytes);
                        }
                    }
                    to += layout.width * count * bytes;
                }
            }
        }
    }

    /// Computes one group of channels for `width` items, from the gathered item `first` on.
    unsafe fn run_tile(
        &self,
        run: &RunContext<'_>,
        group: usize,
        region: &OutputRegion,
        first: usize,
        width: usize,
    ) {
        let kernels = run.kernels;
        let count = region.items.len();
        let [dots, dots_last] = self.product.shape.dots_per_tap();
        let pixels = self.product.input.layout.height * self.product.input.layout.width;
        // The last block may be partly filled. It is read like the others, with `dots_last` dots.
        let taps = Taps {
            blocks: self.product.shape.input_blocks(),
            block_stride: pixels * count * LANES,
            rows: 1,
            columns: pixels,
            row_stride: 0,
            pixel_stride: count * LANES,
            dots,
            dots_last,
        };
        let (block, blocks) = self.product.shape.group_blocks(group);
        let weights_bytes = self.product.shape.block_elements() * kernels.element_bytes;
        let tiles = self.product.tile_table(run);
        let gathered_bytes = self.gathered_bytes(count);
        // SAFETY: the inputs are gathered and the weights packed. Sums and residuals have their own
        // room in the scratch, and the block of each item lies in the output.
        unsafe {
            let sums = run.scratch.add(gathered_bytes);
            let residuals = sums.add(self.tile_bytes(kernels.tile_pixels, size_of::<f32>()));
            let item = |at: usize| region.items.start + first + at;
            let block_bytes = LANES * kernels.element_bytes;
            if let Some(residual) = &self.product.residual {
                for (at, b) in (0..width).flat_map(|at| (0..blocks).map(move |b| (at, b))) {
                    let from = residual.pixel_ptr(run, item(at), block + b, [0, 0], [0, 0]);
                    let to = residuals.add((b * width + at) * block_bytes);
                    std::ptr::copy_nonoverlapping(from, to, block_bytes);
                }
            }
            let args = TileArgs {
                taps: &taps,
                count: 1,
                input_row_stride: 0,
                input: run.scratch.add(first * block_bytes),
                weights: self.product.weights.start().add(block * weights_bytes),
                prefetch_bytes: self.product.prefetch_bytes(blocks * weights_bytes),
                bias: Some(block_ptr(&self.product.bias, block)),
                residual: self.product.residual.map(|_| StridedPtr {
                    first: residuals.cast_const(),
                    block_stride: width * LANES,
                    row_stride: 0,
                }),
                epilogue: self.product.epilogue.at_block(block),
                output: StridedPtr { first: sums, block_stride: width * LANES, row_stride: 0 },
            };
            tiles.get(1, [blocks, 1, width])(&args);
            let bytes = LANES * self.product.output.element_bytes;
            for (at, b) in (0..width).flat_map(|at| (0..blocks).map(move |b| (at, b))) {
                let to = self.product.output.pixel_ptr(run, item(at), block + b, [0, 0], [0, 0]);
                std::ptr::copy_nonoverlapping(sums.add((b * width + at) * bytes), to, bytes);
            }
        }
    }

    fn tile_bytes(&self, pixels: usize, element_bytes: usize) -> usize {
        self.product.shape.tile_blocks * pixels * LANES * element_bytes
    }
}

impl Work for FullyConnected {
    fn algorithm(&self) -> &'static str {
        "fully connected"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            self.gather(run, region);
            let tiling = Tiling::new(region.items.len(), 1, run.kernels.tile_pixels);
            for group in region.groups.clone() {
                for tiles in tiling.spans() {
                    for first in (0..tiles.count).map(|index| tiles.x + index * tiles.width) {
                        self.run_tile(run, group, region, first, tiles.width);
                    }
                }
            }
        }
    }

    fn scratch_bytes(&self, items: usize) -> usize {
        // Room for the largest tile of any set, once for sums and once for residuals.
        const PIXELS_MAX: usize = 14;
        self.gathered_bytes(items) + 2 * self.tile_bytes(PIXELS_MAX, size_of::<f32>())
    }

    fn weight_bytes(&self) -> usize {
        self.product.weights.bytes()
    }

    fn weight_uses(&self) -> usize {
        1
    }
}
