//! A lowered network: its steps, the buffers they read and write, and the memory of those buffers.

use super::arguments::Address;
use super::element_type::ElementType;
use super::gpu::{Gpu, GpuError};
use super::layout::StridedPair;

/// Alignment of every buffer and constant in bytes: that of the driver's own allocations, and more
/// than the widest memory access needs.
const ALIGNMENT: usize = 256;

/// Offset of a constant in [`Constants`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConstantOffset(usize);

impl ConstantOffset {
    /// Returns the address of the constant if the constants begin at `base`.
    pub(super) fn address(self, base: Address) -> Address {
        base + self.0 as Address
    }
}

/// All constants of a network, in the form in which they are uploaded.
#[derive(Debug, Default)]
pub(super) struct Constants {
    pub(super) bytes: Vec<u8>,
}

impl Constants {
    pub(super) fn add_f32(&mut self, numbers: &[f32]) -> ConstantOffset {
        self.add_bytes(numbers.iter().flat_map(|number| number.to_ne_bytes()))
    }

    /// Adds numbers in the type in which values are stored.
    pub(super) fn add(&mut self, numbers: &[f32], element_type: ElementType) -> ConstantOffset {
        match element_type {
            ElementType::F16 => {
                let halves = numbers.iter().map(|number| half::f16::from_f32(*number));
                self.add_bytes(halves.flat_map(half::f16::to_ne_bytes))
            }
            ElementType::F32 => self.add_f32(numbers),
        }
    }

    fn add_bytes(&mut self, bytes: impl Iterator<Item = u8>) -> ConstantOffset {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let offset = ConstantOffset(self.bytes.len());
        self.bytes.extend(bytes);
        offset
    }
}

/// Addresses and sizes of one run of a step.
pub(super) struct LaunchContext<'a> {
    pub(super) gpu: &'a Gpu,
    /// Items of the batch.
    pub(super) items: usize,
    pub(super) constants: Address,
    /// Addresses of the inputs, in the order in which the step lists them.
    pub(super) x: Vec<Address>,
    pub(super) y: Address,
    /// Scratch memory of as many bytes as [`Work::prepare`] returns.
    pub(super) workspace: Address,
}

impl LaunchContext<'_> {
    pub(super) fn constant(&self, offset: ConstantOffset) -> Address {
        offset.address(self.constants)
    }

    /// Returns the address of a constant, or null for none.
    pub(super) fn optional_constant(&self, offset: Option<ConstantOffset>) -> Address {
        offset.map_or(0, |offset| self.constant(offset))
    }

    /// Returns the address of the second input, which is the residual, or null for none.
    pub(super) fn residual(&self) -> Address {
        self.x.get(1).copied().unwrap_or(0)
    }

    /// Returns the elements of the batch, which has `len` elements per item.
    pub(super) fn count(&self, len: usize) -> u32 {
        (self.items * len) as u32
    }
}

/// The computation of a step.
pub(super) trait Work: Send + Sync {
    /// Enqueues the step on the GPU's stream.
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError>;

    /// Chooses the algorithm for batches of this many items, and returns the bytes of scratch
    /// memory that the algorithm needs.
    fn prepare(&self, _gpu: &Gpu, _items: usize) -> Result<usize, GpuError> {
        Ok(0)
    }
}

/// Memory of a value: items of `len` elements, one after another.
#[derive(Debug, Clone)]
pub(super) struct ValueBuffer {
    pub(super) len: usize,
    /// The first step that writes the buffer and the last step that reads it, both included. Step 0
    /// is the input, and step `steps.len() + 1` the outputs.
    pub(super) live_range: [usize; 2],
}

/// One operation of the plan, with the indices of its buffers in [`Plan::buffers`].
pub(super) struct Step {
    pub(super) work: Box<dyn Work>,
    pub(super) reads: Vec<usize>,
    pub(super) writes: usize,
}

/// A network lowered for one precision, before it is uploaded to a GPU.
pub(super) struct Plan {
    pub(super) element_type: ElementType,
    pub(super) constants: Constants,
    pub(super) buffers: Vec<ValueBuffer>,
    pub(super) steps: Vec<Step>,
    pub(super) input: ExternalValue,
    pub(super) outputs: Vec<ExternalValue>,
}

/// The input or an output of the network.
pub(super) struct ExternalValue {
    /// Index in [`Plan::buffers`].
    pub(super) buffer: usize,
    /// For the input, from items in the flat layout to the buffer; for an output, the reverse.
    pub(super) pair: StridedPair,
}

/// The offsets of all buffers in the arena, for batches of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArenaLayout {
    /// Bytes from the start of the arena, per buffer.
    pub(super) offsets: Vec<usize>,
    pub(super) bytes: usize,
}

/// The bytes of one buffer in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ArenaRange {
    start: usize,
    end: usize,
    live_range: [usize; 2],
}

impl Plan {
    /// Returns the elements of one item of all outputs together.
    pub(super) fn output_len(&self) -> usize {
        self.outputs.iter().map(|output| output.pair.len()).sum()
    }

    /// Assigns an offset to each buffer, largest buffer first. Buffers may share bytes if their
    /// live ranges do not overlap.
    pub(super) fn arena_layout(&self, items: usize) -> ArenaLayout {
        let size = |buffer: &ValueBuffer| {
            (buffer.len * items * self.element_type.bytes()).next_multiple_of(ALIGNMENT)
        };
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(size(&self.buffers[index])));
        let mut placed: Vec<ArenaRange> = Vec::new();
        let mut offsets = vec![0; self.buffers.len()];
        for index in order {
            let buffer = &self.buffers[index];
            let live_range = buffer.live_range;
            let start = first_free_offset(&placed, size(buffer), live_range);
            offsets[index] = start;
            placed.push(ArenaRange { start, end: start + size(buffer), live_range });
            placed.sort_unstable();
        }
        let bytes = placed.iter().map(|range| range.end).max().unwrap_or(0);
        ArenaLayout { offsets, bytes }
    }
}

/// Returns the first offset where `bytes` are free over the live range. `placed` must be sorted.
fn first_free_offset(placed: &[ArenaRange], bytes: usize, live_range: [usize; 2]) -> usize {
    let [first, last] = live_range;
    let mut offset = 0;
    for range in placed {
        let overlaps = range.live_range[0] <= last && first <= range.live_range[1];
        if overlaps && offset + bytes > range.start {
            offset = offset.max(range.end);
        }
    }
    offset
}
