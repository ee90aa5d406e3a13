//! Steps one after the other in bands of rows.
//!
//! Large images go through the cache once for every step that writes or reads them. Where only the
//! next step reads one, a band of rows is enough of it: all steps compute a band, and the image
//! between them is a few rows in the second-level cache that move down with the bands.

use std::ops::Range;

use super::{BufferPtr, FillBorder, ImageRef, OutputRegion, RunContext, Work};
use crate::cpu::layout::ImageLayout;

/// How rows of what a step reads lie under the rows it computes: the first row of output `y` is
/// `y × stride + first`, counted from the border's corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct RowWindow {
    pub(in crate::cpu) stride: usize,
    pub(in crate::cpu) height: usize,
    /// Negative where a window begins outside of the image and reads the part inside.
    pub(in crate::cpu) offset: isize,
}

impl RowWindow {
    /// Rows of an image, counted from the border's corner, under `rows` of the output.
    fn input_rows(&self, rows: &Range<usize>, layout: &ImageLayout) -> Range<usize> {
        let first = |row: usize| (row * self.stride).saturating_add_signed(self.offset);
        let end = ((rows.end - 1) * self.stride + self.height).saturating_add_signed(self.offset);
        first(rows.start)..end.min(layout.bordered_height())
    }

    /// Most rows under so many of the output.
    pub(in crate::cpu) fn input_rows_max(&self, rows: usize, layout: &ImageLayout) -> usize {
        ((rows - 1) * self.stride + self.height).min(layout.bordered_height())
    }
}

/// Steps of which each reads what the one before writes.
pub(in crate::cpu) struct BandChain {
    pub(in crate::cpu) stages: Vec<Stage>,
    /// Rows of the last output in a band.
    pub(in crate::cpu) band_rows: usize,
    /// Values of the plan.
    pub(in crate::cpu) value_count: usize,
}

/// One of the steps.
pub(in crate::cpu) struct Stage {
    pub(in crate::cpu) label: String,
    pub(in crate::cpu) macs: u64,
    pub(in crate::cpu) work: Box<dyn Work>,
    pub(in crate::cpu) groups: usize,
    /// What the next link reads; `None` of the last one.
    pub(in crate::cpu) output: Option<RollingImage>,
}

/// An image of which a few rows are kept.
pub(in crate::cpu) struct RollingImage {
    /// Its layout stores those rows only.
    pub(in crate::cpu) image: ImageRef,
    pub(in crate::cpu) border: Option<FillBorder>,
    /// How the next link reads it.
    pub(in crate::cpu) window: RowWindow,
}

/// Most links, so that a run needs no memory for their state.
pub(in crate::cpu) const STAGES_MAX: usize = 8;

/// A cache line.
const ALIGNMENT: usize = 64;

impl RollingImage {
    fn bytes(&self) -> usize {
        (self.image.layout.elements() * self.image.element_bytes).next_multiple_of(ALIGNMENT)
    }

    fn row_bytes(&self) -> usize {
        self.image.layout.row_stride() * self.image.element_bytes
    }

    /// The rows that are no border, counted from the image's first.
    fn image_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let [top, ..] = self.image.layout.border;
        let within = |row: usize| row.saturating_sub(top).min(self.image.layout.height);
        within(rows.start)..within(rows.end)
    }

    /// Moves the rows that are needed again to the front of the memory at `start`, and leaves out
    /// those before.
    ///
    /// # Safety
    /// `start` is the image's memory, with `kept` rows from its front on.
    unsafe fn advance(&self, start: *mut u8, kept: &mut Range<usize>, first: usize) {
        if kept.end <= first {
            *kept = first..first;
            return;
        }
        let (dropped, row_bytes) = (first - kept.start, self.row_bytes());
        let layout = &self.image.layout;
        for block in 0..layout.blocks() {
            // SAFETY: rows of the block, of which it stores as many as are kept at least.
            unsafe {
                let block = start.add(block * layout.block_stride() * self.image.element_bytes);
                let kept_bytes = (kept.end - first) * row_bytes;
                std::ptr::copy(block.add(dropped * row_bytes), block, kept_bytes);
            }
        }
        kept.start = first;
    }
}

/// What a run keeps of each link: rows of the image behind it, counted from the border's corner.
type StageRows = [Range<usize>; STAGES_MAX];

impl BandChain {
    fn buffers_bytes(&self) -> usize {
        (self.value_count * size_of::<BufferPtr>()).next_multiple_of(ALIGNMENT)
    }

    /// Where the image behind a link is in the scratch.
    fn image_offset(&self, stage: usize) -> usize {
        let before = self.stages[..stage].iter().filter_map(|stage| stage.output.as_ref());
        self.buffers_bytes() + before.map(RollingImage::bytes).sum::<usize>()
    }

    /// Makes room for what `rows` of the last output take, and returns what each link has to
    /// compute for them: rows counted from the border's corner, for the last one from its first.
    ///
    /// # Safety
    /// As [`Work::run`], with what earlier bands kept.
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
            // SAFETY: the image's memory, and what it holds.
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

    /// One band of one image.
    ///
    /// # Safety
    /// As [`Work::run`].
    unsafe fn run_band(
        &self,
        run: &RunContext<'_>,
        item: usize,
        rows: Range<usize>,
        kept: &mut StageRows,
    ) {
        // SAFETY: the scratch has room for the spots, the images and the links' own scratch, and
        // rows that a link reads were computed by the one before.
        unsafe {
            let wanted = self.plan_rows(run, rows, kept);
            let scratch = run.scratch.add(self.image_offset(self.stages.len()));
            let run = RunContext { buffers: self.stage_buffers(run, kept), scratch, ..*run };
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

    /// The plan's spots with those of the images between: where their first rows would be.
    ///
    /// # Safety
    /// The scratch has room for them, and nobody has spots from here.
    unsafe fn stage_buffers<'a>(&self, run: &RunContext<'a>, kept: &StageRows) -> &'a [BufferPtr] {
        // SAFETY: what the caller promises.
        let buffers = unsafe {
            let own = run.scratch.cast::<BufferPtr>();
            std::ptr::copy_nonoverlapping(run.buffers.as_ptr(), own, self.value_count);
            std::slice::from_raw_parts_mut(own, self.value_count)
        };
        for (index, stage) in self.stages.iter().enumerate() {
            let Some(rolling) = &stage.output else { continue };
            let start = run.scratch.wrapping_add(self.image_offset(index));
            let start = start.wrapping_sub(kept[index].start * rolling.row_bytes());
            // Whichever image of the batch it is, there is memory for one.
            buffers[rolling.image.value] = BufferPtr { start, item_stride: 0 };
        }
        buffers
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
                // SAFETY: what the caller promises.
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
