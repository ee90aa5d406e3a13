//! The kernels that operations can get. Each kind holds what lowering needs to know about the
//! operation.

use std::ops::Range;

use super::epilogue::ImageActivation;
use crate::constant::Constant;
use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::kernels::pool::PoolKind;
use crate::graph::{Graph, Node, ValueId};
use crate::op::{BinaryOp, Conv, Window};

/// A value that can be stored as a blocked image.
#[derive(Clone, Copy)]
pub(super) struct ImageValue {
    pub(super) id: ValueId,
    /// Channels, height, width. A vector is an image of one pixel.
    pub(super) shape: [usize; 3],
}

impl ImageValue {
    /// Returns `None` if the value is neither a vector nor an image.
    pub(super) fn of(graph: &Graph, id: ValueId) -> Option<Self> {
        let shape = match *graph.shape(id) {
            [channels] => [channels, 1, 1],
            [channels, height, width] => [channels, height, width],
            _ => return None,
        };
        Some(Self { id, shape })
    }

    pub(super) fn channels(&self) -> usize {
        self.shape[0]
    }

    /// Height and width.
    pub(super) fn sides(&self) -> [usize; 2] {
        let [_, height, width] = self.shape;
        [height, width]
    }
}

/// The kernel of an operation.
pub(super) enum KernelKind<'g> {
    /// A convolution that reads the network's input in the caller's layout. In the graph it reads
    /// that input, or the input's transpose if the caller's channels are last.
    Planar {
        convolution: Convolution<'g>,
        channels_last: bool,
    },
    /// A convolution of one group that is computed tap by tap.
    Direct(Convolution<'g>),
    /// A 3×3 convolution that is computed by Winograd's algorithm.
    Winograd(Convolution<'g>),
    /// A convolution of each channel with a kernel of its own.
    Depthwise(Convolution<'g>),
    /// A convolution or matrix product whose output has one pixel.
    FullyConnected(MatrixProduct<'g>),
    /// Scale and shift have one number per channel.
    Affine {
        input: ImageValue,
        scale: Vec<f32>,
        shift: Vec<f32>,
        output: ImageValue,
    },
    Activation {
        activation: ImageActivation,
        input: ImageValue,
        output: ImageValue,
    },
    /// A function of two images of one shape.
    Binary {
        op: BinaryOp,
        operands: [ImageValue; 2],
        output: ImageValue,
    },
    /// An image times one number per channel.
    ChannelScale {
        image: ImageValue,
        scale: ImageValue,
        output: ImageValue,
    },
    /// A sum of two images, one of which the sum computes itself.
    Sum {
        addend: ImageValue,
        fused: FusedTerm,
        output: ImageValue,
    },
    Pool {
        kind: PoolKind,
        window: Window,
        input: ImageValue,
        output: ImageValue,
    },
    GlobalMean {
        input: ImageValue,
        output: ImageValue,
    },
    Upsample {
        input: ImageValue,
        output: ImageValue,
    },
    Pad {
        /// Border elements in front: channels, rows, columns.
        before: [usize; 3],
        /// Value of the border elements.
        value: f32,
        input: ImageValue,
        output: ImageValue,
    },
    /// Concatenates channels.
    Concat {
        inputs: Vec<ImageValue>,
        output: ImageValue,
    },
    /// Transposes to `[height, width, channels]`.
    ToChannelsLast {
        input: ImageValue,
        output: ValueId,
    },
    /// Transposes from `[height, width, channels]`.
    FromChannelsLast {
        input: ValueId,
        output: ImageValue,
    },
    /// The same elements under another shape.
    Reshape {
        input: ValueId,
        output: ValueId,
    },
    /// Some channels of an image, which no kernel reads as an image.
    ChannelSlice {
        image: ImageValue,
        channels: Range<usize>,
        output: ValueId,
    },
    FlatActivation {
        kind: ActivationKind,
        input: ValueId,
        output: ValueId,
    },
    /// Computed by the operations that read it.
    Fused,
    /// An operation without a kernel.
    Fallback(&'g Node),
}

/// A convolution that has a kernel, with the image that it reads.
pub(super) struct Convolution<'g> {
    pub(super) conv: &'g Conv,
    pub(super) activation: Option<ImageActivation>,
    pub(super) input: ImageValue,
    pub(super) residual: Option<ImageValue>,
    pub(super) output: ImageValue,
}

/// A product with all elements of an image.
pub(super) struct MatrixProduct<'g> {
    /// `[out, in…]`.
    pub(super) weight: &'g Constant,
    /// `[out]`.
    pub(super) bias: Option<&'g Constant>,
    pub(super) activation: Option<ImageActivation>,
    /// The image itself, where the operation reads the flattened image.
    pub(super) input: ImageValue,
    pub(super) residual: Option<ImageValue>,
    pub(super) output: ImageValue,
}

/// The term of a sum that the sum computes itself.
#[derive(Clone, Copy)]
pub(super) enum FusedTerm {
    /// An image times one number per channel.
    Scaled { image: ImageValue, scale: ImageValue },
    /// An image whose pixels are repeated up to the size of the sum.
    Upsampled(ImageValue),
}

impl KernelKind<'_> {
    /// Returns whether the operation reads its inputs as blocked images.
    pub(super) fn reads_images(&self) -> bool {
        match self {
            Self::Direct(_)
            | Self::Winograd(_)
            | Self::Depthwise(_)
            | Self::FullyConnected(_)
            | Self::Affine { .. }
            | Self::Activation { .. }
            | Self::Binary { .. }
            | Self::ChannelScale { .. }
            | Self::Sum { .. }
            | Self::Pool { .. }
            | Self::GlobalMean { .. }
            | Self::Upsample { .. }
            | Self::Pad { .. }
            | Self::Concat { .. } => true,
            Self::Planar { .. }
            | Self::ToChannelsLast { .. }
            | Self::FromChannelsLast { .. }
            | Self::Reshape { .. }
            | Self::ChannelSlice { .. }
            | Self::FlatActivation { .. }
            | Self::Fused
            | Self::Fallback(_) => false,
        }
    }

    /// Returns whether the operation writes a blocked image, whatever reads it.
    pub(super) fn writes_image(&self) -> bool {
        self.reads_images() || matches!(self, Self::Planar { .. } | Self::FromChannelsLast { .. })
    }

    /// Returns whether the operation is a matrix product of blocked images.
    pub(super) fn is_product(&self) -> bool {
        matches!(self, Self::Direct(_) | Self::Winograd(_) | Self::FullyConnected(_))
    }
}
