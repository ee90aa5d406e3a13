//! Which steps of a plan run in bands; see `work::bands`.

use std::ops::Range;
use std::sync::Arc;

use crate::cpu::lanes::LANES;
use crate::cpu::memory::Buffer;
use crate::cpu::plan::{Owner, Plan, Step, ValueLayout};
use crate::cpu::work::{Bands, Between, FillBorder, ImageRef, LINKS_MAX, Link, RowWindow};

/// What is worth it.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct BandPolicy {
    /// Bytes from which on an image between two steps is kept in bands: smaller ones stay in the
    /// second-level cache anyway.
    pub(in crate::cpu) image_bytes_min: usize,
    /// Bytes that all images between the steps may take: a part of that cache.
    pub(in crate::cpu) kept_bytes_max: usize,
}

impl BandPolicy {
    pub(in crate::cpu) const DEFAULT: Self =
        Self { image_bytes_min: 512 << 10, kept_bytes_max: 640 << 10 };
}

/// Weights up to this are read again for each band.
const WEIGHTS_MAX: usize = 128 << 10;

/// Rows of the last output that a band has at least: with fewer, moving what is kept would take
/// time that counts.
const ROWS_MIN: usize = 2;

/// Puts steps together where that keeps images in the cache.
pub(in crate::cpu) fn bands(mut plan: Plan, policy: &BandPolicy) -> Plan {
    let chains = chains(&plan, policy);
    let mut steps: Vec<Option<Step>> =
        std::mem::take(&mut plan.steps).into_iter().map(Some).collect();
    let mut starts = chains.into_iter().peekable();
    let mut at = 0;
    while at < steps.len() {
        let step = match starts.next_if(|chain| chain.steps.start == at) {
            Some(chain) => {
                at = chain.steps.end;
                let parts = steps[chain.steps.clone()].iter_mut().filter_map(Option::take);
                joined(&plan, &chain, parts.collect())
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

/// Steps that run in bands of so many rows, and the images between them, as far as they are kept.
struct Chain {
    steps: Range<usize>,
    rows: usize,
    kept: Vec<ImageRef>,
}

fn chains(plan: &Plan, policy: &BandPolicy) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut at = 0;
    while at < plan.steps.len() {
        let chain = chain(plan, at, policy);
        at = chain.as_ref().map_or(at + 1, |chain| chain.steps.end);
        chains.extend(chain);
    }
    chains
}

/// The longest chain from a step on.
fn chain(plan: &Plan, first: usize, policy: &BandPolicy) -> Option<Chain> {
    let mut found = None;
    let mut links = vec![first];
    let mut next = next(plan, first, policy)?;
    while links.len() < LINKS_MAX {
        links.push(next);
        let Some((rows, kept)) = rows(plan, &links, policy) else { break };
        found = Some(Chain { steps: first..next + 1, rows, kept });
        match self::next(plan, next, policy) {
            Some(step) => next = step,
            None => break,
        }
    }
    found
}

/// The step that alone reads what this one writes, when the two can run in bands.
fn next(plan: &Plan, at: usize, policy: &BandPolicy) -> Option<usize> {
    let step = &plan.steps[at];
    let value = step.writes;
    let ValueLayout::Image { layout, .. } = plan.values[value].layout else { return None };
    let is_border = |at: &usize| is_border(plan, *at);
    let next = (at + 1..plan.steps.len()).find(|at| !is_border(at))?;
    let reader = &plan.steps[next];
    let readers = plan.steps.iter().flat_map(|step| &step.reads).filter(|&&read| read == value);
    let can_run =
        |step: &Step| step.work.row_window().is_some() && step.work.weight_bytes() <= WEIGHTS_MAX;
    let is_large = plan.values[value].layout.bytes() >= policy.image_bytes_min;
    let is_rest_of_step = (at + 1..next).all(|border| plan.steps[border].writes == value);
    (is_large
        && layout.height > 1
        && plan.values[value].owner == Owner::Arena
        && (can_run(step) && can_run(reader))
        && is_rest_of_step
        && reader.reads.first() == Some(&value)
        && readers.count() == 1)
        .then_some(next)
}

fn is_border(plan: &Plan, at: usize) -> bool {
    plan.steps[at].work.as_border().is_some()
}

/// Rows of the last output in a band, so that the images between fit, and those; `None` if too few
/// rows do.
fn rows(plan: &Plan, links: &[usize], policy: &BandPolicy) -> Option<(usize, Vec<ImageRef>)> {
    let height = plan.height(plan.steps[links[links.len() - 1]].writes);
    // Rows that go into the height without a small rest.
    let few = (1..=height).map(|bands| height.div_ceil(bands));
    let mut fitting = few.map(|rows| (rows, kept(plan, links, rows))).filter(|(_, kept)| {
        let bytes = kept.iter().map(|image| image.layout.elements() * image.element_bytes);
        bytes.sum::<usize>() <= policy.kept_bytes_max
    });
    fitting.next().filter(|(rows, _)| *rows >= ROWS_MIN.min(height))
}

/// The images between the links, storing the rows that a band takes.
fn kept(plan: &Plan, links: &[usize], rows: usize) -> Vec<ImageRef> {
    let mut rows = rows;
    let mut kept = Vec::new();
    for pair in links.windows(2).rev() {
        let value = plan.steps[pair[0]].writes;
        let ValueLayout::Image { mut layout, element_bytes, .. } = plan.values[value].layout else {
            continue;
        };
        rows = window(&plan.steps[pair[1]]).most(rows, &layout);
        layout.stored_rows = rows;
        kept.push(ImageRef { value, layout, element_bytes });
    }
    kept.reverse();
    kept
}

fn window(step: &Step) -> RowWindow {
    step.work.row_window().expect("links have one")
}

/// One step of all.
fn joined(plan: &Plan, chain: &Chain, parts: Vec<Step>) -> Step {
    let (borders, steps): (Vec<Step>, Vec<Step>) =
        parts.into_iter().partition(|step| step.work.as_border().is_some());
    let readers = steps.iter().skip(1);
    let betweens: Vec<Between> = chain
        .kept
        .iter()
        .zip(readers.clone())
        .map(|(image, reader)| Between {
            image: *image,
            border: border(image, &borders),
            window: window(reader),
        })
        .collect();
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    let label = format!("{} … {}", first.label, last.label);
    let others = readers.flat_map(|reader| &reader.reads[1..]);
    let reads = first.reads.iter().chain(others).copied().collect();
    let (writes, rows) = (last.writes, last.rows);
    let macs = steps.iter().map(|step| step.macs).sum();
    let mut betweens = betweens.into_iter();
    let links = steps.into_iter().map(|Step { label, mut work, groups, macs, .. }| {
        chain.kept.iter().for_each(|image| work.update_layout(image));
        Link { label, macs, work, groups, between: betweens.next() }
    });
    let work = Bands { links: links.collect(), rows: chain.rows, values: plan.values.len() };
    Step { label, work: Box::new(work), reads, writes, rows, row_unit: 1, groups: 1, macs }
}

/// What fills an image's border: what did so before, or zeros, which such an image had from the
/// beginning on.
fn border(image: &ImageRef, borders: &[Step]) -> Option<FillBorder> {
    let layout = &image.layout;
    let own = borders.iter().find(|border| border.writes == image.value);
    let values = own.and_then(|own| own.work.as_border()).map(|own| Arc::clone(&own.values));
    let zeros = || Arc::new(Buffer::zeroed(layout.blocks() * LANES * image.element_bytes));
    let has_border = layout.border != [0; 4];
    has_border.then(|| FillBorder { image: *image, values: values.unwrap_or_else(zeros) })
}
