//! In which order a plan's steps run, and which values share memory.
//!
//! Two orders fight over the cache. Where activations are larger than weights, one row of the
//! batch after the other keeps activations close; where weights are larger, all rows together read
//! them once. So a plan is cut into segments of one kind or the other.
//!
//! Values whose lives do not meet share memory, which is worth more than its bytes: the arena of a
//! detector on a large picture then stays in the last-level cache.

use std::ops::Range;

use super::lower::BandPolicy;
use super::plan::{Owner, Plan, ValueLayout};

/// The order of a plan for up to `rows_max` rows of a batch.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) items_max: usize,
    pub(super) segments: Vec<Segment>,
    /// Per value, where it is in the arena; `None` for the caller's.
    pub(super) arena_ranges: Vec<Option<ArenaRange>>,
    /// Bytes of the arena.
    pub(super) arena_bytes: usize,
    /// Bytes of scratch.
    pub(super) scratch_bytes: usize,
}

/// Steps that run together, for one row of the batch at a time or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) is_item_by_item: bool,
    pub(super) steps: Range<usize>,
}

/// Bytes from the arena's start, and from one row of the batch to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArenaRange {
    pub(super) offset: usize,
    pub(super) item_stride: usize,
}

/// How a plan is ordered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Steps with fewer bytes of weights run row by row.
    pub(super) light_weights_bytes_max: usize,
    /// So do those whose rows use each weight at least this often.
    pub(super) light_uses_min: usize,
    /// Whether values that never meet get the same memory.
    pub(super) shares_memory: bool,
    /// Which steps run in bands.
    pub(super) bands: BandPolicy,
}

impl Policy {
    /// The fastest on usual processors; tests have others, too.
    pub(super) const DEFAULT: Self = Self {
        light_weights_bytes_max: LIGHT_WEIGHTS_BYTES_MAX,
        light_uses_min: LIGHT_USES_MIN,
        shares_memory: true,
        bands: BandPolicy::DEFAULT,
    };
}

/// Rows of a batch that run together where a network has weights that are worth it.
const ITEMS_TOGETHER: usize = 8;

/// Weights below this stay in a second-level cache beside the activations of a row.
const LIGHT_WEIGHTS_BYTES_MAX: usize = 128 << 10;

/// A core reads a weight from the last cache in the time of some twenty multiply-adds. Where a row
/// uses each of them five times as often, fetching ahead has them there in time for every row.
const LIGHT_USES_MIN: usize = 100;

/// A cache line.
const ALIGNMENT: usize = 64;

/// Bytes in front of the first value and behind each row of each value, which tests guard.
const GUARD_BYTES: usize = if cfg!(test) { 1024 } else { 0 };

impl Schedule {
    pub(super) fn new(plan: &Plan, policy: &Policy) -> Self {
        let is_heavy = |step| is_heavy(plan, step, policy);
        let heavy: Vec<bool> = (0..plan.steps.len()).map(is_heavy).collect();
        let items_max = if heavy.contains(&true) { ITEMS_TOGETHER } else { 1 };
        let mut segments: Vec<Segment> = Vec::new();
        for run in heavy.chunk_by(|a, b| a == b) {
            let from = segments.last().map_or(0, |segment| segment.steps.end);
            segments.push(Segment { is_item_by_item: !run[0], steps: from..from + run.len() });
        }
        let (arena_ranges, arena_bytes) = lay_out_arena(plan, &segments, policy, items_max);
        let scratch_bytes = plan.steps.iter().map(|step| step.work.scratch_bytes(items_max)).max();
        let scratch_bytes = scratch_bytes.unwrap_or(0);
        Self { items_max, segments, arena_ranges, arena_bytes, scratch_bytes }
    }
}

/// Whether a step's weights are worth reading once for all rows of the batch.
fn is_heavy(plan: &Plan, step: usize, policy: &Policy) -> bool {
    let work = &plan.steps[step].work;
    work.weight_bytes() > policy.light_weights_bytes_max
        && work.weight_uses() < policy.light_uses_min
}

/// A value of the arena, and the steps between which its memory is its own.
#[derive(Debug, Clone)]
struct LiveRange {
    value: usize,
    first_step: usize,
    last_step: usize,
    layout: ValueLayout,
    /// Rows of the batch it holds: one where it lives within a segment that runs row by row.
    items: usize,
}

impl LiveRange {
    fn overlaps(&self, other: &Self) -> bool {
        self.first_step <= other.last_step && other.first_step <= self.last_step
    }

