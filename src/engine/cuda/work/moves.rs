//! Values that only move.

use super::{Kernel, WindowPlan};
use crate::cuda::arguments::{self, Address};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::layout::StridedPair;
use crate::cuda::plan::{ConstantOffset, LaunchContext, Work};

/// Transposes, joins, cuts and repeats.
pub(in crate::cuda) struct Copy {
    kernel: Kernel,
    pair: StridedPair,
    /// Bytes from the start of what is read, and of what is written.
    starts: [Address; 2],
}

impl Copy {
    /// `starts` are elements of the first row of each.
    pub(in crate::cuda) fn new(
        pair: StridedPair,
        starts: [usize; 2],
        element_type: ElementType,
    ) -> Self {
        let starts = starts.map(|start| (start * element_type.bytes()) as Address);
        Self { kernel: Kernel::single("copy", element_type), pair, starts }
    }
}

impl Work for Copy {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.pair.len());
        let axes = self.pair.argument(context.batch as u32);
        let (x, y) = (context.x[0] + self.starts[0], context.y + self.starts[1]);
        context.gpu.launch(&self.kernel.name, count, &arguments::Copy { y, x, axes, count })
    }
}

/// One number everywhere.
pub(in crate::cuda) struct Fill {
    kernel: Kernel,
    value: f32,
    len: usize,
}

impl Fill {
    pub(in crate::cuda) fn new(value: f32, len: usize, element_type: ElementType) -> Self {
        Self { kernel: Kernel::single("fill", element_type), value, len }
    }
}

impl Work for Fill {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.len);
        let arguments = arguments::Fill { y: context.y, value: self.value, count };
        context.gpu.launch(&self.kernel.name, count, &arguments)
    }
}

/// An image with a border around it.
pub(in crate::cuda) struct Border {
    kernel: Kernel,
    window: WindowPlan,
    border_values: Option<ConstantOffset>,
    value: f32,
}

impl Border {
    /// The border holds one number for each channel, or `value`.
    pub(in crate::cuda) fn new(
        window: WindowPlan,
        border_values: Option<ConstantOffset>,
        value: f32,
        element_type: ElementType,
    ) -> Self {
        let kernel = Kernel::packed("border", element_type, window.channels);
        Self { kernel, window, border_values, value }
    }

    pub(super) fn enqueue_at(
        &self,
        context: &LaunchContext<'_>,
        x: Address,
        y: Address,
    ) -> Result<(), GpuError> {
        let count = context.count(self.window.output_len());
        let border_values = context.optional_constant(self.border_values);
        let (window, value) = (self.window.argument(), self.value);
        let arguments = arguments::Border { y, x, border_values, window, value, count };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }

    /// Elements of one row of the image with its border.
    pub(super) fn len(&self) -> usize {
        self.window.output_len()
    }
}

impl Work for Border {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        self.enqueue_at(context, context.x[0], context.y)
    }
}
