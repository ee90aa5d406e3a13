//! Decides the order in which a plan's steps run, and which buffers share memory.
//!
//! There are two ways to order steps and items, and each saves one kind of memory traffic. Where
//! activations are larger than weights, one item after another keeps the activations in the cache.
//! Where weights are larger, all items together read the weights once. So a plan is split into
//! segments of one kind or the other.
//!
//! Buffers whose live ranges do not overlap share memory. This matters for speed: the arena of a
//! detector on a large image then fits into the last-level cache.

use std::ops::Range;

use super::lower::BandPolicy;
use super::plan::{Owner, Plan, ValueLayout};

/// The order of a plan's steps for up to `items_max` items at a time, and the memory layout.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) items_max: usize,
    pub(super) segments: Vec<Segment>,
    /// Place of each buffer in the arena; `None` for the caller's buffers.
    pub(super) arena_places: Vec<Option<ArenaPlace>>,
    pub(super) arena_bytes: usize,
    pub(super) scratch_bytes: usize,
}

/// Consecutive steps that run for one item after another, or for all items together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) is_item_by_item: bool,
    pub(super) steps: Range<usize>,
}

/// The place of a buffer in the arena, in bytes. `item_stride` is the distance from one item to the
/// next, and 0 if the arena holds one item of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArenaPlace {
    pub(super) offset: usize,
    pub(super) item_stride: usize,
}

/// The limits by which steps are ordered and fused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Steps with at most this many bytes of weights run item by item.
    pub(super) light_weights_bytes_max: usize,
    /// Steps in which an item uses each weight at least this often run item by item, too.
    pub(super) light_uses_min: usize,
    /// Whether buffers whose live ranges do not overlap may share memory.
    pub(super) shares_memory: bool,
    /// Limits for steps that run in bands.
    pub(super) bands: BandPolicy,
}

impl Policy {
    /// The fastest limits on usual processors. Tests use others too.
    pub(super) const DEFAULT: Self = Self {
        light_weights_bytes_max: LIGHT_WEIGHTS_BYTES_MAX,
        light_uses_min: LIGHT_USES_MIN,
        shares_memory: true,
        bands: BandPolicy::DEFAULT,
    };
}

/// Items that run together in a network with heavy weights.
const ITEMS_TOGETHER: usize = 8;

/// Weights up to this size stay in the second-level cache beside the activations of an item.
const LIGHT_WEIGHTS_BYTES_MAX: usize = 128 << 10;

/// A core reads a weight from the last-level cache in the time of about twenty multiply-adds. If an
/// item uses each weight five times as often, prefetching delivers the weights in time for every
/// item.
const LIGHT_USES_MIN: usize = 100;

/// A cache line, in bytes.
const ALIGNMENT: usize = 64;

/// Bytes before the first buffer and after each item of each buffer. Tests fill them with poison.
const BUFFER_GUARD_BYTES: usize = if cfg!(test) { 1024 } else { 0 };

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
        let (arena_places, arena_bytes) = lay_out_arena(plan, &segments, policy, items_max);
        let scratch_bytes = plan.steps.iter().map(|step| step.work.scratch_bytes(items_max)).max();
        let scratch_bytes = scratch_bytes.unwrap_or(0);
        Self { items_max, segments, arena_places, arena_bytes, scratch_bytes }
    }
}

/// Returns whether a step's weights are worth reading once for all items of the batch.
fn is_heavy(plan: &Plan, step: usize, policy: &Policy) -> bool {
    let work = &plan.steps[step].work;
    work.weight_bytes() > policy.light_weights_bytes_max
        && work.weight_uses() < policy.light_uses_min
}

/// A buffer of the arena with its live range: no other buffer may use its memory from `first_step`
/// to `last_step`.
#[derive(Debug, Clone)]
struct LiveRange {
    buffer: usize,
    first_step: usize,
    last_step: usize,
    layout: ValueLayout,
    /// Items that the memory holds: one, if the buffer lives within a segment that runs item by
    /// item.
    items: usize,
}

impl LiveRange {
    fn overlaps(&self, other: &Self) -> bool {
        self.first_step <= other.last_step && other.first_step <= self.last_step
    }

    /// Bytes of one item, with alignment and guard.
    fn item_bytes(&self) -> usize {
        self.layout.bytes().next_multiple_of(ALIGNMENT) + BUFFER_GUARD_BYTES
    }

    /// Bytes of all items, each with its alignment and, in tests, its guard. Kernels never read
    /// past the end of activations, so nothing else needs to follow the last item.
    fn bytes(&self) -> usize {
        self.item_bytes() * self.items
    }
}

