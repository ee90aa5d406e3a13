//! In which order a plan's steps run, and which values share memory.
//!
//! Two orders fight over the cache. Where activations are larger than weights, one row of the
//! batch after the other keeps activations close; where weights are larger, all rows together read
//! them once. So a plan is cut into segments of one kind or the other. And where a single image's
//! activations are larger than the cache, the steps of a segment take turns: a band of rows goes
//! through all of them before the next band starts.

use std::collections::HashMap;
use std::ops::Range;

use super::plan::{Form, Home, Plan};

/// The order of a plan for up to `rows_max` rows of a batch.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) rows_max: usize,
    pub(super) segments: Vec<Segment>,
    /// Per value, where it is in the arena; `None` for the caller's.
    pub(super) places: Vec<Option<Place>>,
    /// Bytes of the arena.
    pub(super) arena: usize,
    /// Bytes of scratch.
    pub(super) scratch: usize,
}

/// Steps that run together, for one row of the batch at a time or for all.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) is_row_by_row: bool,
    pub(super) steps: Range<usize>,
    pub(super) tasks: Vec<Task>,
}

/// Some rows of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) step: usize,
    pub(super) rows: Range<usize>,
}

/// Bytes from the arena's start, and from one row of the batch to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) stride: usize,
}

/// Rows of a batch that run together where a network has weights that are worth it.
const ROWS_TOGETHER: usize = 8;

/// Weights below this stay in a second-level cache beside the activations of a row.
const HEAVY_WEIGHTS_BYTES: usize = 128 << 10;

/// Bytes that the steps of a band read and write, counted once for each; a band at the end of which
/// the first bytes have left the second-level cache is still in the third.
const BAND_BYTES: usize = 4 << 20;

impl Schedule {
    pub(super) fn of(plan: &Plan) -> Self {
        let heavy: Vec<bool> = (0..plan.steps.len()).map(|step| is_heavy(plan, step)).collect();
        let rows_max = if heavy.contains(&true) { ROWS_TOGETHER } else { 1 };
        let mut segments = Vec::new();
        let mut groups = Vec::new();
        let mut from = 0;
        for run in heavy.chunk_by(|a, b| a == b) {
            let steps = from..from + run.len();
            let is_row_by_row = !run[0];
            let of_segment = match is_row_by_row {
                true => banded_groups(plan, steps.clone()),
                false => steps.clone().map(|step| step..step + 1).collect(),
            };
            let tasks = of_segment.iter().flat_map(|group| tasks(plan, group.clone())).collect();
            segments.push(Segment { is_row_by_row, steps: steps.clone(), tasks });
            groups.extend(of_segment);
            from = steps.end;
        }
        let (places, arena) = places(plan, &segments, &groups, rows_max);
        let scratch = plan.steps.iter().map(|step| step.work.scratch(rows_max)).max();
        Self { rows_max, segments, places, arena, scratch: scratch.unwrap_or(0) }
    }
}

/// Bytes a step reads and writes for one row of the batch, without its weights.
fn traffic(plan: &Plan, step: usize) -> usize {
    let step = &plan.steps[step];
    let values = step.reads.iter().chain([&step.writes]);
    values.map(|&value| plan.values[value].form.bytes()).sum()
}

fn is_heavy(plan: &Plan, step: usize) -> bool {
    let weights = plan.steps[step].work.weight_bytes();
    weights > HEAVY_WEIGHTS_BYTES && weights > traffic(plan, step)
}

/// Cuts the steps of a segment into groups that run band by band, and single steps.
fn banded_groups(plan: &Plan, steps: Range<usize>) -> Vec<Range<usize>> {
    let is_large = |step: usize| {
        let out = plan.values[plan.steps[step].writes].form.bytes();
        traffic(plan, step) > BAND_BYTES && out > 0
    };
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut was_large = false;
    for step in steps {
        let large = is_large(step);
        match groups.last_mut() {
            Some(group) if large && was_large => group.end = step + 1,
            _ => groups.push(step..step + 1),
        }
        was_large = large;
    }
    groups
}

/// The tasks of a group: for each band of the last step, what it needs of those before.
fn tasks(plan: &Plan, group: Range<usize>) -> Vec<Task> {
    if group.len() == 1 {
        let rows = 0..plan.steps[group.start].rows;
        return vec![Task { step: group.start, rows }];
    }
    let last = group.end - 1;
    let band = band_rows(plan, &group);
    let mut bands = Bands { plan, group: group.clone(), done: HashMap::new(), tasks: Vec::new() };
    let height = plan.steps[last].rows;
    for end in (0..height).step_by(band).map(|from| height.min(from + band)) {
        bands.compute(last, end);
    }
    // What the last step does not need is needed later.
    group.for_each(|step| bands.compute(step, plan.steps[step].rows));
    bands.tasks
}

