//! Chooses the kernel of each operation alone, before any operation is fused into another.

use super::GraphAnalysis;
use crate::cpu::kernels::pool::PoolKind;
use crate::cpu::lanes::LANES;
use crate::cpu::lower::epilogue::{ImageActivation, activation_kind};
use crate::cpu::lower::kernel_kind::{Convolution, ImageValue, KernelKind, MatrixProduct};
use crate::graph::{Node, ValueId};
use crate::op::{BinaryOp, Conv, Linear, Op, ResizeMode};

/// Most channels of an input that is read in the caller's layout.
const PLANAR_CHANNELS_MAX: usize = 4;

/// Winograd's algorithm divides the multiplications by four, but adds transforms. The transforms
/// grow with the channels, and the multiplications with the product of input and output channels.
/// With fewer channels than this on either side, the direct kernel is faster.
const WINOGRAD_CHANNELS_MIN: usize = 32;

impl<'g> GraphAnalysis<'g> {
    pub(super) fn kind_of(&self, node: &'g Node) -> KernelKind<'g> {
        self.image_kind(node).or_else(|| flat_kind(node)).unwrap_or(KernelKind::Fallback(node))
    }

    fn image(&self, id: ValueId) -> Option<ImageValue> {
        ImageValue::of(self.graph, id)
    }

    /// Returns the kind of an operation on blocked images, if it has a kernel.
    fn image_kind(&self, node: &'g Node) -> Option<KernelKind<'g>> {
        let (input, output) = (self.image(node.inputs[0])?, self.image(node.output)?);
        Some(match &node.op {
            Op::Conv(conv) => return self.convolution_kind(conv, node, input, output),
            Op::Linear(linear) => return self.linear_kind(linear, input, output),
            Op::Affine(affine) => KernelKind::Affine {
                input,
                scale: affine.scale.along(0, input.channels())?,
                shift: affine.shift.along(0, input.channels())?,
                output,
            },
            Op::Activation(activation) => {
                let activation = ImageActivation::of(activation, input.channels())?;
                KernelKind::Activation { activation, input, output }
            }
            Op::Binary(op) => return self.binary_kind(*op, node, input, output),
            Op::MaxPool(window) => {
                KernelKind::Pool { kind: PoolKind::Max, window: *window, input, output }
            }
            Op::AveragePool(pool) => {
                let kind = match pool.count_include_pad {
                    true => PoolKind::AverageWithBorder,
                    false => PoolKind::AverageInside,
                };
                KernelKind::Pool { kind, window: pool.window, input, output }
            }
            Op::GlobalAveragePool => KernelKind::GlobalMean { input, output },
            Op::Resize(ResizeMode::Nearest) => KernelKind::Upsample { input, output },
            Op::Pad { before, value, .. } => {
                let before = [0, 1, 2].map(|axis: usize| before.get(axis).copied().unwrap_or(0));
                KernelKind::Pad { before, value: *value, input, output }
            }
            Op::Concat { axis: 0 } => {
                let inputs: Option<Vec<_>> = node.inputs.iter().map(|&id| self.image(id)).collect();
                KernelKind::Concat { inputs: inputs?, output }
            }
            Op::Transpose { perm } if *perm == [1, 2, 0] => {
                KernelKind::ToChannelsLast { input, output: node.output }
            }
            Op::Transpose { perm } if *perm == [2, 0, 1] => {
                KernelKind::FromChannelsLast { input: node.inputs[0], output }
            }
            _ => return None,
        })
    }

    fn convolution_kind(
        &self,
        conv: &'g Conv,
        node: &'g Node,
        input: ImageValue,
        output: ImageValue,
    ) -> Option<KernelKind<'g>> {
        let activation = match &conv.activation {
            Some(activation) => Some(ImageActivation::of(activation, output.channels())?),
            None => None,
        };
        let residual = match node.inputs.get(1) {
            Some(&id) => Some(self.image(id)?),
            None => None,
        };
        let convolution = Convolution { conv, activation, input, residual, output };
        if conv.dilations != [1, 1] {
            return None;
        }
        if conv.is_depthwise() {
            return Some(KernelKind::Depthwise(convolution));
        }
        if conv.groups != 1 {
            return None;
        }
        let ([stride_y, stride_x], pads) = (conv.window.strides, conv.window.pads);
        let kernel = conv.window.kernel;
        if pads == [0; 4] && output.sides() == [1, 1] && kernel == input.sides() {
            return Some(KernelKind::FullyConnected(product_of(convolution)));
        }
        if stride_y != stride_x || stride_y > 2 {
            return None;
        }
        let is_narrow = residual.is_none() && input.channels() <= PLANAR_CHANNELS_MAX;
        if is_narrow && input.id == self.graph.input_id() {
            return Some(KernelKind::Planar { convolution, channels_last: false });
        }
        if is_narrow && self.is_transposed_input(input.id) {
            return Some(KernelKind::Planar { convolution, channels_last: true });
        }
        let is_winograd = kernel == [3, 3]
            && stride_y == 1
            && pads == [1; 4]
            && input.channels().min(output.channels()) >= WINOGRAD_CHANNELS_MIN
            && output.sides().iter().product::<usize>() >= self.winograd_pixels_min;
        Some(match is_winograd {
            true => KernelKind::Winograd(convolution),
            false => KernelKind::Direct(convolution),
        })
    }

    /// Returns whether `value` is the network's input with its channels moved to the front.
    fn is_transposed_input(&self, value: ValueId) -> bool {
        self.producer(value).is_some_and(|node| {
            matches!(&node.op, Op::Transpose { perm } if *perm == [2, 0, 1])
                && node.inputs[0] == self.graph.input_id()
        })
    }

    fn linear_kind(
        &self,
        linear: &'g Linear,
        input: ImageValue,
        output: ImageValue,
    ) -> Option<KernelKind<'g>> {
        if self.graph.shape(input.id).len() != 1 {
            return None;
        }
        Some(KernelKind::FullyConnected(MatrixProduct {
            weight: &linear.weight,
            bias: linear.bias.as_ref(),
            activation: None,
            input: self.flattened_image(input.id).unwrap_or(input),
            residual: None,
            output,
        }))
    }

