//! Work that slides a window over images.

use super::Kernel;
use crate::cuda::arguments::{ResampleArguments, WindowArgument};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::plan::{LaunchContext, Work};
use crate::op::{ResizeMode, Window};

/// A window, and the sizes of the images it reads and writes.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct WindowPlan {
    /// Channels of the input image. For depthwise convolutions, channels of the output image.
    pub(in crate::cuda) channels: usize,
    /// Height and width of the input image.
    pub(in crate::cuda) input_size: [usize; 2],
    /// Height and width of the output image.
    pub(in crate::cuda) output_size: [usize; 2],
    pub(in crate::cuda) window: Window,
    pub(in crate::cuda) dilations: [usize; 2],
}

impl WindowPlan {
    /// `from` and `to` are the shapes of the input and the output, `[channels, height, width]`.
    pub(in crate::cuda) fn new(
        from: &[usize],
        to: &[usize],
        window: Window,
        dilations: [usize; 2],
    ) -> Self {
        let (input_size, output_size) = ([from[1], from[2]], [to[1], to[2]]);
        Self { channels: from[0], input_size, output_size, window, dilations }
    }

    /// Returns the output pixels of one item.
    pub(super) fn output_pixels(&self) -> usize {
        self.output_size[0] * self.output_size[1]
    }

    pub(super) fn output_len(&self) -> usize {
        self.output_pixels() * self.channels
    }

    pub(super) fn argument(&self) -> WindowArgument {
        let to_i32 = |pair: [usize; 2]| pair.map(|size| size as i32);
        let [height, width] = to_i32(self.input_size);
        let [out_height, out_width] = to_i32(self.output_size);
        let [top, left, ..] = self.window.pads;
        WindowArgument {
            channels: self.channels as u32,
            height,
            width,
            out_height,
            out_width,
            kernel: to_i32(self.window.kernel),
            strides: to_i32(self.window.strides),
            dilations: to_i32(self.dilations),
            top: top as i32,
            left: left as i32,
        }
    }
}

/// The function that computes an output pixel from the input pixels under a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum ResampleKind {
    MaxPool,
    /// Border pixels count as zeros.
    AveragePoolWithBorder,
    /// Border pixels do not count.
    AveragePoolInside,
    Resize(ResizeMode),
}

/// Pools or resizes an image.
pub(in crate::cuda) struct Resample {
    kernel: Kernel,
    window_plan: WindowPlan,
    kind: i32,
}

impl Resample {
    pub(in crate::cuda) fn new(
        kind: ResampleKind,
        window_plan: WindowPlan,
        element_type: ElementType,
    ) -> Self {
        let (kernel, number) = match kind {
            ResampleKind::MaxPool => ("pool", 0),
            ResampleKind::AveragePoolWithBorder => ("pool", 1),
            ResampleKind::AveragePoolInside => ("pool", 2),
            ResampleKind::Resize(ResizeMode::Nearest) => ("resize", 0),
            ResampleKind::Resize(ResizeMode::Linear) => ("resize", 1),
            ResampleKind::Resize(ResizeMode::LinearAlignCorners) => ("resize", 2),
        };
        let kernel = Kernel::packed(kernel, element_type, window_plan.channels);
        Self { kernel, window_plan, kind: number }
    }
}

impl Work for Resample {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.window_plan.output_len());
        let arguments = ResampleArguments {
            y: context.y,
            x: context.x[0],
            window: self.window_plan.argument(),
            kind: self.kind,
            count,
        };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }
}
