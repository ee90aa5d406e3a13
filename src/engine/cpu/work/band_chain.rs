//! Runs several steps in bands of rows.
//!
//! A large image passes through the cache once for every step that writes or reads it. If only the
//! next step reads the image, a band of its rows is enough. All steps then compute one band after
//! another. The image between two steps is a few rows in the second-level cache that move down with
//! the bands.

use std::ops::Range;

use super::{BufferPtr, FillBorder, ImageRef, OutputRegion, RunContext, Work};
use crate::cpu::layout::ImageLayout;

/// The input rows of a step's output rows. Output row `y` reads `height` input rows from row `y ×
/// stride + offset` on, counted from the border's corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct RowWindow {
    pub(in crate::cpu) stride: usize,
    pub(in crate::cpu) height: usize,
    /// Negative if a window begins outside of the image and reads only the part inside.
    pub(in crate::cpu) offset: isize,
}

impl RowWindow {
    /// Returns the input rows of some output rows, counted from the border's corner.
    fn input_rows(&self, rows: &Range<usize>, layout: &ImageLayout) -> Range<usize> {
        let first = |row: usize| (row * self.stride).saturating_add_signed(self.offset);
        let end = ((rows.end - 1) * self.stride + self.height).saturating_add_signed(self.offset);
        first(rows.start)..end.min(layout.bordered_height())
    }

    /// Returns the most input rows that `rows` output rows read.
    pub(in crate::cpu) fn input_rows_max(&self, rows: usize, layout: &ImageLayout) -> usize {
        ((rows - 1) * self.stride + self.height).min(layout.bordered_height())
    }
}

/// Steps that each read the output of the step before.
pub(in crate::cpu) struct BandChain {
    pub(in crate::cpu) stages: Vec<Stage>,
    /// Rows of the last output in a band.
    pub(in crate::cpu) band_rows: usize,
    /// Number of buffers in the plan.
    pub(in crate::cpu) buffer_count: usize,
}

/// One step of a chain.
pub(in crate::cpu) struct Stage {
    pub(in crate::cpu) label: String,
    pub(in crate::cpu) macs: u64,
    pub(in crate::cpu) work: Box<dyn Work>,
    pub(in crate::cpu) groups: usize,
    /// The image that the next stage reads; `None` for the last stage.
    pub(in crate::cpu) output: Option<RollingImage>,
}

/// An image of which only a few rows are in memory.
pub(in crate::cpu) struct RollingImage {
    /// Its layout stores only those rows.
    pub(in crate::cpu) image: ImageRef,
    pub(in crate::cpu) border: Option<FillBorder>,
    /// The rows that the next stage reads.
    pub(in crate::cpu) window: RowWindow,
}

/// Most stages of a chain. The limit lets a run keep their state without allocating.
pub(in crate::cpu) const STAGES_MAX: usize = 8;

/// A cache line, in bytes.
const ALIGNMENT: usize = 64;

impl RollingImage {
    fn bytes(&self) -> usize {
        (self.image.layout.elements() * self.image.element_bytes).next_multiple_of(ALIGNMENT)
    }

    fn row_bytes(&self) -> usize {
        self.image.layout.row_stride() * self.image.element_bytes
    }

    /// Returns the rows without the border, counted from the image's first row.
    fn image_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let [top, ..] = self.image.layout.border;
        let within = |row: usize| row.saturating_sub(top).min(self.image.layout.height);
        within(rows.start)..within(rows.end)
    }

    /// Drops the rows before row `first`, and moves the kept rows to the front of the memory at
    /// `start`.
    ///
    /// # Safety
    /// `start` is the image's memory, and the rows `kept` lie at its front.
    unsafe fn advance(&self, start: *mut u8, kept: &mut Range<usize>, first: usize) {
        if kept.end <= first {
            *kept = first..first;
            return;
        }
        let (dropped, row_bytes) = (first - kept.start, self.row_bytes());
        let layout = &self.image.layout;
        for block in 0..layout.blocks() {
            // SAFETY: the rows lie in the block, which stores at least as many rows as are kept.
            unsafe {
                let block = start.add(block * layout.block_stride() * self.image.element_bytes);
                let kept_bytes = (kept.end - first) * row_bytes;
                std::ptr::copy(block.add(dropped * row_bytes), block, kept_bytes);
            }
        }
        kept.start = first;
    }
}

/// For each stage, rows of the image that it writes, counted from the border's corner.
type StageRows = [Range<usize>; STAGES_MAX];

impl BandChain {
    fn buffer_ptrs_bytes(&self) -> usize {
        (self.buffer_count * size_of::<BufferPtr>()).next_multiple_of(ALIGNMENT)
    }

    /// Offset of a stage's rolling image in the scratch.
    fn image_offset(&self, stage: usize) -> usize {
        let before = self.stages[..stage].iter().filter_map(|stage| stage.output.as_ref());
        self.buffer_ptrs_bytes() + before.map(RollingImage::bytes).sum::<usize>()
    }

