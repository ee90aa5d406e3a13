//! Windows that slide over images.

use super::Kernel;
use crate::cuda::arguments;
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::plan::{LaunchContext, Work};
use crate::op::{ResizeMode, Window};

/// A window, and the images it reads and writes.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct WindowPlan {
    /// Of the image read; of the one written where a kernel says so.
    pub(in crate::cuda) channels: usize,
    /// Height and width.
    pub(in crate::cuda) from: [usize; 2],
    pub(in crate::cuda) to: [usize; 2],
    pub(in crate::cuda) window: Window,
    pub(in crate::cuda) dilations: [usize; 2],
}

impl WindowPlan {
    /// Between images of the shapes `[channels, height, width]`.
    pub(in crate::cuda) fn new(
        from: &[usize],
        to: &[usize],
        window: Window,
        dilations: [usize; 2],
    ) -> Self {
        Self { channels: from[0], from: [from[1], from[2]], to: [to[1], to[2]], window, dilations }
    }

    /// Pixels of one row of the output.
    pub(super) fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }

    pub(super) fn output_len(&self) -> usize {
        self.pixels() * self.channels
    }

    pub(super) fn argument(&self) -> arguments::Window {
        let pair = |pair: [usize; 2]| pair.map(|size| size as i32);
        let ([height, width], [out_height, out_width]) = (pair(self.from), pair(self.to));
        let [top, left, ..] = self.window.pads;
        arguments::Window {
            channels: self.channels as u32,
            height,
            width,
            out_height,
            out_width,
            kernel: pair(self.window.kernel),
            strides: pair(self.window.strides),
            dilations: pair(self.dilations),
            top: top as i32,
            left: left as i32,
        }
    }
}

/// What becomes of the pixels under a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum Sampling {
    Largest,
    /// The border counts as zeros.
    Mean,
    /// The border does not count.
    MeanOfInside,
    Resize(ResizeMode),
}

/// A pool or a resized image.
pub(in crate::cuda) struct Sample {
    kernel: Kernel,
    window: WindowPlan,
    kind: i32,
}

impl Sample {
    pub(in crate::cuda) fn new(
        sampling: Sampling,
        window: WindowPlan,
        element_type: ElementType,
    ) -> Self {
        let (kernel, kind) = match sampling {
            Sampling::Largest => ("pool", 0),
            Sampling::Mean => ("pool", 1),
            Sampling::MeanOfInside => ("pool", 2),
            Sampling::Resize(ResizeMode::Nearest) => ("resize", 0),
            Sampling::Resize(ResizeMode::Linear) => ("resize", 1),
            Sampling::Resize(ResizeMode::LinearAlignCorners) => ("resize", 2),
        };
        Self { kernel: Kernel::packed(kernel, element_type, window.channels), window, kind }
    }
}

impl Work for Sample {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.window.output_len());
        let (x, y, window) = (context.x[0], context.y, self.window.argument());
        let arguments = arguments::Sampled { y, x, window, kind: self.kind, count };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }
}
