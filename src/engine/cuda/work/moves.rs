//! Values that only move.

use super::{Kernel, WindowPlan};
use crate::cuda::arguments;
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::layout::StridedPair;
use crate::cuda::plan::{At, Site, Work};

/// Transposes, joins, cuts and repeats.
pub(in crate::cuda) struct Copy {
    kernel: Kernel,
    pair: StridedPair,
    /// Bytes from the start of what is read, and of what is written.
    starts: [u64; 2],
}

impl Copy {
    /// `starts` are elements of the first row of each.
    pub(in crate::cuda) fn new(
        pair: StridedPair,
        starts: [usize; 2],
        element_type: ElementType,
    ) -> Self {
        let starts = starts.map(|start| (start * element_type.bytes()) as u64);
        Self { kernel: Kernel::single("copy", element_type), pair, starts }
    }
}

impl Work for Copy {
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError> {
        let count = site.count(self.pair.len());
        let axes = self.pair.argument(site.batch as u32);
        let (x, y) = (site.x[0] + self.starts[0], site.y + self.starts[1]);
        site.gpu.launch(&self.kernel.name, count, &arguments::Copy { y, x, axes, count })
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
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError> {
        let count = site.count(self.len);
        let arguments = arguments::Fill { y: site.y, value: self.value, count };
        site.gpu.launch(&self.kernel.name, count, &arguments)
    }
}

/// An image with a border around it.
pub(in crate::cuda) struct Border {
    kernel: Kernel,
    window: WindowPlan,
    filling: Option<At>,
    value: f32,
}

impl Border {
    /// The border holds one number for each channel, or `value`.
    pub(in crate::cuda) fn new(
        window: WindowPlan,
        filling: Option<At>,
        value: f32,
        element_type: ElementType,
    ) -> Self {
        let kernel = Kernel::packed("border", element_type, window.channels);
        Self { kernel, window, filling, value }
    }

    pub(super) fn enqueue_at(&self, site: &Site<'_>, x: u64, y: u64) -> Result<(), GpuError> {
        let count = site.count(self.window.output_len());
        let (window, border) = (self.window.argument(), site.constant(self.filling));
        let arguments = arguments::Border { y, x, border, window, value: self.value, count };
        site.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }

    /// Elements of one row of the image with its border.
    pub(super) fn len(&self) -> usize {
        self.window.output_len()
    }
}

impl Work for Border {
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError> {
        self.enqueue_at(site, site.x[0], site.y)
    }
}
