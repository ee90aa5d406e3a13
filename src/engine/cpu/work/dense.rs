//! Dense convolution, directly: every tap is read where it lies.

use std::ops::Range;

use super::{Image, LANES, PackedFinish, Region, Run, Work, numbers};
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
pub(super) const WEIGHTS_STAY_BYTES: usize = 512 << 10;

/// What all tiles of a run have in common.
struct Pass {
    taps: Taps,
    tiles: &'static TileTable,
    cut: Cut,
}

impl Dense {
    pub(super) fn taps(&self) -> Taps {
        let layout = &self.input.layout;
        let [dots, dots_last] = self.shape.dots();
        Taps {
            blocks: self.shape.input_blocks(),
            block_stride: layout.block(),
            rows: self.shape.kernel[0],
            columns: self.shape.kernel[1],
            row_stride: layout.row(),
            pixel_stride: LANES,
            dots,
            dots_last,
        }
    }

    fn cut(&self, run: &Run<'_>) -> Cut {
        let layout = &self.output.layout;
        Cut::of(layout.width, layout.height, run.kernels.tile_pixels)
    }

    /// Some rows of one group of channels of one image.
    ///
    /// # Safety
    /// As [`Work::run`].
    unsafe fn rows(
        &self,
        run: &Run<'_>,
        pass: &Pass,
        image: usize,
        group: usize,
        rows: Range<usize>,
    ) {
        let (block, blocks) = self.shape.group(group);
        let group_bytes = self.shape.block_elements() * run.kernels.element;
        debug_assert!((block + blocks) * group_bytes <= self.weights.bytes());
        let (layout, taps) = (self.output.layout, &pass.taps);
        let mut y = rows.start;
        while y < rows.end {
            let high = if y + pass.cut.rows <= rows.end { pass.cut.rows } else { 1 };
            for tiles in pass.cut.runs() {
                let at = [y, tiles.x];
                let from = at.map(|at| at * self.stride);
                // SAFETY: the tiles lie in the output; their taps lie in the bordered input, whose
                // border was planned for this kernel; the group's weights were packed.
                unsafe {
                    let args = TileArgs {
                        taps,
                        count: tiles.count,
                        input_row: self.stride * taps.row_stride,
                        input: self.input.at(run, image, 0, from, self.pads),
                        weights: self.weights.start().add(block * group_bytes),
                        bias: Some(numbers(&self.bias, block)),
                        residual: self.residual.map(|residual| Plane {
                            first: residual.at(run, image, block, at, [0, 0]).cast_const(),
                            block: residual.layout.block(),
                            row: residual.layout.row(),
                        }),
                        finish: self.finish.at_block(block),
                        output: Plane {
                            first: self.output.at(run, image, block, at, [0, 0]),
                            block: layout.block(),
                            row: layout.row(),
                        },
                    };
                    pass.tiles.get(self.stride, [blocks, high, tiles.width])(&args);
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
        let pass = Pass { taps: self.taps(), tiles: self.tiles(run), cut: self.cut(run) };
        let Region { images, rows, groups } = region;
        // SAFETY: what the caller promises.
        unsafe {
            if self.weight_bytes() > WEIGHTS_STAY_BYTES {
                for group in groups.clone() {
                    for image in images.clone() {
                        self.rows(run, &pass, image, group, rows.clone());
                    }
                }
                return;
            }
            for image in images.clone() {
                for y in rows.clone().step_by(pass.cut.rows) {
                    for group in groups.clone() {
                        let rows = y..rows.end.min(y + pass.cut.rows);
                        self.rows(run, &pass, image, group, rows);
                    }
                }
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }
}
