//! Fuses steps of a plan into chains that run in bands; see `work::band_chain`.

use std::ops::Range;
use std::sync::Arc;

use crate::cpu::lanes::LANES;
use crate::cpu::memory::MappedMemory;
use crate::cpu::plan::{Owner, Plan, Step, ValueLayout};
use crate::cpu::work::{
    BandChain, FillBorder, ImageRef, RollingImage, RowWindow, STAGES_MAX, Stage,
};

/// The limits that decide whether fusing steps pays.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct BandPolicy {
    /// Least bytes of an image between two fused steps. Smaller images stay in the second-level
    /// cache anyway.
    pub(in crate::cpu) image_bytes_min: usize,
    /// Most bytes of all rolling images of a chain: a part of that cache.
    pub(in crate::cpu) kept_bytes_max: usize,
}

impl BandPolicy {
    pub(in crate::cpu) const DEFAULT: Self =
        Self { image_bytes_min: 512 << 10, kept_bytes_max: 640 << 10 };
}

/// Most bytes of a stage's weights, which are read again for each band.
const WEIGHT_BYTES_MAX: usize = 128 << 10;

/// Fewest rows of the last output in a band. With fewer rows, moving the kept rows would take too
/// much of the time.
const BAND_ROWS_MIN: usize = 2;

/// Fuses steps where a chain keeps images in the cache.
pub(in crate::cpu) fn fuse_bands(mut plan: Plan, policy: &BandPolicy) -> Plan {
    let chains = ChainFinder::new(&plan, policy).chains();
    let mut steps: Vec<Option<Step>> =
        std::mem::take(&mut plan.steps).into_iter().map(Some).collect();
    let mut starts = chains.into_iter().peekable();
    let mut at = 0;
    while at < steps.len() {
        let step = match starts.next_if(|chain| chain.steps.start == at) {
            Some(chain) => {
                at = chain.steps.end;
                let fused = steps[chain.steps.clone()].iter_mut().filter_map(Option::take);
                build_chain(&plan, &chain, fused.collect())
            }
            None => {
                at += 1;
                steps[at - 1].take().expect("a step is in one chain at most")
            }
        };
        plan.steps.push(step);
    }
    plan
}

/// A chain to be built: its steps, the rows of the last output in a band, and the rolling images
/// between the steps.
struct ChainPlan {
    steps: Range<usize>,
    band_rows: usize,
    images: Vec<ImageRef>,
}

/// Finds the chains of a plan.
struct ChainFinder<'p> {
    plan: &'p Plan,
    policy: &'p BandPolicy,
    /// How often steps read each buffer.
    read_counts: Vec<usize>,
}

impl<'p> ChainFinder<'p> {
    fn new(plan: &'p Plan, policy: &'p BandPolicy) -> Self {
        let mut read_counts = vec![0; plan.buffers.len()];
        for &buffer in plan.steps.iter().flat_map(|step| &step.reads) {
            read_counts[buffer] += 1;
        }
        Self { plan, policy, read_counts }
    }

    fn chains(&self) -> Vec<ChainPlan> {
        let mut chains = Vec::new();
        let mut at = 0;
        while at < self.plan.steps.len() {
            let chain = self.longest_chain(at);
            at = chain.as_ref().map_or(at + 1, |chain| chain.steps.end);
            chains.extend(chain);
        }
        chains
    }

    /// Returns the longest chain that starts with a step.
    fn longest_chain(&self, first: usize) -> Option<ChainPlan> {
        let mut found = None;
        let mut stages = vec![first];
        let mut next = self.next_stage(first)?;
        while stages.len() < STAGES_MAX {
            stages.push(next);
            let Some((band_rows, images)) = self.fit_band(&stages) else { break };
            found = Some(ChainPlan { steps: first..next + 1, band_rows, images });
            match self.next_stage(next) {
                Some(step) => next = step,
                None => break,
            }
        }
        found
    }

