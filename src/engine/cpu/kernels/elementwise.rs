//! Operations on each element alone: scales, sums of two values, scales per channel, activations.

use std::marker::PhantomData;

use super::{Epilogue, Kernel};
use crate::cpu::lanes::{Format, LANES, Lanes};
use crate::op::BinaryOp;

/// One block of sixteen channels of a row of `count` pixels. Each pointer points to the first
/// pixel. The kernel computes `epilogue((a × scale + shift) × channel_scale ∘ b)` and leaves out
/// the parts that are `None`.
pub(in crate::cpu) struct ElementwiseArgs {
    pub(in crate::cpu) a: *const u8,
    /// Sixteen scales and sixteen shifts.
    pub(in crate::cpu) affine: Option<[*const f32; 2]>,
    /// Sixteen numbers, in the network's format, that multiply all pixels.
    pub(in crate::cpu) channel_scale: Option<*const u8>,
    /// Each pixel of `b` is used for `b_repeat` pixels.
    pub(in crate::cpu) b: Option<(BinaryOp, *const u8)>,
    pub(in crate::cpu) b_repeat: usize,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: *mut u8,
    pub(in crate::cpu) count: usize,
}

pub(super) struct ElementwiseKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Kernel<L> for ElementwiseKernel<F> {
    type Args = ElementwiseArgs;

    #[inline(always)]
    unsafe fn run(args: &ElementwiseArgs) {
        // SAFETY: the pointers are as `ElementwiseArgs` says.
        unsafe {
            let affine = args.affine.map(|[scale, shift]| (L::load(scale), L::load(shift)));
            let channel_scale = args.channel_scale.map(|scale| F::load(scale.cast()));
            for pixel in 0..args.count {
                let mut x = F::load(args.a.cast::<F::Element>().add(pixel * LANES));
                if let Some((scale, shift)) = affine {
                    x = x.mul_add(scale, shift);
                }
                if let Some(channel_scale) = channel_scale {
                    x = x.mul(channel_scale);
                }
                if let Some((op, b)) = args.b {
                    let b = F::load(b.cast::<F::Element>().add(pixel / args.b_repeat * LANES));
                    x = match op {
                        BinaryOp::Add => x.add(b),
                        BinaryOp::Sub => x.sub(b),
                        BinaryOp::Mul => x.mul(b),
                        BinaryOp::Div => x.div(b),
                    };
                }
                F::store(
                    args.epilogue.apply_to_one(x),
                    args.output.cast::<F::Element>().add(pixel * LANES),
                );
            }
        }
    }
}

/// A function of one element, applied by a step of its own. `LeakyRelu` and `Clip` are for flat
/// buffers only; on images they are epilogues.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cpu) enum ActivationKind {
    Sigmoid,
    HardSigmoid { alpha: f32, beta: f32 },
    HardSwish,
    Tanh,
    Exp,
    Sqrt,
    Abs,
    LeakyRelu { slope: f32 },
    Clip { min: f32, max: f32 },
}

/// `count` blocks of sixteen elements from `data` on, changed in place.
pub(in crate::cpu) struct ActivationArgs {
    pub(in crate::cpu) kind: ActivationKind,
    pub(in crate::cpu) data: *mut u8,
    pub(in crate::cpu) count: usize,
}

pub(super) struct ActivationKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Kernel<L> for ActivationKernel<F> {
    type Args = ActivationArgs;

    #[inline(always)]
    unsafe fn run(args: &ActivationArgs) {
        for index in 0..args.count {
            // SAFETY: the pointer is as `ActivationArgs` says.
            unsafe {
                let at = args.data.cast::<F::Element>().add(index * LANES);
                let mut numbers = [0.0; LANES];
                F::load(at).store(numbers.as_mut_ptr());
                args.kind.apply(&mut numbers);
                F::store(L::load(numbers.as_ptr()), at);
            }
        }
    }
}

impl ActivationKind {
    /// Applies the function to every number. Callers pass sixteen numbers, so the compiler turns
    /// each loop into vector code.
    #[inline(always)]
    pub(in crate::cpu) fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Sigmoid => numbers.iter_mut().for_each(|x| *x = 1.0 / (1.0 + exp(-*x))),
            Self::HardSigmoid { alpha, beta } => {
                numbers.iter_mut().for_each(|x| *x = (alpha * *x + beta).clamp(0.0, 1.0));
            }
            Self::HardSwish => {
                numbers.iter_mut().for_each(|x| *x *= (*x / 6.0 + 0.5).clamp(0.0, 1.0));
            }
            Self::Tanh => numbers.iter_mut().for_each(|x| *x = x.tanh()),
            Self::Exp => numbers.iter_mut().for_each(|x| *x = exp(*x)),
            Self::Sqrt => numbers.iter_mut().for_each(|x| *x = x.sqrt()),
            Self::Abs => numbers.iter_mut().for_each(|x| *x = x.abs()),
            Self::LeakyRelu { slope } => {
                numbers.iter_mut().for_each(|x| *x = if *x < 0.0 { *x * slope } else { *x });
            }
            Self::Clip { min, max } => {
                numbers.iter_mut().for_each(|x| *x = x.max(min).min(max));
            }
        }
    }
}

/// Computes the exponential to about two units in the last place, as `expf` of Cephes does: `2ⁿ ×
/// p(r)` with `x = n ln 2 + r`. Unlike the library's function, it consists of operations that the
/// compiler vectorises.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Outside of these limits the result is infinite, or below the least normal number and replaced
    // by 0.
    const LOWEST: f32 = -87.33655;
    const HIGHEST: f32 = 88.72284;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let inside = x.clamp(LOWEST, HIGHEST);
    // Adding and subtracting 1.5 × 2²³ rounds to an integer, on every processor.
    const ROUND: f32 = 12_582_912.0;
    let n = (inside * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = inside - n * LN_2_HIGH - n * LN_2_LOW;
    let series = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    let mantissa = series * r * r + r + 1.0;
    // `n` is in -126..=128. No `f32` is 2¹²⁸, so the power is a product of two factors.
    let half = (n * 0.5 + ROUND) - ROUND;
    // An addition with an overflow check would keep the compiler from vectorising the loop.
    let power = |n: f32| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23);
    let result = mantissa * power(half) * power(n - half);
    let result = if x > HIGHEST { f32::INFINITY } else { result };
    let result = if x < LOWEST { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_library() {
        for step in -1100..1100 {
            let x = step as f32 * 0.081;
            let (found, expected) = (exp(x), x.exp());
            // Results below the least normal number are 0.
            let close = (found - expected).abs() <= 4e-7 * expected + f32::MIN_POSITIVE;
            assert!(close || found == expected, "exp({x}) = {found}, expected {expected}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
    }
}
