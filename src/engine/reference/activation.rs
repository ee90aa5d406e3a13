//! Functions of each element: the layers of candle-nn, and functions of candle's tensors where
//! candle-nn has no layer.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::PReLU;

use super::loaded_op::upload;
use crate::op::Activation;

/// An activation whose slopes are on the device.
pub(super) enum LoadedActivation {
    Layer(candle_nn::Activation),
    /// The slopes have the rank of an item and broadcast to its shape.
    PRelu(Tensor),
    Clip {
        min: f32,
        max: f32,
    },
    HardSigmoid {
        alpha: f64,
        beta: f64,
    },
    Function(fn(&Tensor) -> Result<Tensor>),
}

impl LoadedActivation {
    pub(super) fn load(activation: &Activation, device: &Device) -> Result<Self> {
        Ok(match *activation {
            Activation::Relu => Self::Layer(candle_nn::Activation::Relu),
            Activation::PRelu(ref slopes) => Self::PRelu(upload(slopes, device)?),
            Activation::LeakyRelu(slope) => {
                Self::Layer(candle_nn::Activation::LeakyRelu(f64::from(slope)))
            }
            Activation::Sigmoid => Self::Layer(candle_nn::Activation::Sigmoid),
            Activation::Clip { min, max } => Self::Clip { min, max },
            // The layer of candle-nn has these two numbers, PyTorch's, and no others.
            Activation::HardSigmoid { alpha, beta } if [alpha, beta] == [1.0 / 6.0, 0.5] => {
                Self::Layer(candle_nn::Activation::HardSigmoid)
            }
            Activation::HardSigmoid { alpha, beta } => {
                Self::HardSigmoid { alpha: f64::from(alpha), beta: f64::from(beta) }
            }
            Activation::HardSwish => Self::Layer(candle_nn::Activation::HardSwish),
            Activation::Tanh => Self::Function(Tensor::tanh),
            Activation::Exp => Self::Function(Tensor::exp),
            Activation::Sqrt => Self::Function(Tensor::sqrt),
            Activation::Abs => Self::Function(Tensor::abs),
        })
    }

    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(layer) => layer.forward(x),
            Self::PRelu(slopes) => prelu(x, slopes),
            // As in the ONNX standard, the upper limit wins if the limits cross.
            Self::Clip { min, max } => x.clamp(*min, *max),
            Self::HardSigmoid { alpha, beta } => x.affine(*alpha, *beta)?.clamp(0_f32, 1_f32),
            Self::Function(function) => function(x),
        }
    }
}

/// Runs the layer of candle-nn on items of one axis. The layer has one slope for each index of the
/// first axis of an item, while ONNX's slopes may vary along any axis.
fn prelu(x: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    let slopes = slopes.broadcast_as(&x.dims()[1..])?.flatten_all()?;
    let items = x.reshape((x.dim(0)?, slopes.elem_count()))?;
    PReLU::new(slopes, false).forward(&items)?.reshape(x.shape())
}
