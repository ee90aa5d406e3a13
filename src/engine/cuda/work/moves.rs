//! Work that only moves elements or fills memory.

use super::{Kernel, WindowPlan};
use crate::cuda::arguments::{Address, BorderArguments, CopyArguments, FillArguments};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::layout::StridedPair;
use crate::cuda::plan::{ConstantOffset, LaunchContext, Work};

/// Copies between two strided arrays: transposes, concatenates, slices and repeats.
pub(in crate::cuda) struct Copy {
    kernel: Kernel,
    pair: StridedPair,
    /// Byte offset of the first element read, and of the first element written.
    starts: [Address; 2],
}

impl Copy {
    /// `starts` are the same offsets in elements.
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
        let axes = self.pair.argument(context.items as u32);
        let (x, y) = (context.x[0] + self.starts[0], context.y + self.starts[1]);
        context.gpu.launch(&self.kernel.name, count, &CopyArguments { y, x, axes, count })
    }
}

/// Fills a value with one number.
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
        let arguments = FillArguments { y: context.y, value: self.value, count };
        context.gpu.launch(&self.kernel.name, count, &arguments)
    }
}

/// Adds a border to an image.
pub(in crate::cuda) struct Border {
    kernel: Kernel,
    window_plan: WindowPlan,
    border_values: Option<ConstantOffset>,
    value: f32,
}

impl Border {
    /// The border holds `border_values`, one for each channel, or `value` if there are none.
    pub(in crate::cuda) fn new(
        window_plan: WindowPlan,
        border_values: Option<ConstantOffset>,
        value: f32,
        element_type: ElementType,
    ) -> Self {
        let kernel = Kernel::packed("border", element_type, window_plan.channels);
        Self { kernel, window_plan, border_values, value }
    }

    pub(super) fn enqueue_at(
        &self,
        context: &LaunchContext<'_>,
        x: Address,
        y: Address,
    ) -> Result<(), GpuError> {
        let count = context.count(self.window_plan.output_len());
        let border_values = context.optional_constant(self.border_values);
        let (window, value) = (self.window_plan.argument(), self.value);
        let arguments = BorderArguments { y, x, border_values, window, value, count };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }

    /// Returns the elements of one item, which is an image with its border.
    pub(super) fn len(&self) -> usize {
        self.window_plan.output_len()
    }
}

impl Work for Border {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        self.enqueue_at(context, context.x[0], context.y)
    }
}
