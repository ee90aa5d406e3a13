//! A lowered network: steps, what they read and write, and where it lies.

use super::arguments::Address;
use super::element_type::ElementType;
use super::gpu::{Gpu, GpuError};
use super::layout::StridedPair;

/// Bytes that every value and constant is aligned to: what the widest memory access needs.
const ALIGNMENT: usize = 256;

/// A constant's place in [`Constants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(usize);

impl At {
    /// Its address, when the constants lie at `base`.
    pub(super) fn address(self, base: Address) -> Address {
        base + self.0 as Address
    }
}

/// All constants of a network, as they are uploaded.
#[derive(Debug, Default)]
pub(super) struct Constants {
    pub(super) bytes: Vec<u8>,
}

impl Constants {
    pub(super) fn floats(&mut self, numbers: &[f32]) -> At {
        self.push(numbers.iter().flat_map(|number| number.to_ne_bytes()))
    }

    /// In the precision of the values.
    pub(super) fn values(&mut self, numbers: &[f32], element_type: ElementType) -> At {
        match element_type {
            ElementType::F16 => {
                let halves = numbers.iter().map(|number| half::f16::from_f32(*number));
                self.push(halves.flat_map(half::f16::to_ne_bytes))
            }
            ElementType::F32 => self.floats(numbers),
        }
    }

    fn push(&mut self, bytes: impl Iterator<Item = u8>) -> At {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let at = At(self.bytes.len());
        self.bytes.extend(bytes);
        at
    }
}

/// Where a step runs: what it was given, for a batch of `batch` rows.
pub(super) struct Site<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) batch: usize,
    pub(super) constants: Address,
    /// What it reads, in its own order.
    pub(super) x: Vec<Address>,
    pub(super) y: Address,
    /// As many bytes as [`Work::workspace_bytes`] says.
    pub(super) workspace: Address,
}

impl Site<'_> {
    /// The address of a constant; null for none.
    pub(super) fn constant(&self, at: Option<At>) -> Address {
        at.map_or(0, |at| at.address(self.constants))
    }

    /// `len` elements of each row.
    pub(super) fn count(&self, len: usize) -> u32 {
        (self.batch * len) as u32
    }
}

/// What a step does.
pub(super) trait Work: Send + Sync {
    /// Enqueues it on the GPU's stream.
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError>;

    /// Scratch memory for a batch; whatever is chosen for the batch is chosen here.
    fn workspace_bytes(&self, _gpu: &Gpu, _batch: usize) -> Result<usize, GpuError> {
        Ok(0)
    }
}

/// A value's memory: rows of `len` elements, one after another.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) len: usize,
    /// The steps between which it holds something: it is written in the first and last read in the
    /// last.
    pub(super) alive: [usize; 2],
}

/// An operation with its place in the network.
pub(super) struct Step {
    pub(super) work: Box<dyn Work>,
    pub(super) reads: Vec<usize>,
    pub(super) writes: usize,
}

/// A network for one precision, before it is on any GPU.
pub(super) struct Plan {
    pub(super) element_type: ElementType,
    pub(super) constants: Constants,
    pub(super) storages: Vec<Storage>,
    pub(super) steps: Vec<Step>,
    /// The storage of the input, and how the rows of the graph's input become it.
    pub(super) input: Port,
    /// The storages of the outputs.
    pub(super) outputs: Vec<Port>,
}

/// A value at the edge of the network.
pub(super) struct Port {
    pub(super) storage: usize,
    /// From rows in plain order to the storage, or back.
    pub(super) pair: StridedPair,
}

/// Where everything lies for one batch size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Per storage, from the start of the arena.
    pub(super) offsets: Vec<usize>,
    pub(super) bytes: usize,
}

impl Plan {
    /// Elements of one row of all outputs.
    pub(super) fn output_len(&self) -> usize {
        self.outputs.iter().map(|output| output.pair.len()).sum()
    }

    /// Puts storages that are never alive together at the same place, largest first.
    pub(super) fn places(&self, batch: usize) -> Places {
        let size = |storage: &Storage| {
            (storage.len * batch * self.element_type.bytes()).next_multiple_of(ALIGNMENT)
        };
        let mut order: Vec<usize> = (0..self.storages.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(size(&self.storages[index])));
        let mut placed: Vec<(usize, usize, [usize; 2])> = Vec::new();
        let mut offsets = vec![0; self.storages.len()];
        for index in order {
            let storage = &self.storages[index];
            let offset = lowest_gap(&placed, size(storage), storage.alive);
            offsets[index] = offset;
            placed.push((offset, offset + size(storage), storage.alive));
            placed.sort_unstable();
        }
        let bytes = placed.iter().map(|(_, end, _)| *end).max().unwrap_or(0);
        Places { offsets, bytes }
    }
}

/// The lowest place of `bytes` that nothing alive meanwhile lies in; `placed` is sorted.
fn lowest_gap(placed: &[(usize, usize, [usize; 2])], bytes: usize, alive: [usize; 2]) -> usize {
    let mut lowest = 0;
    for (start, end, other) in placed {
        let meet = other[0] <= alive[1] && alive[0] <= other[1];
        if meet && lowest + bytes > *start {
            lowest = lowest.max(*end);
        }
    }
    lowest
}