    /// Bytes of one row.
    fn item_bytes(&self) -> usize {
        self.layout.bytes().next_multiple_of(ALIGNMENT) + GUARD_BYTES
    }

    /// All bytes; kernels load slopes and biases of two blocks, never activations, so there is
    /// nothing behind the last row.
    fn bytes(&self) -> usize {
        self.item_bytes() * self.items
    }
}

fn live_ranges(plan: &Plan, segments: &[Segment], items_max: usize) -> Vec<LiveRange> {
    let segment_of = |step: usize| {
        segments.iter().find(|s| s.steps.contains(&step)).expect("every step is in a segment")
    };
    let mut ranges = Vec::new();
    for value in (0..plan.values.len()).filter(|&v| plan.values[v].owner == Owner::Arena) {
        let touches = |step: &usize| {
            plan.steps[*step].writes == value || plan.steps[*step].reads.contains(&value)
        };
        let mut steps = (0..plan.steps.len()).filter(touches);
        let Some(first) = steps.next() else { continue };
        let last = steps.next_back().unwrap_or(first);
        let (first_segment, last_segment) = (segment_of(first), segment_of(last));
        let layout = plan.values[value].layout;
        ranges.push(if first_segment == last_segment && first_segment.is_item_by_item {
            LiveRange { value, first_step: first, last_step: last, layout, items: 1 }
        } else {
            // A segment that runs row by row comes back to its first step for the next row, which
            // must find what other segments gave it, and leave alone what it gives to them.
            let first_step =
                if first_segment.is_item_by_item { first_segment.steps.start } else { first };
            let last_step =
                if last_segment.is_item_by_item { last_segment.steps.end - 1 } else { last };
            LiveRange { value, first_step, last_step, layout, items: items_max }
        });
    }
    ranges
}

/// Where each value lies, and the bytes of all.
fn lay_out_arena(
    plan: &Plan,
    segments: &[Segment],
    policy: &Policy,
    items_max: usize,
) -> (Vec<Option<ArenaRange>>, usize) {
    let mut live = live_ranges(plan, segments, items_max);
    // Large values first: small ones find gaps between them.
    live.sort_by_key(|range| (std::cmp::Reverse(range.bytes()), range.value));
    let mut placed: Vec<(LiveRange, usize)> = Vec::new();
    let mut arena_ranges = vec![None; plan.values.len()];
    let mut arena_bytes = GUARD_BYTES;
    for range in live {
        let offset =
            if policy.shares_memory { first_free_offset(&range, &placed) } else { arena_bytes };
        arena_bytes = arena_bytes.max(offset + range.bytes());
        let item_stride = item_stride(&range);
        arena_ranges[range.value] = Some(ArenaRange { offset, item_stride });
        placed.push((range, offset));
    }
    (arena_ranges, arena_bytes)
}

fn item_stride(range: &LiveRange) -> usize {
    if range.items == 1 { 0 } else { range.item_bytes() }
}