    /// Returns the step that reads the output of this one, if no other step reads that output and
    /// the two steps can run in bands.
    fn next_stage(&self, at: usize) -> Option<usize> {
        let steps = &self.plan.steps;
        let step = &steps[at];
        let buffer = step.writes;
        let ValueLayout::Image { layout, .. } = self.plan.buffers[buffer].layout else {
            return None;
        };
        let next = (at + 1..steps.len()).find(|&at| steps[at].work.as_border().is_none())?;
        let reader = &steps[next];
        let can_run = |step: &Step| {
            step.work.row_window().is_some() && step.work.weight_bytes() <= WEIGHT_BYTES_MAX
        };
        let is_large = self.plan.buffers[buffer].layout.bytes() >= self.policy.image_bytes_min;
        let borders_are_its_own = steps[at + 1..next].iter().all(|border| border.writes == buffer);
        (is_large
            && layout.height > 1
            && self.plan.buffers[buffer].owner == Owner::Arena
            && (can_run(step) && can_run(reader))
            && borders_are_its_own
            && reader.reads.first() == Some(&buffer)
            && self.read_counts[buffer] == 1)
            .then_some(next)
    }

    /// Returns the rows of the last output in a band, with the rolling images that fit into the
    /// cache. Returns `None` if a band would have too few rows.
    fn fit_band(&self, stages: &[usize]) -> Option<(usize, Vec<ImageRef>)> {
        let height = self.plan.height(self.plan.steps[stages[stages.len() - 1]].writes);
        // Numbers of rows that divide the height into almost equal bands.
        let candidates = (1..=height).map(|bands| height.div_ceil(bands));
        let rolling = candidates.map(|rows| (rows, rolling_images(self.plan, stages, rows)));
        let mut fitting = rolling.filter(|(_, images)| {
            let bytes = images.iter().map(|image| image.layout.elements() * image.element_bytes);
            bytes.sum::<usize>() <= self.policy.kept_bytes_max
        });
        fitting.next().filter(|(rows, _)| *rows >= BAND_ROWS_MIN.min(height))
    }
}

/// Returns the images between the stages, with room for the rows that a band needs.
fn rolling_images(plan: &Plan, stages: &[usize], rows: usize) -> Vec<ImageRef> {
    let mut rows = rows;
    let mut images = Vec::new();
    for pair in stages.windows(2).rev() {
        let buffer = plan.steps[pair[0]].writes;
        let ValueLayout::Image { mut layout, element_bytes, .. } = plan.buffers[buffer].layout
        else {
            continue;
        };
        rows = row_window(&plan.steps[pair[1]]).input_rows_max(rows, &layout);
        layout.stored_rows = rows;
        images.push(ImageRef { buffer, layout, element_bytes });
    }
    images.reverse();
    images
}

fn row_window(step: &Step) -> RowWindow {
    step.work.row_window().expect("every stage has one")
}

/// Builds one step from the steps of a chain.
fn build_chain(plan: &Plan, chain: &ChainPlan, fused: Vec<Step>) -> Step {
    let (borders, steps): (Vec<Step>, Vec<Step>) =
        fused.into_iter().partition(|step| step.work.as_border().is_some());
    let readers = steps.iter().skip(1);
    let rolling: Vec<RollingImage> = chain
        .images
        .iter()
        .zip(readers.clone())
        .map(|(image, reader)| RollingImage {
            image: *image,
            border: border_of(image, &borders),
            window: row_window(reader),
        })
        .collect();
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    let label = format!("{} … {}", first.label, last.label);
    let others = readers.flat_map(|reader| &reader.reads[1..]);
    let reads = first.reads.iter().chain(others).copied().collect();
    let (writes, rows) = (last.writes, last.rows);
    let macs = steps.iter().map(|step| step.macs).sum();
    let mut rolling = rolling.into_iter();
    let stages = steps.into_iter().map(|Step { label, mut work, groups, macs, .. }| {
        chain.images.iter().for_each(|image| work.update_layout(image));
        Stage { label, macs, work, groups, output: rolling.next() }
    });
    let work = BandChain {
        stages: stages.collect(),
        band_rows: chain.band_rows,
        buffer_count: plan.buffers.len(),
    };
    Step { label, work: Box::new(work), reads, writes, rows, row_unit: 1, groups: 1, macs }
}

/// Returns the step that fills the border of a rolling image. It uses the numbers of the image's
/// own border step, or else zeros, which the border held from the start.
fn border_of(image: &ImageRef, borders: &[Step]) -> Option<FillBorder> {
    let layout = &image.layout;
    let own = borders.iter().find(|border| border.writes == image.buffer);
    let values = own.and_then(|own| own.work.as_border()).map(|own| Arc::clone(&own.values));
    let zeros = || Arc::new(MappedMemory::zeroed(layout.blocks() * LANES * image.element_bytes));
    let has_border = layout.border != [0; 4];
    has_border.then(|| FillBorder { image: *image, values: values.unwrap_or_else(zeros) })
}
