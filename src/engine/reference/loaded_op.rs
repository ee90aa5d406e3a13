//! One operation with its constants on the device. Every tensor has a leading batch axis, so that
//! axis `i` of an item is axis `i + 1` here.

use candle_core::{D, Device, Module, Result, Tensor};
use candle_nn::Linear;
use candle_nn::ops::softmax;

use super::activation::LoadedActivation;
use super::conv::Convolution;
use super::pool::{AveragePooling, max_pool};
use crate::constant::Constant;
use crate::graph::{Graph, Node};
use crate::op::{BinaryOp, Op, Reduction, ResizeMode, Window};

pub(super) enum LoadedOp {
    Convolution(Box<Convolution>),
    Linear(Linear),
    Affine { scale: Tensor, shift: Tensor },
    Activation(LoadedActivation),
    Binary(BinaryOp),
    MaxPool(Window),
    AveragePool(AveragePooling),
    GlobalAveragePool,
    Resize { mode: ResizeMode, height: usize, width: usize },
    Pad { before: Vec<usize>, after: Vec<usize>, value: Tensor },
    Concat { axis: usize },
    Slice { axis: usize, indices: Tensor },
    Transpose { perm: Vec<usize> },
    Reshape { shape: Vec<usize> },
    Expand { shape: Vec<usize> },
    Softmax { axis: usize },
    Reduce { reduction: Reduction, axes: Vec<usize> },
}

impl LoadedOp {
    /// Uploads the constants of `node`.
    pub(super) fn load(graph: &Graph, node: &Node, device: &Device) -> Result<Self> {
        let shape = graph.shape(node.output).to_vec();
        Ok(match &node.op {
            Op::Conv(conv) => Self::Convolution(Box::new(Convolution::load(conv, device)?)),
            Op::Linear(linear) => {
                let bias = linear.bias.as_ref().map(|bias| upload(bias, device));
                Self::Linear(Linear::new(upload(&linear.weight, device)?, bias.transpose()?))
            }
            Op::Affine(affine) => Self::Affine {
                scale: upload(&affine.scale, device)?.unsqueeze(0)?,
                shift: upload(&affine.shift, device)?.unsqueeze(0)?,
            },
            Op::Activation(activation) => {
                Self::Activation(LoadedActivation::load(activation, device)?)
            }
            Op::Binary(op) => Self::Binary(*op),
            Op::MaxPool(window) => Self::MaxPool(*window),
            Op::AveragePool(pool) => {
                let image = graph.shape(node.inputs[0]);
                Self::AveragePool(AveragePooling::load(*pool, image, device)?)
            }
            Op::GlobalAveragePool => Self::GlobalAveragePool,
            Op::Resize(mode) => Self::Resize { mode: *mode, height: shape[1], width: shape[2] },
            Op::Pad { before, after, value } => {
                let value = Tensor::new(*value, device)?;
                Self::Pad { before: before.clone(), after: after.clone(), value }
            }
            Op::Concat { axis } => Self::Concat { axis: axis + 1 },
            Op::Slice { axis, start, step } => {
                let indices = (0..shape[*axis]).map(|i| (start + i * step) as u32);
                let indices = Tensor::from_iter(indices, device)?;
                Self::Slice { axis: axis + 1, indices }
            }
            Op::Transpose { perm } => Self::Transpose { perm: batched_perm(perm) },
            Op::Reshape => Self::Reshape { shape },
            Op::Expand => Self::Expand { shape },
            Op::Softmax { axis } => Self::Softmax { axis: axis + 1 },
            Op::Reduce { reduction, axes } => {
                let axes = axes.iter().map(|axis| axis + 1).collect();
                Self::Reduce { reduction: *reduction, axes }
            }
        })
    }

