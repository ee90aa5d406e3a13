//! The kernels that operations can get.

/// The kernel of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelKind {
    /// A convolution that reads the network's input in the caller's layout.
    Planar {
        channels_last: bool,
    },
    Dense,
    Winograd,
    Depthwise,
    /// A convolution or matrix product whose output has one pixel.
    FullyConnected,
    Affine,
    Activation,
    /// A function of two images of one shape.
    Binary,
    /// An image times one number per channel.
    ChannelScale,
    Pool,
    GlobalMean,
    Upsample,
    Pad,
    Concat,
    /// Transposes to `[height, width, channels]`.
    ToChannelsLast,
    /// Transposes from `[height, width, channels]`.
    FromChannelsLast,
    /// The same elements under another shape.
    Reshape,
    /// Some channels of an image, which no kernel reads as an image.
    ChannelSlice,
    FlatActivation,
    /// Computed by the operation that reads it.
    Fused,
    Fallback,
}

impl KernelKind {
    /// Returns whether the operation reads its inputs as blocked images.
    pub(super) fn reads_images(self) -> bool {
        match self {
            Self::Dense
            | Self::Winograd
            | Self::Depthwise
            | Self::FullyConnected
            | Self::Affine
            | Self::Activation
            | Self::Binary
            | Self::ChannelScale
            | Self::Pool
            | Self::GlobalMean
            | Self::Upsample
            | Self::Pad
            | Self::Concat => true,
            Self::Planar { .. }
            | Self::ToChannelsLast
            | Self::FromChannelsLast
            | Self::Reshape
            | Self::ChannelSlice
            | Self::Fused
            | Self::FlatActivation
            | Self::Fallback => false,
        }
    }

    /// Returns whether the operation writes a blocked image, whatever reads it.
    pub(super) fn writes_image(self) -> bool {
        self.reads_images() || matches!(self, Self::Planar { .. } | Self::FromChannelsLast)
    }
}
