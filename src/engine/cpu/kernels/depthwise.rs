//! Depthwise convolution: each channel is convolved with a small kernel of its own.
//!
//! Sixteen channels of a pixel are one load, so up to eight output pixels of a row are eight sums
//! in registers. The weights stay in registers over the whole image.

use std::marker::PhantomData;

use super::{Epilogue, Kernel, run};
use crate::cpu::lanes::{Format, Isa, LANES, Lanes};

/// One block of sixteen channels. `input` points to the first tap of the first pixel; all taps of
/// all pixels lie in its buffer. `output` points to the first pixel of `rows` rows of `width`
/// pixels. `weights` hold sixteen numbers per tap, `bias` holds sixteen numbers.
pub(in crate::cpu) struct DepthwiseArgs {
    pub(in crate::cpu) input: *const u8,
    /// Elements from one row of the image to the next.
    pub(in crate::cpu) input_row_stride: usize,
    pub(in crate::cpu) kernel: [usize; 2],
    pub(in crate::cpu) strides: [usize; 2],
    pub(in crate::cpu) weights: *const f32,
    pub(in crate::cpu) bias: *const f32,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: *mut u8,
    pub(in crate::cpu) output_row_stride: usize,
    pub(in crate::cpu) rows: usize,
    pub(in crate::cpu) width: usize,
}

type DepthwiseFn = unsafe fn(&DepthwiseArgs);

/// The kernels by size and stride.
pub(in crate::cpu) struct DepthwiseTable {
    three: [DepthwiseFn; 2],
    five: [DepthwiseFn; 2],
    generic: DepthwiseFn,
}

impl DepthwiseTable {
    pub(super) const fn new<A: Isa, I, O>() -> Self
    where
        I: Format<A::Lanes>,
        O: Format<A::Lanes>,
    {
        Self {
            three: [run::<A, SquareKernel<I, O, 3, 1>>, run::<A, SquareKernel<I, O, 3, 2>>],
            five: [run::<A, SquareKernel<I, O, 5, 1>>, run::<A, SquareKernel<I, O, 5, 2>>],
            generic: run::<A, GenericKernel<I, O>>,
        }
    }

    pub(in crate::cpu) fn get(&self, kernel: [usize; 2], strides: [usize; 2]) -> DepthwiseFn {
        match (kernel, strides) {
            ([3, 3], [1, 1] | [2, 2]) => self.three[strides[0] - 1],
            ([5, 5], [1, 1] | [2, 2]) => self.five[strides[0] - 1],
            _ => self.generic,
        }
    }
}

/// A kernel of `SIDE × SIDE` taps with stride `STRIDE`.
struct SquareKernel<I, O, const SIDE: usize, const STRIDE: usize>(PhantomData<(I, O)>);

impl<L, I, O, const SIDE: usize, const STRIDE: usize> Kernel<L> for SquareKernel<I, O, SIDE, STRIDE>
where
    L: Lanes,
    I: Format<L>,
    O: Format<L>,
{
    type Args = DepthwiseArgs;

    #[inline(always)]
    unsafe fn run(args: &DepthwiseArgs) {
        // SAFETY: weights and bias are as `DepthwiseArgs` says, and the pixels lie inside a row of
        // the output.
        unsafe {
            let mut weights = [[L::splat(0.0); SIDE]; SIDE];
            for (y, row) in weights.iter_mut().enumerate() {
                for (x, tap) in row.iter_mut().enumerate() {
                    *tap = L::load(args.weights.add((y * SIDE + x) * LANES));
                }
            }
            for y in 0..args.rows {
                let from = args.input.cast::<I::Element>().add(y * STRIDE * args.input_row_stride);
                let to = args.output.cast::<O::Element>().add(y * args.output_row_stride);
                let mut x = 0;
                while x < args.width {
                    let from = from.add(x * STRIDE * LANES);
                    let to = to.add(x * LANES);
                    let left = args.width - x;
                    if left >= 8 {
                        run_pixels::<L, I, O, SIDE, STRIDE, 8>(args, &weights, from, to);
                        x += 8;
                    } else if left == 7 {
                        run_pixels::<L, I, O, SIDE, STRIDE, 7>(args, &weights, from, to);
                        x += 7;
                    } else if left >= 4 {
                        run_pixels::<L, I, O, SIDE, STRIDE, 4>(args, &weights, from, to);
                        x += 4;
                    } else if left >= 2 {
                        run_pixels::<L, I, O, SIDE, STRIDE, 2>(args, &weights, from, to);
                        x += 2;
                    } else {
                        run_pixels::<L, I, O, SIDE, STRIDE, 1>(args, &weights, from, to);
                        x += 1;
                    }
                }
            }
        }
    }
}

/// Computes `COUNT` neighbouring pixels.
///
/// # Safety
/// All taps of the pixels, and the pixels themselves, lie in their buffers.
#[inline(always)]
unsafe fn run_pixels<L, I, O, const SIDE: usize, const STRIDE: usize, const COUNT: usize>(
    args: &DepthwiseArgs,
    weights: &[[L; SIDE]; SIDE],
    from: *const I::Element,
    to: *mut O::Element,
) where
    L: Lanes,
    I: Format<L>,
    O: Format<L>,
{
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [L::load(args.bias); COUNT];
        for (y, row) in weights.iter().enumerate() {
            let from = from.add(y * args.input_row_stride);
            for (x, tap) in row.iter().enumerate() {
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    let input = I::load(from.add((pixel * STRIDE + x) * LANES));
                    *sum = tap.mul_add(input, *sum);
                }
            }
        }
        let mut sums = [[sums]];
        args.epilogue.apply(&mut sums);
        let [[sums]] = sums;
        for (pixel, sum) in sums.into_iter().enumerate() {
            O::store(sum, to.add(pixel * LANES));
        }
    }
}

/// A kernel of any size and stride. It uses four sums per pixel, so that no addition waits for the
/// one before.
struct GenericKernel<I, O>(PhantomData<(I, O)>);

impl<L: Lanes, I: Format<L>, O: Format<L>> Kernel<L> for GenericKernel<I, O> {
    type Args = DepthwiseArgs;

    #[inline(always)]
    unsafe fn run(args: &DepthwiseArgs) {
        let ([height, width], [stride_y, stride_x]) = (args.kernel, args.strides);
        // SAFETY: the pointers are as `DepthwiseArgs` says.
        unsafe {
            for y in 0..args.rows {
                for x in 0..args.width {
                    let from = args.input.cast::<I::Element>();
                    let from =
                        from.add(y * stride_y * args.input_row_stride + x * stride_x * LANES);
                    let mut sums = [L::splat(0.0); 4];
                    sums[0] = L::load(args.bias);
                    for row in 0..height {
                        for column in 0..width {
                            let input =
                                I::load(from.add(row * args.input_row_stride + column * LANES));
                            let tap = row * width + column;
                            let weight = L::load(args.weights.add(tap * LANES));
                            sums[tap % 4] = weight.mul_add(input, sums[tap % 4]);
                        }
                    }
                    let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
                    let to = args
                        .output
                        .cast::<O::Element>()
                        .add(y * args.output_row_stride + x * LANES);
                    O::store(args.epilogue.apply_to_one(sum), to);
                }
            }
        }
    }
}
