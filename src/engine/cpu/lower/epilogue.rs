//! Lowers activations to the epilogue of a kernel, or to a step of their own.

use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::pack;
use crate::cpu::work::PackedEpilogue;
use crate::op::Activation;

/// An activation of a blocked image.
pub(super) enum ImageActivation {
    /// The slope of each channel for numbers below 0.
    PRelu(Vec<f32>),
    Clip {
        min: f32,
        max: f32,
    },
    /// A function that no epilogue can compute. It takes a step of its own.
    Step(ActivationKind),
}

impl ImageActivation {
    /// Returns the activation of an image of `channels` channels. Returns `None` if its slopes vary
    /// along another axis.
    pub(super) fn of(activation: &Activation, channels: usize) -> Option<Self> {
        Some(match activation {
            Activation::Relu => Self::PRelu(vec![0.0; channels]),
            Activation::LeakyRelu(slope) => Self::PRelu(vec![*slope; channels]),
            Activation::PRelu(slopes) => Self::PRelu(slopes.along(0, channels)?),
            Activation::Clip { min, max } => Self::Clip { min: *min, max: *max },
            other => Self::Step(activation_kind(other)?),
        })
    }
}

/// Splits an activation into the epilogue of a kernel and the kind of a step that must follow the
/// kernel. Either the epilogue is the identity, or there is no step.
pub(super) fn split_activation(
    activation: Option<&ImageActivation>,
) -> (PackedEpilogue, Option<ActivationKind>) {
    match activation {
        None => (PackedEpilogue::Identity, None),
        Some(ImageActivation::PRelu(slopes)) => {
            (PackedEpilogue::PRelu(pack::per_channel(slopes, 0.0)), None)
        }
        Some(ImageActivation::Clip { min, max }) => {
            (PackedEpilogue::Clip { min: *min, max: *max }, None)
        }
        Some(ImageActivation::Step(kind)) => (PackedEpilogue::Identity, Some(*kind)),
    }
}

/// Returns the kind of an activation step, or `None` for a function that differs between channels.
pub(super) fn activation_kind(activation: &Activation) -> Option<ActivationKind> {
    Some(match *activation {
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
        Activation::PRelu(_) => return None,
    })
}
