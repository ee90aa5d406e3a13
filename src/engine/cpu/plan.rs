//! What a plan is made of: values, steps, and what each step needs of those before it.

use super::kernels::KernelSet;
use super::layout::ImageLayout;
use super::work::Work;

/// A network lowered to kernels. It holds all constants and no activation, so that any number of
/// executors can share it.
pub(super) struct Plan {
    pub(super) kernels: &'static KernelSet,
    pub(super) values: Vec<Value>,
    pub(super) steps: Vec<Step>,
    /// Numbers of one row of the input.
    pub(super) input_len: usize,
    /// Numbers of one row of each output.
    pub(super) output_lens: Vec<usize>,
}

/// Something a step writes and later steps read.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) layout: ValueLayout,
    pub(super) owner: Owner,
}

/// How a value lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ValueLayout {
    Image {
        layout: ImageLayout,
        /// Bytes of one number.
        element_bytes: usize,
        /// Whether the border is written anew each time: because it is not zero, or because the
        /// memory is shared with values of other forms.
        has_own_border: bool,
    },
    /// As its shape says, in `f32`.
    Flat { len: usize },
}

impl ValueLayout {
    /// Whether the value can lie in memory that held something else: every number that is read
    /// was written by its step, borders included.
    pub(super) fn can_share(&self) -> bool {
        match self {
            Self::Image { layout, has_own_border, .. } => {
                *has_own_border || layout.border == [0; 4]
            }
            Self::Flat { .. } => true,
        }
    }

    /// Bytes for one row of the batch.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Image { layout, element_bytes, .. } => layout.elements() * element_bytes,
            Self::Flat { len } => len * size_of::<f32>(),
        }
    }
}

/// Whose memory holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The caller's input.
    Input,
    /// One of the caller's outputs.
    Output(usize),
    /// The executor's arena.
    Arena,
}

/// One kernel's run.
pub(super) struct Step {
    pub(super) label: String,
    pub(super) work: Box<dyn Work>,
    pub(super) reads: Vec<usize>,
    pub(super) writes: usize,
    /// Rows of the output, which is computed in multiples of `row_unit`.
    pub(super) rows: usize,
    pub(super) row_unit: usize,
    /// Groups of output channels that can be computed apart.
    pub(super) groups: usize,
    /// Multiply-adds for one row of the batch, as a direct convolution does them.
    pub(super) macs: u64,
}

/// A step, or a stage of a step, that is timed by itself.
pub(super) struct TimedPart<'a> {
    pub(super) label: &'a str,
    pub(super) work: &'a dyn Work,
    pub(super) macs: u64,
}

impl Step {
    /// What it is made of: itself, or its links. Label, code and multiply-adds of each.
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
    /// Bytes of all constants.
    pub(super) fn weight_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.work.weight_bytes()).sum()
    }

    /// Rows of an image, 1 of a flat value.
    pub(super) fn height(&self, value: usize) -> usize {
        match &self.values[value].layout {
            ValueLayout::Image { layout, .. } => layout.height,
            ValueLayout::Flat { .. } => 1,
        }
    }
}
