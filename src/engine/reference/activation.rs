//! Functions of each element, with candle's operations.

use candle_core::{Device, Result, Tensor};

use super::loaded_op::upload;
use crate::op::Activation;

/// An activation whose slopes are on the device.
pub(super) enum LoadedActivation {
    Relu,
    PRelu(Tensor),
    LeakyRelu(f64),
    Sigmoid,
    Clip { min: f32, max: f32 },
    HardSigmoid { alpha: f64, beta: f64 },
    HardSwish,
    Tanh,
    Exp,
    Sqrt,
    Abs,
}

impl LoadedActivation {
    pub(super) fn load(activation: &Activation, device: &Device) -> Result<Self> {
        Ok(match activation {
            Activation::Relu => Self::Relu,
            Activation::PRelu(slopes) => Self::PRelu(upload(slopes, device)?.unsqueeze(0)?),
            Activation::LeakyRelu(slope) => Self::LeakyRelu(f64::from(*slope)),
            Activation::Sigmoid => Self::Sigmoid,
            Activation::Clip { min, max } => Self::Clip { min: *min, max: *max },
            Activation::HardSigmoid { alpha, beta } => {
                Self::HardSigmoid { alpha: f64::from(*alpha), beta: f64::from(*beta) }
            }
            Activation::HardSwish => Self::HardSwish,
            Activation::Tanh => Self::Tanh,
            Activation::Exp => Self::Exp,
            Activation::Sqrt => Self::Sqrt,
            Activation::Abs => Self::Abs,
        })
    }

    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Relu => x.relu(),
            Self::PRelu(slopes) => x.relu()? + below_zero(x)?.broadcast_mul(slopes)?,
            Self::LeakyRelu(slope) => x.relu()? + (below_zero(x)? * *slope)?,
            Self::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
            // As in the ONNX standard, the upper limit wins if the limits cross.
            Self::Clip { min, max } => x.maximum(*min)?.minimum(*max),
            Self::HardSigmoid { alpha, beta } => hard_sigmoid(x, *alpha, *beta),
            Self::HardSwish => x * hard_sigmoid(x, 1.0 / 6.0, 0.5)?,
            Self::Tanh => x.tanh(),
            Self::Exp => x.exp(),
            Self::Sqrt => x.sqrt(),
            Self::Abs => x.abs(),
        }
    }
}

fn below_zero(x: &Tensor) -> Result<Tensor> {
    x.minimum(0_f32)
}

fn hard_sigmoid(x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor> {
    x.affine(alpha, beta)?.maximum(0_f32)?.minimum(1_f32)
}