/// The lowest offset at which the value disturbs no other. Others are disturbed when their lives
/// meet, or when either keeps zeros in its border from one run to the next: then only a value of
/// the very same form and place may follow.
fn first_free_offset(range: &LiveRange, placed: &[(LiveRange, usize)]) -> usize {
    let is_free = |offset: usize| {
        placed.iter().all(|(other, at)| {
            let apart = offset + range.bytes() <= *at || at + other.bytes() <= offset;
            let can_follow = !range.overlaps(other)
                && (range.layout.can_share() && other.layout.can_share()
                    || (range.layout == other.layout
                        && range.items == other.items
                        && offset == *at));
            apart || can_follow
        })
    };
    let mut candidates: Vec<usize> = placed.iter().map(|(other, at)| at + other.bytes()).collect();
    candidates.extend(placed.iter().map(|(_, at)| *at));
    candidates.push(GUARD_BYTES);
    candidates.sort_unstable();
    candidates.into_iter().find(|&offset| is_free(offset)).expect("behind all others is free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::{KernelSet, PORTABLE_BF16, PORTABLE_F32};
    use crate::cpu::lower::lower;
    use crate::cpu::plan::Step;
    use crate::fixtures::random_optimised_graph;

    const HEAVY_FROM_FIRST_BYTE: Policy =
        Policy { light_weights_bytes_max: 0, light_uses_min: usize::MAX, ..Policy::DEFAULT };

    fn for_random_plans(check: impl Fn(u64, &Plan, &Schedule)) {
        let sets: [&'static KernelSet; 2] = [&PORTABLE_F32, &PORTABLE_BF16];
        for seed in 0..150 {
            for kernels in sets {
                let plan = lower(&random_optimised_graph(seed), kernels).unwrap();
                let apart = Policy { shares_memory: false, ..HEAVY_FROM_FIRST_BYTE };
                for policy in [Policy::DEFAULT, HEAVY_FROM_FIRST_BYTE, apart] {
                    check(seed, &plan, &Schedule::new(&plan, &policy));
                }
            }
        }
    }

    /// Which value and row of the batch lie in which bytes.
    #[derive(Default)]
    struct Memory(Vec<(Range<usize>, usize, usize)>);

    impl Memory {
        fn write(&mut self, bytes: Range<usize>, value: usize, item: usize) {
            self.0.retain(|(other, ..)| other.end <= bytes.start || bytes.end <= other.start);
            self.0.push((bytes, value, item));
        }

        fn holds(&self, value: usize, item: usize) -> bool {
            self.0.iter().any(|(_, v, i)| (*v, *i) == (value, item))
        }
    }

    /// Runs a plan's reads and writes as an executor does.
    fn assert_reads_find_what_was_written(seed: u64, plan: &Plan, schedule: &Schedule) {
        let mut memory = Memory::default();
        let is_in_arena = |value: &usize| plan.values[*value].owner == Owner::Arena;
        for segment in &schedule.segments {
            let all: Vec<usize> = (0..schedule.items_max).collect();
            let passes =
                if segment.is_item_by_item { all.chunks(1) } else { all.chunks(all.len()) };
            for (items, step) in
                passes.flat_map(|items| segment.steps.clone().map(move |s| (items, s)))
            {
                let Step { reads, writes, label, .. } = &plan.steps[step];
                for &item in items {
                    for &value in reads.iter().filter(|value| is_in_arena(value)) {
                        let is_there = memory.holds(value, item);
                        assert!(is_there, "seed {seed}: {label} reads {value} of item {item}");
                    }
                    if let Some(range) = schedule.arena_ranges[*writes] {
                        let start = range.offset + item * range.item_stride;
                        let end = start + plan.values[*writes].layout.bytes();
                        assert!(end <= schedule.arena_bytes && start % ALIGNMENT == 0);
                        memory.write(start..end, *writes, item);
                    }
                }
            }
        }
    }

    #[test]
    fn every_read_finds_the_whole_value_of_every_item() {
        for_random_plans(assert_reads_find_what_was_written);
    }

    #[test]
    fn every_step_runs_once_in_the_order_of_the_plan() {
        for_random_plans(|_, plan, schedule| {
            let steps = schedule.segments.iter().flat_map(|segment| segment.steps.clone());
            assert!(steps.eq(0..plan.steps.len()));
            let mut kinds =
                schedule.segments.chunk_by(|a, b| a.is_item_by_item == b.is_item_by_item);
            assert!(kinds.all(|segments| segments.len() == 1), "segments take turns");
            let together = schedule.segments.iter().any(|segment| !segment.is_item_by_item);
            assert_eq!(schedule.items_max, if together { ITEMS_TOGETHER } else { 1 });
            let scratch_bytes =
                plan.steps.iter().map(|step| step.work.scratch_bytes(schedule.items_max));
            assert!(scratch_bytes.max().unwrap_or(0) <= schedule.scratch_bytes);
        });
    }

    /// Zeros in a border stay only where nothing but images with the same border come.
    #[test]
    fn an_image_whose_border_stays_zero_shares_memory_only_with_images_of_its_layout() {
        for_random_plans(|seed, plan, schedule| {
            let placed: Vec<(ValueLayout, ArenaRange, usize)> = plan
                .values
                .iter()
                .zip(&schedule.arena_ranges)
                .filter_map(|(value, range)| {
                    let range = (*range)?;
                    let items = if range.item_stride == 0 { 1 } else { schedule.items_max };
                    let end = range.offset + (items - 1) * range.item_stride + value.layout.bytes();
                    Some((value.layout, range, end))
                })
                .collect();
            for (layout, range, end) in placed.iter().filter(|(layout, ..)| !layout.can_share()) {
                for (other, at, other_end) in &placed {
                    let is_apart = end <= &at.offset || other_end <= &range.offset;
                    assert!(is_apart || (layout == other && range == at), "seed {seed}");
                }
            }
        });
    }
}