    /// Makes room in the rolling images for `rows` of the last output, and returns the rows that
    /// each stage has to compute. The rows count from the border's corner; those of the last stage
    /// count from the image's first row.
    ///
    /// # Safety
    /// As for [`Work::run`]. `kept` describes the rows that earlier bands kept.
    unsafe fn plan_rows(
        &self,
        run: &RunContext<'_>,
        rows: Range<usize>,
        kept: &mut StageRows,
    ) -> StageRows {
        let mut wanted: StageRows = Default::default();
        let last = self.stages.len() - 1;
        wanted[last] = rows.clone();
        let mut rows = rows;
        for stage in (0..last).rev() {
            let rolling = self.rolling_image(stage);
            let needed = rolling.window.input_rows(&rows, &rolling.image.layout);
            // SAFETY: `start` is the image's memory, which holds the rows `kept`.
            unsafe {
                let start = run.scratch.add(self.image_offset(stage));
                rolling.advance(start, &mut kept[stage], needed.start);
            }
            wanted[stage] = kept[stage].end..needed.end.max(kept[stage].end);
            kept[stage].end = wanted[stage].end;
            rows = rolling.image_rows(&wanted[stage]);
            if rows.is_empty() {
                break;
            }
        }
        wanted
    }

    fn rolling_image(&self, stage: usize) -> &RollingImage {
        self.stages[stage].output.as_ref().expect("only the last stage has none")
    }

    /// Runs one band of one item.
    ///
    /// # Safety
    /// As for [`Work::run`].
    unsafe fn run_band(
        &self,
        run: &RunContext<'_>,
        item: usize,
        rows: Range<usize>,
        kept: &mut StageRows,
    ) {
        // SAFETY: the scratch has room for the pointers, the rolling images and the stages' own
        // scratch. The stage before has computed the rows that a stage reads.
        unsafe {
            let wanted = self.plan_rows(run, rows, kept);
            let scratch = run.scratch.add(self.image_offset(self.stages.len()));
            let run =
                RunContext { buffer_ptrs: self.stage_buffer_ptrs(run, kept), scratch, ..*run };
            for (index, (stage, wanted)) in self.stages.iter().zip(wanted).enumerate() {
                let rows = match &stage.output {
                    Some(rolling) => rolling.image_rows(&wanted),
                    None => wanted.clone(),
                };
                let region = OutputRegion { items: item..item + 1, rows, groups: 0..stage.groups };
                if !region.rows.is_empty() {
                    stage.work.run(&run, &region);
                }
                if let Some(RollingImage { border: Some(border), .. }) = &stage.output {
                    border.fill_rows(&run, item, wanted);
                }
                (run.stage_done)(index);
            }
        }
    }

    /// Returns the pointers to the plan's buffers, with those of the rolling images replaced. A
    /// rolling image starts at the address where its first row would lie.
    ///
    /// # Safety
    /// The scratch has room for the pointers, and no other code uses pointers in this scratch.
    unsafe fn stage_buffer_ptrs<'a>(
        &self,
        run: &RunContext<'a>,
        kept: &StageRows,
    ) -> &'a [BufferPtr] {
        // SAFETY: guaranteed by the caller.
        let buffer_ptrs = unsafe {
            let own = run.scratch.cast::<BufferPtr>();
            std::ptr::copy_nonoverlapping(run.buffer_ptrs.as_ptr(), own, self.buffer_count);
            std::slice::from_raw_parts_mut(own, self.buffer_count)
        };
        for (index, stage) in self.stages.iter().enumerate() {
            let Some(rolling) = &stage.output else { continue };
            let start = run.scratch.wrapping_add(self.image_offset(index));
            let start = start.wrapping_sub(kept[index].start * rolling.row_bytes());
            // A rolling image has memory for one item, whichever item of the batch it is.
            buffer_ptrs[rolling.image.buffer] = BufferPtr { start, item_stride: 0 };
        }
        buffer_ptrs
    }
}

impl Work for BandChain {
    fn algorithm(&self) -> &'static str {
        "bands"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            let mut kept: StageRows = Default::default();
            for y in region.rows.clone().step_by(self.band_rows) {
                let rows = y..region.rows.end.min(y + self.band_rows);
                // SAFETY: guaranteed by the caller.
                unsafe { self.run_band(run, item, rows, &mut kept) };
            }
        }
    }

    fn scratch_bytes(&self, _items: usize) -> usize {
        let inner = self.stages.iter().map(|stage| stage.work.scratch_bytes(1)).max();
        self.image_offset(self.stages.len()) + inner.unwrap_or(0)
    }

    fn stages(&self) -> &[Stage] {
        &self.stages
    }

    fn weight_bytes(&self) -> usize {
        self.stages.iter().map(|stage| stage.work.weight_bytes()).sum()
    }
}
