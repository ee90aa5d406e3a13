//! Which steps of a plan run in bands; see `work::bands`.

use std::ops::Range;
use std::sync::Arc;

use super::super::lanes::LANES;
use super::super::memory::Buffer;
use super::super::plan::{Form, Home, Plan, Step};
use super::super::work::{Bands, Between, FillBorder, Image, LINKS_MAX, Link, RowWindow};

/// What is worth it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::cpu) struct BandPolicy {
    /// Bytes from which on an image between two steps is kept in bands: smaller ones stay in the
    /// second-level cache anyway.
    pub(in crate::engine::cpu) image_bytes_min: usize,
    /// Bytes that all images between the steps may take: a part of that cache.
    pub(in crate::engine::cpu) kept_bytes_max: usize,
}

impl BandPolicy {
    pub(in crate::engine::cpu) const USUAL: Self =
        Self { image_bytes_min: 512 << 10, kept_bytes_max: 640 << 10 };
}

/// Weights up to this are read again for each band.
const WEIGHTS_MAX: usize = 128 << 10;

/// Rows of the last output that a band has at least: with fewer, moving what is kept would take
/// time that counts.
const ROWS_MIN: usize = 2;

/// Puts steps together where that keeps images in the cache.
pub(in crate::engine::cpu) fn bands(mut plan: Plan, policy: &BandPolicy) -> Plan {
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

/// Steps that run in bands of so many rows.
struct Chain {
    steps: Range<usize>,
    rows: usize,
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
        let Some(rows) = rows(plan, &links, policy) else { break };
        found = Some(Chain { steps: first..next + 1, rows });
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
    let Form::Image { layout, .. } = plan.values[value].form else { return None };
    let is_border = |at: &usize| is_border(plan, *at);
    let next = (at + 1..plan.steps.len()).find(|at| !is_border(at))?;
    let reader = &plan.steps[next];
    let readers = plan.steps.iter().flat_map(|step| &step.reads).filter(|&&read| read == value);
    let can_run =
        |step: &Step| step.work.row_window().is_some() && step.work.weight_bytes() <= WEIGHTS_MAX;
    let is_large = plan.values[value].form.bytes() >= policy.image_bytes_min;
    let is_rest_of_step = (at + 1..next).all(|border| plan.steps[border].writes == value);
    (is_large
        && layout.height > 1
        && plan.values[value].home == Home::Arena
        && (can_run(step) && can_run(reader))
        && is_rest_of_step
        && reader.reads.first() == Some(&value)
        && readers.count() == 1)
        .then_some(next)
}

fn is_border(plan: &Plan, at: usize) -> bool {
    plan.steps[at].work.as_border().is_some()
}

/// Rows of the last output in a band, so that the images between fit; `None` if too few do.
fn rows(plan: &Plan, links: &[usize], policy: &BandPolicy) -> Option<usize> {
    let height = plan.height(plan.steps[links[links.len() - 1]].writes);
    let fits = |&rows: &usize| {
        let kept = kept(plan, links, rows);
        let bytes = kept
            .into_iter()
            .map(|(image, rows)| image.layout.blocks() * image.layout.row() * image.element * rows);
        bytes.sum::<usize>() <= policy.kept_bytes_max
    };
    // Rows that go into the height without a small rest.
    let bands = (1..=height).find(|bands| fits(&height.div_ceil(*bands)))?;
    let rows = height.div_ceil(bands);
    (rows >= ROWS_MIN.min(height)).then_some(rows)
}

/// The images between the links, and how many rows of each are kept for a band.
fn kept(plan: &Plan, links: &[usize], rows: usize) -> Vec<(Image, usize)> {
    let mut rows = rows;
    let mut kept = Vec::new();
    for pair in links.windows(2).rev() {
        let value = plan.steps[pair[0]].writes;
        let window = window(&plan.steps[pair[1]]);
        let Form::Image { layout, element, .. } = plan.values[value].form else { continue };
        rows = window.most(rows, &layout);
        kept.push((Image { value, layout, element }, rows));
    }
    kept.reverse();
    kept
}

fn window(step: &Step) -> RowWindow {
    step.work.row_window().expect("links have one")
}

/// One step of all.
fn joined(plan: &Plan, chain: &Chain, mut parts: Vec<Step>) -> Step {
    let mut borders = Vec::new();
    let is_border = |step: &Step| step.work.as_border().is_some();
    let mut steps: Vec<Step> = Vec::new();
    for part in parts.drain(..) {
        match is_border(&part) {
            true => borders.push(part),
            false => steps.push(part),
        }
    }
    let windows: Vec<RowWindow> = steps.iter().skip(1).map(window).collect();
    // From the last one back: rows of each image that a band takes.
    let mut rows = chain.rows;
    let mut betweens = Vec::new();
    for (step, window) in steps.iter().zip(&windows).rev() {
        let Form::Image { mut layout, element, .. } = plan.values[step.writes].form else {
            unreachable!("links write images")
        };
        rows = window.most(rows, &layout);
        layout.stored = rows;
        let image = Image { value: step.writes, layout, element };
        let values = borders
            .iter()
            .find(|border| border.writes == step.writes)
            .and_then(|border| border.work.as_border())
            .map_or_else(
                || Arc::new(Buffer::zeroed(layout.blocks() * LANES * element)),
                |border| Arc::clone(&border.values),
            );
        let border = (layout.border != [0; 4]).then_some(FillBorder { image, values });
        betweens.push(Between { image, border, window: *window });
    }
    betweens.reverse();
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    let label = format!("{} … {}", first.label, last.label);
    let mut reads = first.reads.clone();
    for step in &steps[1..] {
        reads.extend(&step.reads[1..]);
    }
    let (writes, rows) = (last.writes, last.rows);
    let macs = steps.iter().map(|step| step.macs).sum();
    let stored: Vec<Image> = betweens.iter().map(|between| between.image).collect();
    let mut betweens = betweens.into_iter();
    let links = steps.into_iter().map(|Step { label, mut work, groups, macs, .. }| {
        stored.iter().for_each(|image| work.store(image));
        Link { label, macs, work, groups, between: betweens.next() }
    });
    let work = Bands { links: links.collect(), rows: chain.rows, values: plan.values.len() };
    Step { label, work: Box::new(work), reads, writes, rows, row_unit: 1, groups: 1, macs }
}