    /// Returns the image whose flattened form `vector` is.
    fn flattened_image(&self, vector: ValueId) -> Option<ImageValue> {
        let node = self.producer(vector)?;
        let image = *node.inputs.first()?;
        let is_flattening = matches!(node.op, Op::Reshape) && self.graph.shape(image).len() == 3;
        if is_flattening { self.image(image) } else { None }
    }

    fn binary_kind(
        &self,
        op: BinaryOp,
        node: &Node,
        input: ImageValue,
        output: ImageValue,
    ) -> Option<KernelKind<'g>> {
        // Lanes beyond the last channel would be 0 / 0. Kernels that read channels in pairs
        // multiply one of these lanes by zero, which gives a NaN.
        if op == BinaryOp::Div && !input.channels().is_multiple_of(LANES) {
            return None;
        }
        let other = self.image(node.inputs[1])?;
        if other.shape == input.shape {
            return Some(KernelKind::Binary { op, operands: [input, other], output });
        }
        let is_scale = op == BinaryOp::Mul
            && other.shape == [input.channels(), 1, 1]
            && output.shape == input.shape;
        is_scale.then_some(KernelKind::ChannelScale { image: input, scale: other, output })
    }
}

/// Returns the kind of an operation on flat values, if it has a kernel.
fn flat_kind<'g>(node: &Node) -> Option<KernelKind<'g>> {
    let (input, output) = (node.inputs[0], node.output);
    match &node.op {
        Op::Reshape => Some(KernelKind::Reshape { input, output }),
        Op::Activation(activation) => {
            let kind = activation_kind(activation)?;
            Some(KernelKind::FlatActivation { kind, input, output })
        }
        _ => None,
    }
}

/// Returns a convolution whose kernel covers the whole input as a matrix product.
fn product_of(convolution: Convolution<'_>) -> MatrixProduct<'_> {
    let Convolution { conv, activation, input, residual, output } = convolution;
    let bias = conv.bias.as_ref();
    MatrixProduct { weight: &conv.weight, bias, activation, input, residual, output }
}