fn live_ranges(plan: &Plan, segments: &[Segment], items_max: usize) -> Vec<LiveRange> {
    let segment_of = |step: usize| {
        segments.iter().find(|s| s.steps.contains(&step)).expect("every step is in a segment")
    };
    let mut ranges = Vec::new();
    for buffer in (0..plan.buffers.len()).filter(|&b| plan.buffers[b].owner == Owner::Arena) {
        let touches = |step: &usize| {
            plan.steps[*step].writes == buffer || plan.steps[*step].reads.contains(&buffer)
        };
        let mut steps = (0..plan.steps.len()).filter(touches);
        let Some(first) = steps.next() else { continue };
        let last = steps.next_back().unwrap_or(first);
        let (first_segment, last_segment) = (segment_of(first), segment_of(last));
        let layout = plan.buffers[buffer].layout;
        ranges.push(if first_segment == last_segment && first_segment.is_item_by_item {
            LiveRange { buffer, first_step: first, last_step: last, layout, items: 1 }
        } else {
            // A segment that runs item by item returns to its first step for each item. So buffers
            // from other segments must stay until its last step. Buffers for other segments must
            // not be overwritten from its first step on.
            let first_step =
                if first_segment.is_item_by_item { first_segment.steps.start } else { first };
            let last_step =
                if last_segment.is_item_by_item { last_segment.steps.end - 1 } else { last };
            LiveRange { buffer, first_step, last_step, layout, items: items_max }
        });
    }
    ranges
}

/// Returns the place of each buffer in the arena, and the bytes of the arena.
fn lay_out_arena(
    plan: &Plan,
    segments: &[Segment],
    policy: &Policy,
    items_max: usize,
) -> (Vec<Option<ArenaPlace>>, usize) {
    let mut live = live_ranges(plan, segments, items_max);
    // Large buffers are placed first; small ones then fit into the gaps between them.
    live.sort_by_key(|range| (std::cmp::Reverse(range.bytes()), range.buffer));
    let mut placed: Vec<(LiveRange, usize)> = Vec::new();
    let mut arena_places = vec![None; plan.buffers.len()];
    let mut arena_bytes = BUFFER_GUARD_BYTES;
    for range in live {
        let offset =
            if policy.shares_memory { first_free_offset(&range, &placed) } else { arena_bytes };
        arena_bytes = arena_bytes.max(offset + range.bytes());
        let item_stride = item_stride(&range);
        arena_places[range.buffer] = Some(ArenaPlace { offset, item_stride });
        placed.push((range, offset));
    }
    (arena_places, arena_bytes)
}

fn item_stride(range: &LiveRange) -> usize {
    if range.items == 1 { 0 } else { range.item_bytes() }
}

/// Returns the first offset at which the buffer disturbs no other buffer over its live range. A
/// buffer disturbs another one if they overlap in memory and their live ranges overlap. It also
/// does if either image keeps zeros in its border between runs. Such an image may share memory only
/// with an image of the same layout at the same offset.
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
    candidates.push(BUFFER_GUARD_BYTES);
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

    /// The buffer and the item that each range of bytes holds.
    #[derive(Default)]
    struct Memory(Vec<(Range<usize>, usize, usize)>);

    impl Memory {
        fn write(&mut self, bytes: Range<usize>, buffer: usize, item: usize) {
            self.0.retain(|(other, ..)| other.end <= bytes.start || bytes.end <= other.start);
            self.0.push((bytes, buffer, item));
        }

        fn holds(&self, buffer: usize, item: usize) -> bool {
            self.0.iter().any(|(_, b, i)| (*b, *i) == (buffer, item))
        }
    }

    /// Repeats a plan's reads and writes in the order of an executor.
    fn assert_reads_find_what_was_written(seed: u64, plan: &Plan, schedule: &Schedule) {
        let mut memory = Memory::default();
        let is_in_arena = |buffer: &usize| plan.buffers[*buffer].owner == Owner::Arena;
        for segment in &schedule.segments {
            let all: Vec<usize> = (0..schedule.items_max).collect();
            let passes =
                if segment.is_item_by_item { all.chunks(1) } else { all.chunks(all.len()) };
            for (items, step) in
                passes.flat_map(|items| segment.steps.clone().map(move |s| (items, s)))
            {
                let Step { reads, writes, label, .. } = &plan.steps[step];
                for &item in items {
                    for &buffer in reads.iter().filter(|buffer| is_in_arena(buffer)) {
                        let is_there = memory.holds(buffer, item);
                        assert!(is_there, "seed {seed}: {label} reads {buffer} of item {item}");
                    }
                    if let Some(place) = schedule.arena_places[*writes] {
                        let start = place.offset + item * place.item_stride;
                        let end = start + plan.buffers[*writes].layout.bytes();
                        assert!(end <= schedule.arena_bytes && start % ALIGNMENT == 0);
                        memory.write(start..end, *writes, item);
                    }
                }
            }
        }
    }

    #[test]
    fn every_read_finds_the_whole_buffer_of_every_item() {
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

    /// A border stays zero only if nothing but images with the same border use its memory.
    #[test]
    fn an_image_whose_border_stays_zero_shares_memory_only_with_images_of_its_layout() {
        for_random_plans(|seed, plan, schedule| {
            let placed: Vec<(ValueLayout, ArenaPlace, usize)> = plan
                .buffers
                .iter()
                .zip(&schedule.arena_places)
                .filter_map(|(buffer, place)| {
                    let place = (*place)?;
                    let items = if place.item_stride == 0 { 1 } else { schedule.items_max };
                    let end =
                        place.offset + (items - 1) * place.item_stride + buffer.layout.bytes();
                    Some((buffer.layout, place, end))
                })
                .collect();
            for (layout, place, end) in placed.iter().filter(|(layout, ..)| !layout.can_share()) {
                for (other, at, other_end) in &placed {
                    let is_apart = end <= &at.offset || other_end <= &place.offset;
                    assert!(is_apart || (layout == other && place == at), "seed {seed}");
                }
            }
        });
    }
}
