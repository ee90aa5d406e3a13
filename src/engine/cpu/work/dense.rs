//! Dense convolution, directly: every tap is read where it lies.

use super::{Image, PackedFinish, Region, Run, Work, numbers};
use crate::engine::cpu::kernels::tile::{Cut, Plane, Taps, TileArgs, TileTable};
use crate::engine::cpu::memory::Buffer;
use crate::engine::cpu::pack::DenseShape;

/// A convolution whose input has its border in memory.
pub(in crate::engine::cpu) struct Dense {
    pub(in crate::engine::cpu) input: Image,
    pub(in crate::engine::cpu) residual: Option<Image>,
    pub(in crate::engine::cpu) output: Image,
    pub(in crate::engine::cpu) shape: DenseShape,
    /// 1 or 2.
    pub(in crate::engine::cpu) stride: usize,
    /// Border in front: top, left.
    pub(in crate::engine::cpu) pads: [usize; 2],
    pub(in crate::engine::cpu) weights: Buffer,
    pub(in crate::engine::cpu) bias: Buffer,
    pub(in crate::engine::cpu) finish: PackedFinish,
}

/// Above this, weights are read once for all pixels of a region; below, pixels once for all
/// weights. Half of a usual second-level cache.
const WEIGHTS_STAY_BYTES: usize = 512 << 10;

impl Dense {
    fn taps(&self) -> Taps {
        let layout = &self.input.layout;
        let [dots, dots_last] = self.shape.dots();
        Taps {
            blocks: self.shape.input_blocks(),
            block_stride: layout.block(),
            rows: self.shape.kernel[0],
            columns: self.shape.kernel[1],
            row_stride: layout.row(),
            pixel_stride: super::LANES,
            dots,
            dots_last,
        }
    }

    /// The tiles of some rows of one group of channels of one image.
    unsafe fn rows(
        &self,
        run: &Run<'_>,
        taps: &Taps,
        image: usize,
        group: usize,
        rows: std::ops::Range<usize>,
    ) {
        let kernels = run.kernels;
        let tiles = self.tiles(run);
        let (block, blocks) = self.shape.group(group);
        let element = kernels.element;
        let weights = block * self.shape.block_elements() * element;
        debug_assert!(
            weights + blocks * self.shape.block_elements() * element <= self.weights.bytes()
        );
        let output = self.output.layout;
        let cut = Cut::of(output.width, output.height, kernels.tile_pixels);
        let mut y = rows.start;
        while y < rows.end {
            let high = if y + cut.rows <= rows.end { cut.rows } else { 1 };
            for column in 0..cut.columns {
                let (x, wide) = cut.column(column);
                let from = [y * self.stride, x * self.stride];
                // SAFETY: the tile lies in the output; its taps lie in the bordered input, whose
                // border was planned for this kernel; the group's weights were packed.
                unsafe {
                    let args = TileArgs {
                        taps,
                        input_row: self.stride * taps.row_stride,
                        input: self.input.at(run, image, 0, from, self.pads),
                        weights: self.weights.start().add(weights),
                        bias: Some(numbers(&self.bias, block)),
                        residual: self.residual.map(|residual| Plane {
                            first: residual.at(run, image, block, [y, x], [0, 0]).cast_const(),
                            block: residual.layout.block(),
                            row: residual.layout.row(),
                        }),
                        finish: self.finish.from_block(block),
                        output: Plane {
                            first: self.output.at(run, image, block, [y, x], [0, 0]),
                            block: output.block(),
                            row: output.row(),
                        },
                    };
                    tiles.get(super::LANES, self.stride, [blocks, high, wide])(&args);
                }
            }
            y += high;
        }
    }

    fn tiles(&self, run: &Run<'_>) -> &'static TileTable {
        let is_wide = self.output.element != run.kernels.element;
        if is_wide { &run.kernels.tiles_to_f32 } else { &run.kernels.tiles }
    }
}

impl Work for Dense {
    fn algorithm(&self) -> &'static str {
        if self.shape.kernel == [1, 1] { "pointwise" } else { "direct" }
    }

    unsafe fn run(&self, run: &Run<'_>, region: &Region) {
        let taps = self.taps();
        // SAFETY: what the caller promises.
        unsafe {
            if self.weight_bytes() > WEIGHTS_STAY_BYTES {
                for group in region.groups.clone() {
                    for image in region.images.clone() {
                        self.rows(run, &taps, image, group, region.rows.clone());
                    }
                }
                return;
            }
            let high = Cut::of(
                self.output.layout.width,
                self.output.layout.height,
                run.kernels.tile_pixels,
            )
            .rows;
            for image in region.images.clone() {
                for y in region.rows.clone().step_by(high) {
                    let rows = y..region.rows.end.min(y + high);
                    for group in region.groups.clone() {
                        self.rows(run, &taps, image, group, rows.clone());
                    }
                }
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }
}
