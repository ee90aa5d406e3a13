//! Pooling windows and global means over the pixels of an image.

use std::marker::PhantomData;

use super::Kernel;
use crate::cpu::lanes::{Format, LANES, Lanes};

/// The result of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum PoolKind {
    Max,
    /// The sum divided by the number of pixels inside the image.
    AverageInside,
    /// The sum divided by the number of pixels of the window, including the border.
    AverageWithBorder,
}

/// One block of sixteen channels. `input` is the address of pixel `[0, 0]` of the image, even if
/// that row is not in memory. The kernel computes `rows` output rows from row `y` on, and `output`
/// points to the first of them. It does not read the border.
pub(in crate::cpu) struct PoolArgs {
    pub(in crate::cpu) kind: PoolKind,
    pub(in crate::cpu) input: *const u8,
    pub(in crate::cpu) input_row_stride: usize,
    /// Height and width of the image.
    pub(in crate::cpu) image: [usize; 2],
    pub(in crate::cpu) kernel: [usize; 2],
    pub(in crate::cpu) strides: [usize; 2],
    /// Border before the image: top, left.
    pub(in crate::cpu) pads: [usize; 2],
    pub(in crate::cpu) output: *mut u8,
    pub(in crate::cpu) output_row_stride: usize,
    pub(in crate::cpu) y: usize,
    pub(in crate::cpu) rows: usize,
    pub(in crate::cpu) width: usize,
}

pub(super) struct PoolKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Kernel<L> for PoolKernel<F> {
    type Args = PoolArgs;

    #[inline(always)]
    unsafe fn run(args: &PoolArgs) {
        // SAFETY: windows are clamped to the image; the outputs are as `PoolArgs` says.
        unsafe {
            for y in 0..args.rows {
                let rows = clamp_window(args, 0, args.y + y);
                let to = args.output.cast::<F::Element>().add(y * args.output_row_stride);
                if is_max_2x2(args, &rows) {
                    max_2x2::<L, F>(args, rows[0], to);
                    continue;
                }
                for x in 0..args.width {
                    let pixel = pool_window::<L, F>(args, &rows, &clamp_window(args, 1, x));
                    F::store(pixel, to.add(x * LANES));
                }
            }
        }
    }
}

/// Returns whether these rows are the usual pool: a maximum of 2×2 with stride 2 that needs no
/// clamping.
#[inline(always)]
fn is_max_2x2(args: &PoolArgs, rows: &[usize; 2]) -> bool {
    args.kind == PoolKind::Max
        && args.kernel == [2, 2]
        && args.strides[1] == 2
        && args.pads[1] == 0
        && 2 * args.width <= args.image[1]
        && rows[1] == rows[0] + 2
}

/// # Safety
/// Rows `y` and `y + 1` lie in the image. The image is at least twice as wide as the output at
/// `to`.
#[inline(always)]
unsafe fn max_2x2<L: Lanes, F: Format<L>>(args: &PoolArgs, y: usize, to: *mut F::Element) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let above = args.input.cast::<F::Element>().wrapping_add(y * args.input_row_stride);
        let below = above.add(args.input_row_stride);
        for x in 0..args.width {
            let pair = |row: *const F::Element| {
                F::load(row.add(2 * x * LANES)).max(F::load(row.add((2 * x + 1) * LANES)))
            };
            F::store(pair(above).max(pair(below)), to.add(x * LANES));
        }
    }
}

/// Returns the first pixel of the window inside the image and one past the last, along an axis.
#[inline(always)]
fn clamp_window(args: &PoolArgs, axis: usize, at: usize) -> [usize; 2] {
    let from = at * args.strides[axis];
    let to = (from + args.kernel[axis]).saturating_sub(args.pads[axis]);
    [from.saturating_sub(args.pads[axis]), to.min(args.image[axis])]
}

/// # Safety
/// Rows and columns lie in the image.
#[inline(always)]
unsafe fn pool_window<L: Lanes, F: Format<L>>(
    args: &PoolArgs,
    rows: &[usize; 2],
    columns: &[usize; 2],
) -> L {
    let (high, wide) = (rows[1].saturating_sub(rows[0]), columns[1].saturating_sub(columns[0]));
    // SAFETY: guaranteed by the caller.
    unsafe {
        let is_max = args.kind == PoolKind::Max;
        let mut result = L::splat(if is_max { f32::NEG_INFINITY } else { 0.0 });
        let first = args.input.cast::<F::Element>();
        for y in 0..high {
            let row = (rows[0] + y) * args.input_row_stride + columns[0] * LANES;
            let row = first.wrapping_add(row);
            for x in 0..wide {
                let pixel = F::load(row.add(x * LANES));
                result = if is_max { pixel.max(result) } else { result.add(pixel) };
            }
        }
        let count = match args.kind {
            PoolKind::Max => return result,
            PoolKind::AverageInside => high * wide,
            PoolKind::AverageWithBorder => args.kernel[0] * args.kernel[1],
        };
        result.div(L::splat(count as f32))
    }
}

/// One block of sixteen channels: the mean of `height × width` pixels from `input` on.
pub(in crate::cpu) struct GlobalMeanArgs {
    pub(in crate::cpu) input: *const u8,
    pub(in crate::cpu) input_row_stride: usize,
    pub(in crate::cpu) height: usize,
    pub(in crate::cpu) width: usize,
    pub(in crate::cpu) output: *mut u8,
}

pub(super) struct GlobalMeanKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Kernel<L> for GlobalMeanKernel<F> {
    type Args = GlobalMeanArgs;

    #[inline(always)]
    unsafe fn run(args: &GlobalMeanArgs) {
        // SAFETY: the pointers are as `GlobalMeanArgs` says.
        unsafe {
            // Four sums, so that no addition waits for the one before.
            let mut sums = [L::splat(0.0); 4];
            for y in 0..args.height {
                let row = args.input.cast::<F::Element>().add(y * args.input_row_stride);
                for x in 0..args.width {
                    sums[x % 4] = sums[x % 4].add(F::load(row.add(x * LANES)));
                }
            }
            let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
            let count = L::splat((args.height * args.width) as f32);
            F::store(sum.div(count), args.output.cast());
        }
    }
}