    /// Runs the operation on `inputs` of `[batch, item shape…]`.
    pub(super) fn run(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        match self {
            Self::Convolution(conv) => conv.run(x, inputs.get(1).copied()),
            Self::Linear(layer) => linear(x, layer),
            Self::Affine { scale, shift } => x.broadcast_mul(scale)?.broadcast_add(shift),
            Self::Activation(activation) => activation.run(x),
            Self::Binary(op) => binary(*op, x, inputs[1]),
            Self::MaxPool(window) => max_pool(x, window),
            Self::AveragePool(pool) => pool.run(x),
            Self::GlobalAveragePool => x.mean_keepdim((2, 3)),
            Self::Resize { mode, height, width } => resize(x, *mode, *height, *width),
            Self::Pad { before, after, value } => pad(x, before, after, value),
            Self::Concat { axis } => Tensor::cat(inputs, *axis),
            Self::Slice { axis, indices } => x.contiguous()?.index_select(indices, *axis),
            Self::Transpose { perm } => x.permute(perm.as_slice())?.contiguous(),
            Self::Reshape { shape } => x.reshape(batched_shape(x, shape)?),
            Self::Expand { shape } => x.broadcast_as(batched_shape(x, shape)?)?.contiguous(),
            Self::Softmax { axis } => softmax(x, *axis),
            Self::Reduce { reduction, axes } => reduce(x, *reduction, axes),
        }
    }
}

/// Uploads a constant with its own shape.
pub(super) fn upload(constant: &Constant, device: &Device) -> Result<Tensor> {
    Tensor::from_slice(constant.data(), constant.shape(), device)
}

/// Adds `before` and `after` elements around `x`, per axis of an item. `value` broadcasts to the
/// added elements; candle's own padding adds only zeros and copies of the edge.
pub(super) fn pad(x: &Tensor, before: &[usize], after: &[usize], value: &Tensor) -> Result<Tensor> {
    let mut padded = x.clone();
    for (item_axis, (&before, &after)) in before.iter().zip(after).enumerate() {
        let axis = item_axis + 1;
        let border = |size: usize| {
            let mut shape = padded.dims().to_vec();
            shape[axis] = size;
            value.broadcast_as(shape)?.contiguous()
        };
        padded = match (before, after) {
            (0, 0) => continue,
            (0, after) => Tensor::cat(&[&padded, &border(after)?], axis)?,
            (before, 0) => Tensor::cat(&[&border(before)?, &padded], axis)?,
            (before, after) => Tensor::cat(&[&border(before)?, &padded, &border(after)?], axis)?,
        };
    }
    Ok(padded)
}

fn batched_perm(perm: &[usize]) -> Vec<usize> {
    std::iter::once(0).chain(perm.iter().map(|axis| axis + 1)).collect()
}

fn batched_shape(x: &Tensor, item_shape: &[usize]) -> Result<Vec<usize>> {
    let batch = x.dim(0)?;
    Ok(std::iter::once(batch).chain(item_shape.iter().copied()).collect())
}

/// Runs the layer of candle-nn on a matrix: the layer refuses values of more than four axes.
fn linear(x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a batched value has axes") = layer.weight().dim(0)?;
    layer.forward(&x.reshape(((), x.dim(D::Minus1)?))?)?.reshape(shape)
}

fn binary(op: BinaryOp, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match op {
        BinaryOp::Add => a.broadcast_add(b),
        BinaryOp::Sub => a.broadcast_sub(b),
        BinaryOp::Mul => a.broadcast_mul(b),
        BinaryOp::Div => a.broadcast_div(b),
    }
}

fn resize(x: &Tensor, mode: ResizeMode, height: usize, width: usize) -> Result<Tensor> {
    let x = x.contiguous()?;
    match mode {
        ResizeMode::Nearest => x.upsample_nearest2d(height, width),
        ResizeMode::Linear => x.upsample_bilinear2d(height, width, false),
        ResizeMode::LinearAlignCorners => x.upsample_bilinear2d(height, width, true),
    }
}

fn reduce(x: &Tensor, reduction: Reduction, axes: &[usize]) -> Result<Tensor> {
    match reduction {
        Reduction::Mean => x.mean_keepdim(axes),
        Reduction::Sum => x.sum_keepdim(axes),
        Reduction::L2 => x.sqr()?.sum_keepdim(axes)?.sqrt(),
        Reduction::Max => axes.iter().try_fold(x.clone(), |x, &axis| x.max_keepdim(axis)),
    }
}
