//! The parts of a plan: buffers, steps, and the buffers that each step reads and writes.

use super::kernels::KernelSet;
use super::layout::ImageLayout;
use super::work::Work;

/// A network lowered to kernels. A plan holds all constants and no activations, so any number of
/// runners can share it.
pub(super) struct Plan {
    pub(super) kernels: &'static KernelSet,
    pub(super) buffers: Vec<ValueBuffer>,
    pub(super) steps: Vec<Step>,
    /// Elements of the input, per item.
    pub(super) input_len: usize,
    /// Elements of each output, per item.
    pub(super) output_lens: Vec<usize>,
}

/// Memory of a value of the graph in one layout. One step writes it, and later steps read it.
#[derive(Debug, Clone)]
pub(super) struct ValueBuffer {
    pub(super) layout: ValueLayout,
    pub(super) owner: Owner,
}

/// The layout of a value in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ValueLayout {
    Image {
        layout: ImageLayout,
        element_bytes: usize,
        /// Whether every run writes the border. That is necessary if the border is not zero, or if
        /// the image shares memory with buffers of other layouts. Otherwise the border holds zeros
        /// from the start.
        rewrites_border: bool,
    },
    /// The elements in the order of the value's shape, in `f32`.
    Flat { len: usize },
}

impl ValueLayout {
    /// Returns whether the buffer may lie in memory that held something else. This holds if its
    /// step writes every element that is read, including the border.
    pub(super) fn can_share(&self) -> bool {
        match self {
            Self::Image { layout, rewrites_border, .. } => {
                *rewrites_border || layout.border == [0; 4]
            }
            Self::Flat { .. } => true,
        }
    }

    /// Bytes for one item.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Image { layout, element_bytes, .. } => layout.elements() * element_bytes,
            Self::Flat { len } => len * size_of::<f32>(),
        }
    }
}

/// The owner of a buffer's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The caller's input.
    Input,
    /// One of the caller's outputs, by index.
    Output(usize),
    /// The executor's arena.
    Arena,
}

/// One run of a kernel, with the indices of the buffers it reads and writes.
pub(super) struct Step {
    pub(super) label: String,
    pub(super) work: Box<dyn Work>,
    pub(super) reads: Vec<usize>,
    pub(super) writes: usize,
    /// Rows of the output. They are computed in multiples of `row_unit`.
    pub(super) rows: usize,
    pub(super) row_unit: usize,
    /// Groups of output channels that can be computed separately. They follow from the sizes of
    /// tiles and blocks, and are not the groups of a grouped convolution.
    pub(super) groups: usize,
    /// Multiply-accumulate operations (MACs) for one item, counted as for a direct convolution.
    pub(super) macs: u64,
}

/// A step, or a stage of a chain, that is timed on its own.
pub(super) struct TimedPart<'a> {
    pub(super) label: &'a str,
    pub(super) work: &'a dyn Work,
    pub(super) macs: u64,
}

impl Step {
    /// Returns the stages of a chain, or the step itself if it is no chain.
    pub(super) fn timed_parts(&self) -> Vec<TimedPart<'_>> {
        match self.work.stages() {
            [] => vec![TimedPart { label: &self.label, work: &*self.work, macs: self.macs }],
            stages => stages
                .iter()
                .map(|stage| TimedPart {
                    label: &stage.label,
                    work: &*stage.work,
                    macs: stage.macs,
                })
                .collect(),
        }
    }
}

impl Plan {
    /// Bytes of all packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.work.weight_bytes()).sum()
    }

    /// Returns the rows of an image, or 1 for a flat buffer.
    pub(super) fn height(&self, buffer: usize) -> usize {
        match &self.buffers[buffer].layout {
            ValueLayout::Image { layout, .. } => layout.height,
            ValueLayout::Flat { .. } => 1,
        }
    }
}
