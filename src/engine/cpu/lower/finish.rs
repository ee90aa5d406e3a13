//! Activations: what a kernel does in registers, and what takes a pass of its own.

use crate::constant::Constant;
use crate::cpu::kernels::pixelwise::CurveKind;
use crate::cpu::pack;
use crate::cpu::work::PackedFinish;
use crate::op::Activation;

/// An activation as the finish of a kernel and, where that cannot be, a curve after it.
pub(super) fn packed(
    activation: Option<&Activation>,
    channels: usize,
) -> (PackedFinish, Option<CurveKind>) {
    let slopes = |slope: &[f32]| PackedFinish::Slope(pack::per_channel(slope, 0.0));
    match activation {
        None => (PackedFinish::Nothing, None),
        Some(Activation::Relu) => (slopes(&vec![0.0; channels]), None),
        Some(Activation::LeakyRelu(slope)) => (slopes(&vec![*slope; channels]), None),
        Some(Activation::PRelu(constant)) => (slopes(&per_channel(constant, channels)), None),
        Some(Activation::Clip { min, max }) => (PackedFinish::Clip { min: *min, max: *max }, None),
        Some(other) => (PackedFinish::Nothing, Some(curve(other))),
    }
}

fn per_channel(slopes: &Constant, channels: usize) -> Vec<f32> {
    slopes.along(0, channels).expect("other slopes have the kernel kind Fallback")
}

/// An activation as a curve.
pub(super) fn curve(activation: &Activation) -> CurveKind {
    match *activation {
        Activation::Relu => CurveKind::Leaky { slope: 0.0 },
        Activation::LeakyRelu(slope) => CurveKind::Leaky { slope },
        Activation::Clip { min, max } => CurveKind::Clip { min, max },
        Activation::Sigmoid => CurveKind::Sigmoid,
        Activation::HardSigmoid { alpha, beta } => CurveKind::HardSigmoid { alpha, beta },
        Activation::HardSwish => CurveKind::HardSwish,
        Activation::Tanh => CurveKind::Tanh,
        Activation::Exp => CurveKind::Exp,
        Activation::Sqrt => CurveKind::Sqrt,
        Activation::Abs => CurveKind::Abs,
        Activation::PRelu(_) => unreachable!("a flat PRelu has the kernel kind Fallback"),
    }
}
