//! The work of a plan's steps: each kind of work runs kernels on an [`OutputRegion`] of its output.

mod assemble;
mod band_chain;
mod convert;
mod depthwise;
mod direct;
mod elementwise;
mod fallback;
mod fully_connected;
mod planar;
mod pool;
mod product;
mod strips;
mod winograd;

use std::ops::Range;

use parking_lot::Mutex;

pub(super) use self::assemble::{Assemble, FillBorder, PlacedImage, Upsample};
pub(super) use self::band_chain::{BandChain, RollingImage, RowWindow, STAGES_MAX, Stage};
pub(super) use self::convert::{FlatActivation, FlatCopy, Pack, Unpack};
pub(super) use self::depthwise::Depthwise;
pub(super) use self::direct::Direct;
pub(super) use self::elementwise::{Elementwise, InPlaceActivation};
pub(super) use self::fallback::Fallback;
pub(super) use self::fully_connected::FullyConnected;
pub(super) use self::planar::Planar;
pub(super) use self::pool::{GlobalMean, Pool};
pub(super) use self::product::Product;
pub(super) use self::strips::Strips;
pub(super) use self::winograd::{ROW_UNIT as WINOGRAD_ROW_UNIT, Winograd};

use super::kernels::{Epilogue, KernelSet};
use super::lanes::LANES;
use super::layout::ImageLayout;
use super::memory::MappedMemory;
use crate::error::EngineError;

/// The code of one step, with its constants.
///
/// Callers pass regions inside the output, and buffers of the planned size. Every `unsafe` block of
/// the implementations relies on that.
pub(super) trait Work: Send + Sync {
    /// Returns the algorithm, for listings.
    fn algorithm(&self) -> &'static str;

    /// Computes a region of the output.
    ///
    /// # Safety
    /// The buffers of `run` are those of the plan that the work belongs to. No other code uses the
    /// region or writes what the work reads. `run.scratch` has [`Work::scratch_bytes`] bytes.
    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion);

    /// Returns the bytes of scratch for a region of `items` items.
    fn scratch_bytes(&self, _items: usize) -> usize {
        0
    }

    /// Returns the bytes of the packed weights, in whole pages. They are read once for each region.
    /// Biases, slopes and other numbers per channel do not count.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// Returns how often an item uses each weight. One use counts as the time that a register
    /// tile takes for it, so faster kernels return less.
    fn weight_uses(&self) -> usize {
        usize::MAX
    }

    /// Returns the rows that the step reads of its first input. Returns `None` unless the step
    /// computes rows separately and accepts an image stored in part by [`Work::update_layout`].
    fn row_window(&self) -> Option<RowWindow> {
        None
    }

    /// Replaces the layout of an image that the step reads or writes.
    fn update_layout(&mut self, _image: &ImageRef) {}

    /// Returns the stages of a chain, and nothing for other steps.
    fn stages(&self) -> &[Stage] {
        &[]
    }

    /// Returns the step itself if it fills a border.
    fn as_border(&self) -> Option<&FillBorder> {
        None
    }
}

/// The part of its output that a step computes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutputRegion {
    /// Items of the batch.
    pub(super) items: Range<usize>,
    /// Rows of the output image.
    pub(super) rows: Range<usize>,
    /// Groups of output channels.
    pub(super) groups: Range<usize>,
}

/// The address of a buffer: its first item, and the bytes from one item to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferPtr {
    pub(super) start: *mut u8,
    pub(super) item_stride: usize,
}

/// The first error of a run, kept until all threads have finished. Only steps of the reference can
/// fail.
#[derive(Default)]
pub(super) struct Failure(Mutex<Option<EngineError>>);

impl Failure {
    fn report(&self, error: EngineError) {
        self.0.lock().get_or_insert(error);
    }

    /// Returns the first error, if a step failed.
    pub(super) fn into_result(self) -> Result<(), EngineError> {
        self.0.into_inner().map_or(Ok(()), Err)
    }
}

/// The memory and kernels that a step runs with.
pub(super) struct RunContext<'a> {
    pub(super) kernels: &'static KernelSet,
    /// The address of each buffer of the plan.
    pub(super) buffer_ptrs: &'a [BufferPtr],
    pub(super) scratch: *mut u8,
    pub(super) failure: &'a Failure,
    /// Called after each stage of a chain, with the index of the stage.
    pub(super) stage_done: &'a dyn Fn(usize),
}

impl RunContext<'_> {
    /// Returns the address of an item of a buffer.
    ///
    /// # Safety
    /// The buffer has the item.
    #[inline(always)]
    unsafe fn item_ptr(&self, buffer: usize, item: usize) -> *mut u8 {
        let ptr = self.buffer_ptrs[buffer];
        // SAFETY: guaranteed by the caller.
        unsafe { ptr.start.add(item * ptr.item_stride) }
    }
}

/// A blocked image that a step reads or writes: its buffer, layout, and bytes per element.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageRef {
    pub(super) buffer: usize,
    pub(super) layout: ImageLayout,
    pub(super) element_bytes: usize,
}

impl ImageRef {
    /// Returns the address of pixel `[y - pads[0], x - pads[1]]` of a block.
    ///
    /// # Safety
    /// The buffer has the item, and the bordered image has the pixel.
    #[inline(always)]
    unsafe fn pixel_ptr(
        &self,
        run: &RunContext<'_>,
        item: usize,
        block: usize,
        [y, x]: [usize; 2],
        pads: [usize; 2],
    ) -> *mut u8 {
        debug_assert!(block < self.layout.blocks() && pads[0] <= y + self.layout.border[0]);
        debug_assert!(
            self.layout.pixel_offset(y, x, pads)
                < self.layout.bordered_height() * self.layout.row_stride()
        );
        let offset = block * self.layout.block_stride() + self.layout.pixel_offset(y, x, pads);
        // SAFETY: guaranteed by the caller. The first rows of a rolling image may have been
        // dropped; their addresses then lie outside of the memory.
        unsafe { run.item_ptr(self.buffer, item).wrapping_add(offset * self.element_bytes) }
    }

    /// Takes the layout of `image` if both refer to the same buffer.
    fn update_layout(&mut self, image: &Self) {
        if self.buffer == image.buffer {
            self.layout = image.layout;
        }
    }
}

/// An epilogue with its constants.
#[derive(Debug)]
pub(super) enum PackedEpilogue {
    Identity,
    PRelu(MappedMemory),
    Clip { min: f32, max: f32 },
}

impl PackedEpilogue {
    /// Returns the epilogue of the channels from `block` on.
    #[inline]
    fn at_block(&self, block: usize) -> Epilogue {
        match self {
            Self::Identity => Epilogue::Identity,
            Self::PRelu(slopes) => Epilogue::PRelu(block_ptr(slopes, block)),
            Self::Clip { min, max } => Epilogue::Clip { min: *min, max: *max },
        }
    }
}

/// Returns the sixteen numbers of a block in memory that holds numbers per channel.
#[inline]
fn block_ptr(memory: &MappedMemory, block: usize) -> *const f32 {
    debug_assert!((block + 1) * LANES * size_of::<f32>() <= memory.bytes());
    memory.start().cast_const().cast::<f32>().wrapping_add(block * LANES)
}
