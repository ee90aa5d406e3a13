//! In which order a plan's steps run, and which values share memory.
//!
//! Two orders fight over the cache. Where activations are larger than weights, one row of the
//! batch after the other keeps activations close; where weights are larger, all rows together read
//! them once. So a plan is cut into segments of one kind or the other.
//!
//! Values whose lives do not meet share memory, which is worth more than its bytes: the arena of a
//! detector on a large picture then stays in the last-level cache.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) is_row_by_row: bool,
    pub(super) steps: Range<usize>,
}

/// Bytes from the arena's start, and from one row of the batch to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) stride: usize,
}

/// How a plan is ordered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Steps with fewer bytes of weights run row by row.
    pub(super) heavy_weights_bytes: usize,
    /// Whether values that never meet get the same memory.
    pub(super) shares_memory: bool,
}

impl Policy {
    /// The fastest on usual processors; tests have others, too.
    pub(super) const USUAL: Self =
        Self { heavy_weights_bytes: HEAVY_WEIGHTS_BYTES, shares_memory: true };
}

/// Rows of a batch that run together where a network has weights that are worth it.
const ROWS_TOGETHER: usize = 8;

/// Weights below this stay in a second-level cache beside the activations of a row.
const HEAVY_WEIGHTS_BYTES: usize = 128 << 10;

/// A cache line.
const ALIGNMENT: usize = 64;

/// Bytes in front of the first value and behind each row of each value, which tests guard.
const GAP: usize = if cfg!(test) { 1024 } else { 0 };

impl Schedule {
    pub(super) fn of(plan: &Plan, policy: &Policy) -> Self {
        let is_heavy = |step| is_heavy(plan, step, policy.heavy_weights_bytes);
        let heavy: Vec<bool> = (0..plan.steps.len()).map(is_heavy).collect();
        let rows_max = if heavy.contains(&true) { ROWS_TOGETHER } else { 1 };
        let mut segments: Vec<Segment> = Vec::new();
        for run in heavy.chunk_by(|a, b| a == b) {
            let from = segments.last().map_or(0, |segment| segment.steps.end);
            segments.push(Segment { is_row_by_row: !run[0], steps: from..from + run.len() });
        }
        let (places, arena) = places(plan, &segments, policy, rows_max);
        let scratch = plan.steps.iter().map(|step| step.work.scratch(rows_max)).max();
        Self { rows_max, segments, places, arena, scratch: scratch.unwrap_or(0) }
    }
}

/// Whether a step's weights are worth reading once for all rows: more bytes than what it reads and
/// writes for one.
fn is_heavy(plan: &Plan, step: usize, weights_bytes: usize) -> bool {
    let step = &plan.steps[step];
    let values = step.reads.iter().chain([&step.writes]);
    let traffic: usize = values.map(|&value| plan.values[value].form.bytes()).sum();
    let weights = step.work.weight_bytes();
    weights > weights_bytes && weights > traffic
}

/// A value of the arena, and the steps between which its memory is its own.
#[derive(Debug, Clone)]
struct Life {
    value: usize,
    from: usize,
    to: usize,
    form: Form,
    /// Rows of the batch it holds: one where it lives within a segment that runs row by row.
    rows: usize,
}

impl Life {
    fn meets(&self, other: &Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    /// Bytes of one row.
    fn stride(&self) -> usize {
        self.form.bytes().next_multiple_of(ALIGNMENT) + GAP
    }

    /// All bytes; kernels load slopes and biases of two blocks, never activations, so there is
    /// nothing behind the last row.
    fn bytes(&self) -> usize {
        self.stride() * self.rows
    }
}

fn lives(plan: &Plan, segments: &[Segment], rows_max: usize) -> Vec<Life> {
    let segment_of = |step: usize| {
        segments.iter().find(|s| s.steps.contains(&step)).expect("every step is in a segment")
    };
    let mut lives = Vec::new();
    for value in (0..plan.values.len()).filter(|&v| plan.values[v].home == Home::Arena) {
        let touches = |step: &usize| {
            plan.steps[*step].writes == value || plan.steps[*step].reads.contains(&value)
        };
        let mut steps = (0..plan.steps.len()).filter(touches);
        let Some(first) = steps.next() else { continue };
        let last = steps.next_back().unwrap_or(first);
        let (begins, ends) = (segment_of(first), segment_of(last));
        let form = plan.values[value].form;
        lives.push(if begins == ends && begins.is_row_by_row {
            Life { value, from: first, to: last, form, rows: 1 }
        } else {
            // A segment that runs row by row comes back to its first step for the next row, which
            // must find what other segments gave it, and leave alone what it gives to them.
            let from = if begins.is_row_by_row { begins.steps.start } else { first };
            let to = if ends.is_row_by_row { ends.steps.end - 1 } else { last };
            Life { value, from, to, form, rows: rows_max }
        });
    }
    lives
}

/// Where each value lies, and the bytes of all.
fn places(
    plan: &Plan,
    segments: &[Segment],
    policy: &Policy,
    rows_max: usize,
) -> (Vec<Option<Place>>, usize) {
    let mut lives = lives(plan, segments, rows_max);
    // Large values first: small ones find gaps between them.
    lives.sort_by_key(|life| (std::cmp::Reverse(life.bytes()), life.value));
    let mut taken: Vec<(Life, usize)> = Vec::new();
    let mut places = vec![None; plan.values.len()];
    let mut arena = GAP;
    for life in lives {
        let offset = if policy.shares_memory { lowest_gap(&life, &taken) } else { arena };
        arena = arena.max(offset + life.bytes());
        places[life.value] = Some(Place { offset, stride: strides(&life) });
        taken.push((life, offset));
    }
    (places, arena)
}

fn strides(life: &Life) -> usize {
    if life.rows == 1 { 0 } else { life.stride() }
}

/// The lowest offset at which the value disturbs no other. Others are disturbed when their lives
/// meet, or when either keeps zeros in its border from one run to the next: then only a value of
/// the very same form and place may follow.
fn lowest_gap(life: &Life, taken: &[(Life, usize)]) -> usize {
    let is_free = |offset: usize| {
        taken.iter().all(|(other, at)| {
            let apart = offset + life.bytes() <= *at || at + other.bytes() <= offset;
            let can_follow = !life.meets(other)
                && (life.form.can_share() && other.form.can_share()
                    || (life.form == other.form && life.rows == other.rows && offset == *at));
            apart || can_follow
        })
    };
    let mut candidates: Vec<usize> = taken.iter().map(|(other, at)| at + other.bytes()).collect();
    candidates.extend(taken.iter().map(|(_, at)| *at));
    candidates.push(GAP);
    candidates.sort_unstable();
    candidates.into_iter().find(|&offset| is_free(offset)).expect("behind all others is free")
}
