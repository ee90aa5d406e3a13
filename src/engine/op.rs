//! The operations of a graph.

use super::constant::Constant;

/// Every operation that the engine can compute. Axes count from 0, without the batch axis. An image
/// is `[channels, height, width]`; a pair is height and width.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// 2-D convolution of the first input. The second input, if there is one, is the residual.
    Conv(Conv),
    /// Matrix product along the last axis.
    Linear(Linear),
    /// `x × scale + shift`.
    Affine(Affine),
    /// A function of each element.
    Activation(Activation),
    /// A function of two values of equal rank. The values broadcast to each other.
    Binary(BinaryOp),
    /// The largest element of each window. Border elements are ignored.
    MaxPool(Window),
    /// The mean of each window.
    AveragePool(AveragePool),
    /// The mean of each channel, as `[channels, 1, 1]`.
    GlobalAveragePool,
    /// Resizes an image to the height and width of the output.
    Resize(ResizeMode),
    /// Adds a border.
    Pad {
        /// Border elements in front, per axis.
        before: Vec<usize>,
        /// Border elements after the value, per axis.
        after: Vec<usize>,
        /// Value of the border elements.
        value: f32,
    },
    Concat {
        axis: usize,
    },
    /// Selects every `step`th element from `start` on. The output's shape gives their number.
    Slice {
        axis: usize,
        /// Index of the first selected element.
        start: usize,
        /// At least 1.
        step: usize,
    },
    /// Axis `i` of the output is axis `perm[i]` of the input.
    Transpose {
        /// A permutation of the axes.
        perm: Vec<usize>,
    },
    /// Keeps the elements and their order, and gives them the output's shape.
    Reshape,
    /// Repeats elements along axes of size 1 until the value has the output's shape.
    Expand,
    /// Exponentials along an axis, divided by their sum.
    Softmax {
        axis: usize,
    },
    /// Reduces axes to size 1. The reduced axes stay in the shape.
    Reduce {
        reduction: Reduction,
        /// The reduced axes, ascending.
        axes: Vec<usize>,
    },
}

/// `activation(convolution(x) + bias + residual)`.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    /// `[out, in / groups, height, width]`, of the height and width of the window's kernel.
    pub weight: Constant,
    /// `[out]`.
    pub bias: Option<Constant>,
    /// Kernel size, strides and border widths.
    pub window: Window,
    /// Value of the border elements per input channel, `[in]`. `None` is a border of zeros.
    pub border_values: Option<Constant>,
    /// Distance between neighbouring taps of the kernel, in elements.
    pub dilations: [usize; 2],
    /// Number of channel groups. An output channel reads only the input channels of its group.
    pub groups: usize,
    /// The activation, applied last.
    pub activation: Option<Activation>,
}

impl Conv {
    /// Returns the number of output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.shape()[0]
    }

    /// Returns the number of input channels of one group.
    pub fn group_channels(&self) -> usize {
        self.weight.shape()[1]
    }

    /// Returns the number of taps of the kernel: its height times its width.
    pub fn taps(&self) -> usize {
        let [height, width] = self.window.kernel;
        height * width
    }

    /// Returns true if output channel `i` reads input channel `i` and no other.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.out_channels() && self.group_channels() == 1
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

impl Linear {
    /// Returns the length of the output vectors.
    pub fn out_len(&self) -> usize {
        self.weight.shape()[0]
    }

    /// Returns the length of the input vectors.
    pub fn in_len(&self) -> usize {
        self.weight.shape()[1]
    }
}

/// `x × scale + shift`. Both constants have the rank of `x` and broadcast to its shape.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub scale: Constant,
    pub shift: Constant,
}

/// A function of each element.
#[derive(Debug, Clone)]
pub(crate) enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` from 0 on, `slope × x` below. The slopes have the rank of `x` and broadcast to its
    /// shape.
    PRelu(Constant),
    /// `x` from 0 on, `slope × x` below. The slope is one number.
    LeakyRelu(f32),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(x, min), max)`.
    Clip {
        /// Lower limit of the result.
        min: f32,
        /// Upper limit of the result. It wins if the limits cross.
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
    Tanh,
    Exp,
    Sqrt,
    Abs,
}

/// A function of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
}

/// A window that slides over height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows, in elements.
    pub strides: [usize; 2],
    /// Border elements around the image: top, left, bottom, right.
    pub pads: [usize; 4],
}

/// The mean of each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AveragePool {
    /// The window. Its border elements are zeros.
    pub window: Window,
    /// True if border elements count in the divisor of the mean.
    pub count_include_pad: bool,
}

/// The interpolation of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResizeMode {
    /// Repeats each pixel a whole number of times.
    Nearest,
    /// Bilinear, with pixel centres at half-integer coordinates.
    Linear,
    /// Bilinear, with the corner pixels of input and output aligned.
    LinearAlignCorners,
}

/// The function that a reduction computes over its axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Mean,
    Sum,
    Max,
    /// The square root of the sum of squares.
    L2,
}

impl Op {
    /// Returns the kind of operation, for listings.
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

    /// Returns all constants of the operation.
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
    /// Returns the kind of function, for listings.
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