/// Rows of the last step whose band, through all steps, is about as large as it may be.
fn band_rows(plan: &Plan, group: &Range<usize>) -> usize {
    let last = &plan.steps[group.end - 1];
    let all: usize = group.clone().map(|step| traffic(plan, step)).sum();
    (last.rows * BAND_BYTES / all.max(1)).clamp(1, last.rows)
}

struct Bands<'a> {
    plan: &'a Plan,
    group: Range<usize>,
    /// Rows computed so far, per step.
    done: HashMap<usize, usize>,
    tasks: Vec<Task>,
}

impl Bands<'_> {
    /// Adds what is missing so that the first `rows` rows of a step are computed.
    fn compute(&mut self, step: usize, rows: usize) {
        let plan = self.plan;
        let Step { rows: height, row_unit, reach, reads, .. } = &plan.steps[step];
        let rows = rows.next_multiple_of(*row_unit).min(*height);
        let done = self.done.get(&step).copied().unwrap_or(0);
        if rows <= done {
            return;
        }
        for &value in reads {
            let needed = reach.needed(rows, plan.height(value));
            // All that write the value: its producer, and who changes it in place after it.
            for writer in self.group.clone().take_while(|&writer| writer < step) {
                if plan.steps[writer].writes == value {
                    self.compute(writer, rows_of(plan, writer, needed));
                }
            }
        }
        self.done.insert(step, rows);
        self.tasks.push(Task { step, rows: done..rows });
    }
}

use super::plan::Step;

/// A flat value's rows are those of its writer, all of which are needed.
fn rows_of(plan: &Plan, writer: usize, rows: usize) -> usize {
    match plan.values[plan.steps[writer].writes].form {
        Form::Image { .. } => rows,
        Form::Flat { .. } => plan.steps[writer].rows,
    }
}

/// When a value is written first and read last, in groups.
struct Life {
    value: usize,
    from: usize,
    to: usize,
    /// Whether it lives within one segment that runs row by row.
    is_of_one_row: bool,
}

fn lives(plan: &Plan, segments: &[Segment], groups: &[Range<usize>]) -> Vec<Life> {
    let group_of = |step: usize| {
        groups.iter().position(|group| group.contains(&step)).expect("every step is in a group")
    };
    let segment_of = |step: usize| {
        segments.iter().position(|s| s.steps.contains(&step)).expect("every step is in a segment")
    };
    let mut lives = Vec::new();
    for value in (0..plan.values.len()).filter(|&v| plan.values[v].home == Home::Arena) {
        let touching = (0..plan.steps.len()).filter(|&step| {
            plan.steps[step].writes == value || plan.steps[step].reads.contains(&value)
        });
        let steps: Vec<usize> = touching.collect();
        let (Some(&first), Some(&last)) = (steps.first(), steps.last()) else { continue };
        let (from, to) = (segment_of(first), segment_of(last));
        let is_of_one_row = from == to && segments[from].is_row_by_row;
        // The next row of the batch still reads what comes from an earlier segment.
        let until = match from != to && segments[to].is_row_by_row {
            true => segments[to].steps.end - 1,
            false => last,
        };
        lives.push(Life { value, from: group_of(first), to: group_of(until), is_of_one_row });
    }
    lives
}

/// Gives values of one form, whose lives do not meet, the same memory. Only the same form: what
/// lies in a border stays there.
fn places(
    plan: &Plan,
    segments: &[Segment],
    groups: &[Range<usize>],
    rows_max: usize,
) -> (Vec<Option<Place>>, usize) {
    let mut places = vec![None; plan.values.len()];
    let mut lives = lives(plan, segments, groups);
    lives.sort_by_key(|life| (life.from, life.value));
    // Places taken so far, with the form they hold and the group until which.
    let mut taken: Vec<(Form, bool, usize, Place)> = Vec::new();
    let mut arena = 0;
    for life in lives {
        let form = plan.values[life.value].form;
        let free = taken.iter_mut().find(|(of, one_row, until, _)| {
            *of == form && *one_row == life.is_of_one_row && *until < life.from
        });
        let place = match free {
            Some((_, _, until, place)) => {
                *until = life.to;
                *place
            }
            None => {
                let bytes = form.bytes().next_multiple_of(ALIGNMENT);
                let rows = if life.is_of_one_row { 1 } else { rows_max };
                let stride = if life.is_of_one_row { 0 } else { bytes };
                let place = Place { offset: arena, stride };
                // Kernels load two blocks of channels at once; the second may be beyond.
                arena += bytes * rows + ALIGNMENT;
                taken.push((form, life.is_of_one_row, life.to, place));
                place
            }
        };
        places[life.value] = Some(place);
    }
    (places, arena)
}

/// A cache line.
const ALIGNMENT: usize = 64;
