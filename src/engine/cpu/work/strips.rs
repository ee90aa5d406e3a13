//! Dense convolution by strips of many pixels.

use std::ops::Range;

use super::direct::Direct;
use super::product::WEIGHTS_STAY_BYTES;
use super::{OutputRegion, Product, RunContext, Work, block_ptr};
use crate::cpu::kernels::strip::{Strip, StripArgs, StripTable};
use crate::cpu::kernels::tile::StridedPtr;

/// The same convolution as [`Direct`], on strip kernels.
pub(in crate::cpu) struct Strips {
    pub(in crate::cpu) direct: Direct,
    pub(in crate::cpu) kernels: &'static StripTable,
}

/// About this many pixels are computed for all groups of channels before the next pixels. That is
/// enough for configuring the tiles of AMX, a few hundred cycles each time, to take 1 % of the
/// time. It is few enough for 64 channels of them to stay in the first-level cache.
const PIXELS_AT_ONCE: usize = 256;

impl Strips {
    /// Computes some rows of one group of channels of one item.
    ///
    /// # Safety
    /// As for [`Work::run`].
    unsafe fn run_rows(&self, run: &RunContext<'_>, item: usize, group: usize, rows: Range<usize>) {
        let Direct { product, stride, pads } = &self.direct;
        let Product { input, residual, output, shape, weights, bias, epilogue } = product;
        let (block, blocks) = shape.group_blocks(group);
        let group_bytes = shape.block_elements() * run.kernels.element_bytes;
        debug_assert!((block + blocks) * group_bytes <= weights.bytes());
        let at = [rows.start, 0];
        let taps = self.direct.taps();
        // SAFETY: the rows lie in the output. Their taps, and those of positions between the rows,
        // lie in the bordered input, whose border was planned for this kernel. The weights of the
        // group are packed.
        unsafe {
            let args = StripArgs {
                taps,
                strip: Strip::new(rows.len(), output.layout.width, *stride, taps.row_stride),
                input: input.pixel_ptr(run, item, 0, at.map(|at| at * stride), *pads),
                weights: weights.start().add(block * group_bytes),
                bias: block_ptr(bias, block),
                residual: residual.map(|residual| StridedPtr {
                    first: residual.pixel_ptr(run, item, block, at, [0, 0]).cast_const(),
                    block_stride: residual.layout.block_stride(),
                    row_stride: residual.layout.row_stride(),
                }),
                epilogue: epilogue.at_block(block),
                output: StridedPtr {
                    first: output.pixel_ptr(run, item, block, at, [0, 0]),
                    block_stride: output.layout.block_stride(),
                    row_stride: output.layout.row_stride(),
                },
            };
            let widens_to_f32 = product.widens_to_f32(run);
            let StripTable { strips, strips_to_f32 } = self.kernels;
            let kernels = if widens_to_f32 { strips_to_f32 } else { strips };
            kernels[blocks - 1](&args);
        }
    }
}

impl Work for Strips {
    fn algorithm(&self) -> &'static str {
        if self.direct.product.shape.kernel == [1, 1] { "pointwise amx" } else { "direct amx" }
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let OutputRegion { items, rows, groups } = region;
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.weight_bytes() > WEIGHTS_STAY_BYTES {
                for group in groups.clone() {
                    for item in items.clone() {
                        self.run_rows(run, item, group, rows.clone());
                    }
                }
                return;
            }
            let rows_at_once = PIXELS_AT_ONCE.div_ceil(self.direct.product.output.layout.width);
            for item in items.clone() {
                for y in rows.clone().step_by(rows_at_once) {
                    for group in groups.clone() {
                        self.run_rows(run, item, group, y..rows.end.min(y + rows_at_once));
                    }
                }
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        self.direct.weight_bytes()
    }

    fn weight_uses(&self) -> usize {
        // How many times as fast a strip uses a weight as a register tile in `f32`. Half of that
        // counts, because bfloat16 weights arrive twice as fast. A low estimate.
        const SPEED_OVER_TILES: usize = 4;
        self.direct.weight_uses() / SPEED_OVER_TILES
    }
}
