//! The transforms of Winograd's F(4×4, 3×3) convolution (Lavin & Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2015).
//!
//! A tile of 6×6 inputs is transformed to 36 numbers per channel. Each number is multiplied by a
//! matrix of its own over the channels, and the 36 results are transformed to 4×4 outputs. That
//! makes 2.25 multiplications for each output and pair of channels instead of 9. The matrices have
//! four times the bytes of the kernel, so the algorithm does not always pay.

use std::marker::PhantomData;

use super::tile::StridedPtr;
use super::{Epilogue, Kernel};
use crate::cpu::lanes::{F32, Format, LANES, Lanes};

/// Inputs along a side of a tile, outputs along a side, and elements of a transformed tile.
pub(in crate::cpu) const SIDE_IN: usize = 6;
pub(in crate::cpu) const SIDE_OUT: usize = 4;
pub(in crate::cpu) const TRANSFORMED_LEN: usize = SIDE_IN * SIDE_IN;

/// The matrix `G` that transforms a kernel: `G g Gᵀ`.
pub(in crate::cpu) const KERNEL_TRANSFORM: [[f64; 3]; SIDE_IN] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// One block of one tile. The 6×6 pixels at `input` become 36 vectors at `output`, `vector_stride`
/// elements apart. Pixels beyond `height` and `width` lie right of the image's border or below it.
/// They count as zeros and are not read.
pub(in crate::cpu) struct ForwardArgs {
    pub(in crate::cpu) input: *const u8,
    pub(in crate::cpu) input_row_stride: usize,
    pub(in crate::cpu) height: usize,
    pub(in crate::cpu) width: usize,
    pub(in crate::cpu) output: *mut f32,
    pub(in crate::cpu) vector_stride: usize,
}

/// One block of one tile. The 36 vectors at `input`, `vector_stride` elements apart, become the
/// upper left `height × width` of 4×4 pixels. Bias, residual and epilogue are applied.
pub(in crate::cpu) struct InverseArgs {
    pub(in crate::cpu) input: *const f32,
    pub(in crate::cpu) vector_stride: usize,
    pub(in crate::cpu) bias: *const f32,
    pub(in crate::cpu) residual: Option<StridedPtr<*const u8>>,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: StridedPtr<*mut u8>,
    pub(in crate::cpu) height: usize,
    pub(in crate::cpu) width: usize,
}

/// Transforms pixels to the 36 vectors.
pub(super) struct ForwardTransform<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Kernel<L> for ForwardTransform<F> {
    type Args = ForwardArgs;

    #[inline(always)]
    unsafe fn run(args: &ForwardArgs) {
        // SAFETY: only pixels inside `height × width` are read, and 36 vectors are written.
        unsafe {
            let zero = L::splat(0.0);
            let input = args.input.cast::<F::Element>();
            let mut columns = [[zero; SIDE_IN]; SIDE_IN];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut pixels = [zero; SIDE_IN];
                if x < args.width {
                    for (y, pixel) in pixels.iter_mut().enumerate() {
                        if y < args.height {
                            *pixel = F::load(input.add(y * args.input_row_stride + x * LANES));
                        }
                    }
                }
                *column = forward(pixels);
            }
            for y in 0..SIDE_IN {
                let mut row = [zero; SIDE_IN];
                for (x, column) in columns.iter().enumerate() {
                    row[x] = column[y];
                }
                for (x, number) in forward(row).into_iter().enumerate() {
                    number.store(args.output.add((y * SIDE_IN + x) * args.vector_stride));
                }
            }
        }
    }
}

/// Transforms the 36 vectors to pixels.
pub(super) struct InverseTransform<R, O>(PhantomData<(R, O)>);

impl<L: Lanes, R: Format<L>, O: Format<L>> Kernel<L> for InverseTransform<R, O> {
    type Args = InverseArgs;

    #[inline(always)]
    unsafe fn run(args: &InverseArgs) {
        // SAFETY: 36 vectors are read, and pixels inside `height × width` are read and written.
        unsafe {
            let mut columns = [[L::splat(0.0); SIDE_OUT]; SIDE_IN];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut numbers = [L::splat(0.0); SIDE_IN];
                for (y, number) in numbers.iter_mut().enumerate() {
                    let from = args.input.add((y * SIDE_IN + x) * args.vector_stride);
                    *number = <F32 as Format<L>>::load(from);
                }
                *column = inverse(numbers);
            }
            let bias = L::load(args.bias);
            for y in 0..args.height {
                let mut numbers = [bias; SIDE_IN];
                for (x, column) in columns.iter().enumerate() {
                    numbers[x] = column[y];
                }
                let row = inverse(numbers);
                for (x, sum) in row.into_iter().enumerate().take(args.width) {
                    let mut sum = sum.add(bias);
                    if let Some(residual) = &args.residual {
                        let first = residual.first.cast::<R::Element>();
                        sum = sum.add(R::load(first.add(y * residual.row_stride + x * LANES)));
                    }
                    let to = args.output.first.cast::<O::Element>();
                    let to = to.add(y * args.output.row_stride + x * LANES);
                    O::store(args.epilogue.apply_to_one(sum), to);
                }
            }
        }
    }
}

/// Computes `Bᵀ d` for one column of six.
#[inline(always)]
fn forward<L: Lanes>(d: [L; SIDE_IN]) -> [L; SIDE_IN] {
    // SAFETY: `d` exists, so the processor has the instructions.
    let (two, four, minus_four, minus_five) =
        unsafe { (L::splat(2.0), L::splat(4.0), L::splat(-4.0), L::splat(-5.0)) };
    let even = minus_four.mul_add(d[2], d[4]);
    let odd = minus_four.mul_add(d[1], d[3]);
    let outer = d[4].sub(d[2]);
    let inner = two.mul(d[3].sub(d[1]));
    [
        four.mul_add(d[0], minus_five.mul_add(d[2], d[4])),
        even.add(odd),
        even.sub(odd),
        outer.add(inner),
        outer.sub(inner),
        four.mul_add(d[1], minus_five.mul_add(d[3], d[5])),
    ]
}

/// Computes `Aᵀ m` for one column of six.
#[inline(always)]
fn inverse<L: Lanes>(m: [L; SIDE_IN]) -> [L; SIDE_OUT] {
    // SAFETY: `m` exists, so the processor has the instructions.
    let (two, four, eight) = unsafe { (L::splat(2.0), L::splat(4.0), L::splat(8.0)) };
    let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (far_sum, far_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(sum).add(far_sum),
        two.mul_add(far_difference, difference),
        four.mul_add(far_sum, sum),
        eight.mul_add(far_difference, difference).add(m[5]),
    ]
}
