//! The operations of a graph.

use super::constant::Constant;

/// Everything the engine can compute. Axes count from 0 and do not include the batch axis;
/// images are `[channels, height, width]`; pairs are height, width.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// 2-D convolution of one value; a second input is the residual.
    Conv(Conv),
    /// Matrix product along the last axis.
    Linear(Linear),
    /// `x × scale + shift`.
    Affine(Affine),
    /// A function of each element.
    Activation(Activation),
    /// A function of two values of one rank, which broadcast.
    Binary(BinaryOp),
    /// The largest element of each window; borders do not count.
    MaxPool(Window),
    /// The mean of each window.
    AveragePool(AveragePool),
    /// The mean of each channel: `[channels, 1, 1]`.
    GlobalAveragePool,
    /// Changes height and width to those of the output.
    Resize(ResizeMode),
    /// Adds a border.
    Pad {
        /// Elements in front, for each axis.
        before: Vec<usize>,
        /// Elements behind, for each axis.
        after: Vec<usize>,
        /// What the border holds.
        value: f32,
    },
    /// Joins values along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Takes every `step`th element from `start` on, as many as the output has.
    Slice {
        /// The axis.
        axis: usize,
        /// The first element taken.
        start: usize,
        /// At least 1.
        step: usize,
    },
    /// Axis `i` of the output is axis `perm[i]` of the input.
    Transpose {
        /// A permutation of the axes.
        perm: Vec<usize>,
    },
    /// The same elements in the same order under the output's shape.
    Reshape,
    /// Repeats along axes of size 1 until the output's shape is reached.
    Expand,
    /// Exponentials along an axis, divided by their sum.
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// Reduces axes to size 1, keeping them.
    Reduce {
        /// What is computed.
        reduction: Reduction,
        /// The axes, ascending.
        axes: Vec<usize>,
    },
}

/// `activation(convolution(x) + bias + residual)`.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    /// `[out, in / groups, height, width]`.
    pub weight: Constant,
    /// `[out]`.
    pub bias: Option<Constant>,
    /// Kernel, steps and borders.
    pub window: Window,
    /// What the border holds, per input channel `[in]`; `None` is zeros.
    pub border_values: Option<Constant>,
    /// Steps between the taps of the kernel.
    pub dilations: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl Conv {
    /// Output channels.
    pub fn channels(&self) -> usize {
        self.weight.shape()[0]
    }

    /// True when each output channel reads just the input channel of its number.
    pub fn is_depthwise(&self) -> bool {
        let [out, of_group, ..] = *self.weight.shape() else { return false };
        self.groups > 1 && self.groups == out && of_group == 1
    }
}

/// `x × weightᵀ + bias`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub weight: Constant,
    /// `[out]`.
    pub bias: Option<Constant>,
}

/// `x × scale + shift`; both constants have the value's rank and broadcast to its shape.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    /// The factor.
    pub scale: Constant,
    /// What is added after scaling.
    pub shift: Constant,
}

/// A function of each element.
#[derive(Debug, Clone)]
pub(crate) enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` or, below 0, `slope × x`; the slopes have the value's rank and broadcast to its shape.
    PRelu(Constant),
    /// `x` or, below 0, `slope × x`.
    LeakyRelu(f32),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(x, min), max)`.
    Clip {
        /// The least result.
        min: f32,
        /// The largest result.
        max: f32,
    },
    /// `min(max(alpha × x + beta, 0), 1)`.
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at 0.
        beta: f32,
    },
    /// `x × min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// The hyperbolic tangent.
    Tanh,
    /// The exponential.
    Exp,
    /// The square root.
    Sqrt,
    /// The absolute value.
    Abs,
}

/// A function of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a × b`.
    Mul,
    /// `a / b`.
    Div,
}

/// A window that slides over height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Its size.
    pub kernel: [usize; 2],
    /// Elements it moves at a time.
    pub strides: [usize; 2],
    /// Border around the image: top, left, bottom, right.
    pub pads: [usize; 4],
}

/// The mean of each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AveragePool {
    /// The window; its border is of zeros.
    pub window: Window,
    /// Whether the border counts as elements.
    pub count_include_pad: bool,
}

/// How an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResizeMode {
    /// Repeats each pixel a whole number of times.
    Nearest,
    /// Bilinear between pixel centres.
    Linear,
    /// Bilinear with the corner pixels kept in place.
    LinearAlignCorners,
}

/// What is left of the axes reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The mean.
    Mean,
    /// The sum.
    Sum,
    /// The largest element.
    Max,
    /// The square root of the sum of squares.
    L2,
}

impl Op {
    /// The kind of operation, for listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::Linear(_) => "Linear",
            Self::Affine(_) => "Affine",
            Self::Activation(activation) => activation.name(),
            Self::Binary(BinaryOp::Add) => "Add",
            Self::Binary(BinaryOp::Sub) => "Sub",
            Self::Binary(BinaryOp::Mul) => "Mul",
            Self::Binary(BinaryOp::Div) => "Div",
            Self::MaxPool(_) => "MaxPool",
            Self::AveragePool(_) => "AveragePool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::Resize(_) => "Resize",
            Self::Pad { .. } => "Pad",
            Self::Concat { .. } => "Concat",
            Self::Slice { .. } => "Slice",
            Self::Transpose { .. } => "Transpose",
            Self::Reshape => "Reshape",
            Self::Expand => "Expand",
            Self::Softmax { .. } => "Softmax",
            Self::Reduce { .. } => "Reduce",
        }
    }

    /// The constants it computes with.
    pub(super) fn constants(&self) -> Vec<&Constant> {
        match self {
            Self::Conv(conv) => {
                let slopes = conv.activation.as_ref().and_then(Activation::slopes);
                let optional = [conv.bias.as_ref(), conv.border_values.as_ref(), slopes];
                std::iter::once(&conv.weight).chain(optional.into_iter().flatten()).collect()
            }
            Self::Linear(linear) => {
                [Some(&linear.weight), linear.bias.as_ref()].into_iter().flatten().collect()
            }
            Self::Affine(affine) => vec![&affine.scale, &affine.shift],
            Self::Activation(activation) => activation.slopes().into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

impl Activation {
    /// The kind of function, for listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "Relu",
            Self::PRelu(_) => "PRelu",
            Self::LeakyRelu(_) => "LeakyRelu",
            Self::Sigmoid => "Sigmoid",
            Self::Clip { .. } => "Clip",
            Self::HardSigmoid { .. } => "HardSigmoid",
            Self::HardSwish => "HardSwish",
            Self::Tanh => "Tanh",
            Self::Exp => "Exp",
            Self::Sqrt => "Sqrt",
            Self::Abs => "Abs",
        }
    }

    fn slopes(&self) -> Option<&Constant> {
        match self {
            Self::PRelu(slopes) => Some(slopes),
            _ => None,
        }
    }
}
