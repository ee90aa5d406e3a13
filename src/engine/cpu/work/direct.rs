//! Direct dense convolution: every tap is read from the image itself.

use std::ops::Range;

use super::product::WEIGHTS_STAY_BYTES;
use super::{ImageRef, LANES, OutputRegion, Product, RowWindow, RunContext, Work, block_ptr};
use crate::cpu::kernels::tile::{StridedPtr, Taps, TileArgs, TileTable};
use crate::cpu::kernels::tiling::Tiling;

/// A convolution whose input has its border in memory.
pub(in crate::cpu) struct Direct {
    pub(in crate::cpu) product: Product,
    /// 1 or 2.
    pub(in crate::cpu) stride: usize,
    /// Border before the image: top, left.
    pub(in crate::cpu) pads: [usize; 2],
}

/// Inputs up to this size stay in the second-level cache while all weights are read.
const INPUTS_STAY_BYTES: usize = 512 << 10;

/// The arguments that all tiles of a run share.
struct TileSetup {
    taps: Taps,
    tiles: &'static TileTable,
    tiling: Tiling,
}

impl Direct {
    pub(super) fn taps(&self) -> Taps {
        let layout = &self.product.input.layout;
        let [dots, dots_last] = self.product.shape.dots_per_tap();
        Taps {
            blocks: self.product.shape.input_blocks(),
            block_stride: layout.block_stride(),
            rows: self.product.shape.kernel[0],
            columns: self.product.shape.kernel[1],
            row_stride: layout.row_stride(),
            pixel_stride: LANES,
            dots,
            dots_last,
        }
    }

    fn tiling(&self, run: &RunContext<'_>) -> Tiling {
        let layout = &self.product.output.layout;
        Tiling::new(layout.width, layout.height, run.kernels.tile_pixels)
    }

    /// Computes some rows of one group of channels of one item.
    ///
    /// # Safety
    /// As for [`Work::run`].
    unsafe fn run_rows(
        &self,
        run: &RunContext<'_>,
        setup: &TileSetup,
        item: usize,
        group: usize,
        rows: Range<usize>,
    ) {
        let (block, blocks) = self.product.shape.group_blocks(group);
        let group_bytes = self.product.shape.block_elements() * run.kernels.element_bytes;
        debug_assert!((block + blocks) * group_bytes <= self.product.weights.bytes());
        let (layout, taps) = (self.product.output.layout, &setup.taps);
        let mut y = rows.start;
        while y < rows.end {
            let tile_rows = if y + setup.tiling.rows <= rows.end { setup.tiling.rows } else { 1 };
            for tiles in setup.tiling.spans() {
                let at = [y, tiles.x];
                let from = at.map(|at| at * self.stride);
                // SAFETY: the tiles lie in the output. Their taps lie in the bordered input, whose
                // border was planned for this kernel. The weights of the group are packed.
                unsafe {
                    let args = TileArgs {
                        taps,
                        count: tiles.count,
                        input_row_stride: self.stride * taps.row_stride,
                        input: self.product.input.pixel_ptr(run, item, 0, from, self.pads),
                        weights: self.product.weights.start().add(block * group_bytes),
                        prefetch_bytes: self.product.prefetch_bytes(blocks * group_bytes),
                        bias: Some(block_ptr(&self.product.bias, block)),
                        residual: self.product.residual.map(|residual| StridedPtr {
                            first: residual.pixel_ptr(run, item, block, at, [0, 0]).cast_const(),
                            block_stride: residual.layout.block_stride(),
                            row_stride: residual.layout.row_stride(),
                        }),
                        epilogue: self.product.epilogue.at_block(block),
                        output: StridedPtr {
                            first: self.product.output.pixel_ptr(run, item, block, at, [0, 0]),
                            block_stride: layout.block_stride(),
                            row_stride: layout.row_stride(),
                        },
                    };
                    setup.tiles.get(self.stride, [blocks, tile_rows, tiles.width])(&args);
                }
            }
            y += tile_rows;
        }
    }
}

impl Work for Direct {
    fn algorithm(&self) -> &'static str {
        if self.product.shape.kernel == [1, 1] { "pointwise" } else { "direct" }
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let setup = TileSetup {
            taps: self.taps(),
            tiles: self.product.tile_table(run),
            tiling: self.tiling(run),
        };
        let OutputRegion { items, rows, groups } = region;
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.weight_bytes() > WEIGHTS_STAY_BYTES {
                let input = &self.product.input;
                let items_together =
                    INPUTS_STAY_BYTES / (input.layout.elements() * input.element_bytes);
                for first in items.clone().step_by(items_together.max(1)) {
                    let items = first..items.end.min(first + items_together.max(1));
                    for (group, item) in
                        groups.clone().flat_map(|g| items.clone().map(move |item| (g, item)))
                    {
                        self.run_rows(run, &setup, item, group, rows.clone());
                    }
                }
                return;
            }
            for item in items.clone() {
                for y in rows.clone().step_by(setup.tiling.rows) {
                    for group in groups.clone() {
                        let rows = y..rows.end.min(y + setup.tiling.rows);
                        self.run_rows(run, &setup, item, group, rows);
                    }
                }
            }
        }
    }

    fn row_window(&self) -> Option<RowWindow> {
        let top = self.product.input.layout.border[0];
        let offset = top as isize - self.pads[0] as isize;
        Some(RowWindow { stride: self.stride, height: self.product.shape.kernel[0], offset })
    }

    fn update_layout(&mut self, image: &ImageRef) {
        let Product { input, residual, output, .. } = &mut self.product;
        [Some(input), residual.as_mut(), Some(output)]
            .into_iter()
            .flatten()
            .for_each(|own| own.update_layout(image));
    }

    fn weight_bytes(&self) -> usize {
        self.product.weights.bytes()
    }

    fn weight_uses(&self) -> usize {
        let layout = &self.product.output.layout;
        layout.height * layout.width
    }
}
