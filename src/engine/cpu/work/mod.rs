//! The steps of a plan: which kernel runs where. A step computes a [`OutputRegion`] of its output.

mod assemble;
mod band_chain;
mod convert;
mod dense;
mod depthwise;
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
pub(super) use self::dense::Dense;
pub(super) use self::depthwise::Depthwise;
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
use super::memory::Buffer;
use crate::error::EngineError;

/// One step's code with its constants.
///
/// Implementations are handed regions inside their output and values that are as large as they
/// were planned: that is what every `unsafe` block below stands on.
pub(super) trait Work: Send + Sync {
    /// How it is computed, for listings.
    fn algorithm(&self) -> &'static str;

    /// Computes a region of the output.
    ///
    /// # Safety
    /// The spots of `run` are those of the plan the work belongs to, nobody else touches the
    /// region or writes what it reads, and `run.scratch` has [`Work::scratch`] bytes.
    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion);

    /// Bytes of scratch for a region of `images`.
    fn scratch_bytes(&self, _items: usize) -> usize {
        0
    }

    /// Bytes of constants, which are read once for each region.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// How often one row of the batch uses each constant, in time that a register tile takes.
    fn weight_uses(&self) -> usize {
        usize::MAX
    }

    /// Which rows of its first input it reads, when it computes rows apart from each other and
    /// can be told by [`Work::store`] that an image is stored in part.
    fn row_window(&self) -> Option<RowWindow> {
        None
    }

    /// Takes an image's layout from now on.
    fn update_layout(&mut self, _image: &ImageRef) {}

    /// The steps it is made of, if of several.
    fn stages(&self) -> &[Stage] {
        &[]
    }

    /// The step itself when it fills a border.
    fn as_border(&self) -> Option<&FillBorder> {
        None
    }
}

/// What a step computes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutputRegion {
    /// Rows of the batch.
    pub(super) items: Range<usize>,
    /// Rows of the output image.
    pub(super) rows: Range<usize>,
    /// Groups of output channels.
    pub(super) groups: Range<usize>,
}

/// Where a value is: its first image, and bytes from one image to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferPtr {
    pub(super) start: *mut u8,
    pub(super) item_stride: usize,
}

/// The first failure of a run, kept until all threads have finished. Only steps of the reference
/// can fail.
#[derive(Default)]
pub(super) struct Failure(Mutex<Option<EngineError>>);

impl Failure {
    fn report(&self, error: EngineError) {
        self.0.lock().get_or_insert(error);
    }

    /// Whether all went well.
    pub(super) fn into_result(self) -> Result<(), EngineError> {
        self.0.into_inner().map_or(Ok(()), Err)
    }
}

/// What a step runs on.
pub(super) struct RunContext<'a> {
    pub(super) kernels: &'static KernelSet,
    pub(super) buffers: &'a [BufferPtr],
    pub(super) scratch: *mut u8,
    pub(super) failure: &'a Failure,
    /// Told when one of several links has run, by its number.
    pub(super) stage_done: &'a dyn Fn(usize),
}

impl RunContext<'_> {
    /// The first byte of an image of a value.
    ///
    /// # Safety
    /// The value has the image.
    unsafe fn item_ptr(&self, value: usize, item: usize) -> *mut u8 {
        let buffer = self.buffers[value];
        // SAFETY: what the caller promises.
        unsafe { buffer.start.add(item * buffer.item_stride) }
    }
}

/// A blocked image as a step sees it: which value, how it lies, and bytes of an element.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageRef {
    pub(super) value: usize,
    pub(super) layout: ImageLayout,
    pub(super) element_bytes: usize,
}

impl ImageRef {
    /// A pixel of a block, counted from the border's corner less `pads`.
    ///
    /// # Safety
    /// The value has the image, and the image the pixel.
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
        // SAFETY: what the caller promises. The first row of an image in bands may be gone, and
        // its place outside of the memory.
        unsafe { run.item_ptr(self.value, item).wrapping_add(offset * self.element_bytes) }
    }

    /// Takes over the layout of the same image.
    fn update_layout(&mut self, image: &Self) {
        if self.value == image.value {
            self.layout = image.layout;
        }
    }
}

/// What happens to sums, with its constants.
#[derive(Debug)]
pub(super) enum PackedEpilogue {
    Identity,
    PRelu(Buffer),
    Clip { min: f32, max: f32 },
}

impl PackedEpilogue {
    /// The finish of the channels from `block` on.
    fn at_block(&self, block: usize) -> Epilogue {
        match self {
            Self::Identity => Epilogue::Identity,
            Self::PRelu(slopes) => Epilogue::PRelu(block_ptr(slopes, block)),
            Self::Clip { min, max } => Epilogue::Clip { min: *min, max: *max },
        }
    }
}

/// The sixteen numbers of a block in a buffer of numbers per channel.
fn block_ptr(buffer: &Buffer, block: usize) -> *const f32 {
    debug_assert!((block + 1) * LANES * size_of::<f32>() <= buffer.bytes());
    buffer.start().cast_const().cast::<f32>().wrapping_add(block * LANES)
}
