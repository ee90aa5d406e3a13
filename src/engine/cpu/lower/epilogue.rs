//! Lowers activations to the epilogue of a kernel, or to a step of their own.

use crate::constant::Constant;
use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::pack;
use crate::cpu::work::PackedEpilogue;
use crate::op::Activation;

/// Returns an activation as the epilogue of a kernel. If an epilogue cannot compute it, the
/// epilogue is the identity and a step with the returned kind must follow.
pub(super) fn lower_activation(
    activation: Option<&Activation>,
    channels: usize,
) -> (PackedEpilogue, Option<ActivationKind>) {
    let slopes = |slope: &[f32]| PackedEpilogue::PRelu(pack::per_channel(slope, 0.0));
    match activation {
        None => (PackedEpilogue::Identity, None),
        Some(Activation::Relu) => (slopes(&vec![0.0; channels]), None),
        Some(Activation::LeakyRelu(slope)) => (slopes(&vec![*slope; channels]), None),
        Some(Activation::PRelu(constant)) => (slopes(&per_channel(constant, channels)), None),
        Some(Activation::Clip { min, max }) => {
            (PackedEpilogue::Clip { min: *min, max: *max }, None)
        }
        Some(other) => (PackedEpilogue::Identity, Some(activation_kind(other))),
    }
}

fn per_channel(slopes: &Constant, channels: usize) -> Vec<f32> {
    slopes.along(0, channels).expect("other slopes have the kernel kind Fallback")
}

/// Returns the kind of an activation step.
pub(super) fn activation_kind(activation: &Activation) -> ActivationKind {
    match *activation {
        Activation::Relu => ActivationKind::LeakyRelu { slope: 0.0 },
        Activation::LeakyRelu(slope) => ActivationKind::LeakyRelu { slope },
        Activation::Clip { min, max } => ActivationKind::Clip { min, max },
        Activation::Sigmoid => ActivationKind::Sigmoid,
        Activation::HardSigmoid { alpha, beta } => ActivationKind::HardSigmoid { alpha, beta },
        Activation::HardSwish => ActivationKind::HardSwish,
        Activation::Tanh => ActivationKind::Tanh,
        Activation::Exp => ActivationKind::Exp,
        Activation::Sqrt => ActivationKind::Sqrt,
        Activation::Abs => ActivationKind::Abs,
        Activation::PRelu(_) => unreachable!("a flat PRelu has the kernel kind Fallback"),
    }
}
