//! What is done to each number alone: scales, sums of two values, gates, curves.

use std::marker::PhantomData;

use super::{Epilogue, Runnable};
use crate::cpu::lanes::{Format, LANES, Lanes};
use crate::op::BinaryOp;

/// One block of sixteen channels of a row of `count` pixels, each pointer at the first of them:
/// `epilogue((a × scale + shift) × channel_scale ∘ b)`, with the parts that are there.
pub(in crate::cpu) struct ElementwiseArgs {
    pub(in crate::cpu) a: *const u8,
    /// Sixteen scales and sixteen shifts.
    pub(in crate::cpu) affine: Option<[*const f32; 2]>,
    /// Sixteen numbers of the network that all pixels are multiplied with.
    pub(in crate::cpu) channel_scale: Option<*const u8>,
    /// Each pixel of it serves `b_repeat` pixels.
    pub(in crate::cpu) b: Option<(BinaryOp, *const u8)>,
    pub(in crate::cpu) b_repeat: usize,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: *mut u8,
    pub(in crate::cpu) count: usize,
}

pub(super) struct ElementwiseKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Runnable<L> for ElementwiseKernel<F> {
    type Args = ElementwiseArgs;

    #[inline(always)]
    unsafe fn run(args: &ElementwiseArgs) {
        // SAFETY: as `ElementwiseArgs` says.
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
                let x = args.epilogue.apply(x, 0);
                F::store(x, args.output.cast::<F::Element>().add(pixel * LANES));
            }
        }
    }
}

/// A function of one number that no instruction computes.
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

/// `count` times sixteen numbers from `data` on, changed in place.
pub(in crate::cpu) struct ActivationArgs {
    pub(in crate::cpu) kind: ActivationKind,
    pub(in crate::cpu) data: *mut u8,
    pub(in crate::cpu) count: usize,
}

pub(super) struct ActivationKernel<F>(PhantomData<F>);

impl<L: Lanes, F: Format<L>> Runnable<L> for ActivationKernel<F> {
    type Args = ActivationArgs;

    #[inline(always)]
    unsafe fn run(args: &ActivationArgs) {
        for index in 0..args.count {
            // SAFETY: as `ActivationArgs` says.
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
    /// One loop over sixteen numbers each, which the compiler turns into vector code.
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

/// The exponential to about two units in the last place (Cephes' `expf`): `2ⁿ × p(r)` with
/// `x = n ln 2 + r`. Unlike the library's it is made of operations the compiler vectorises.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite, or below the least normal number and taken for 0.
    const LOWEST: f32 = -87.33655;
    const HIGHEST: f32 = 88.72284;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let inside = x.clamp(LOWEST, HIGHEST);
    // Adding and subtracting 1.5 × 2²³ rounds to a whole number, on every processor.
    const ROUND: f32 = 12_582_912.0;
    let n = (inside * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = inside - n * LN_2_HIGH - n * LN_2_LOW;
    let series = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    let mantissa = series * r * r + r + 1.0;
    // n is -126..=128; 2^128 is made of two factors.
    let half = (n * 0.5 + ROUND) - ROUND;
    // A sum that is checked for overflow keeps the compiler from making vector code of it.
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
