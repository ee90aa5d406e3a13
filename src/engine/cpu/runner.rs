//! Runs a plan on an arena of its own.

#[cfg(test)]
mod guards;

use std::ops::Range;
use std::sync::Arc;

use super::memory::MappedMemory;
use super::plan::{Owner, Plan, Step};
use super::schedule::Schedule;
use super::team::Barrier;
use super::work::{BufferPtr, Failure, OutputRegion, RunContext};

/// A plan with an arena and scratch: all that one thread needs to run it.
pub(super) struct PlanRunner {
    plan: Arc<Plan>,
    schedule: Arc<Schedule>,
    /// Owns the memory that `buffer_ptrs` point to.
    _arena: MappedMemory,
    scratch: MappedMemory,
    buffer_ptrs: Vec<BufferPtr>,
}

// SAFETY: the pointers in `buffer_ptrs` point to the executor's own arena or, during a run, to the
// caller's input and outputs.
unsafe impl Send for PlanRunner {}

/// Some items of a batch, in the caller's memory.
#[derive(Clone, Copy)]
pub(super) struct BatchSlice<'a> {
    /// The input of the whole batch, and its outputs: each output for all items, one output after
    /// another.
    pub(super) input: *const f32,
    pub(super) outputs: *mut f32,
    /// Items of the whole batch.
    pub(super) batch_items: usize,
    /// First item of the slice.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Receives the first error of a step.
    pub(super) failure: &'a Failure,
}

// SAFETY: the code that makes a slice makes sure that no other code uses the outputs of its items.
unsafe impl Sync for BatchSlice<'_> {}

impl BatchSlice<'_> {
    /// Returns the items that one of several threads runs.
    pub(super) fn share(&self, Share { index, threads }: Share) -> Self {
        let (from, to) = (self.count * index / threads, self.count * (index + 1) / threads);
        Self { first: self.first + from, count: to - from, ..*self }
    }
}

impl PlanRunner {
    pub(super) fn new(plan: Arc<Plan>, schedule: Arc<Schedule>) -> Self {
        let arena = MappedMemory::zeroed(schedule.arena_bytes);
        let scratch = MappedMemory::zeroed(schedule.scratch_bytes);
        let null = BufferPtr { start: std::ptr::null_mut(), item_stride: 0 };
        let buffer_ptrs = schedule.arena_places.iter().map(|place| match place {
            Some(place) => {
                // SAFETY: the places lie in the arena.
                let start = unsafe { arena.start().add(place.offset) };
                BufferPtr { start, item_stride: place.item_stride }
            }
            None => null,
        });
        let buffer_ptrs = buffer_ptrs.collect();
        Self { plan, schedule, _arena: arena, scratch, buffer_ptrs }
    }

    /// Runs the items of a slice, up to `items_max` of the schedule at a time. Calls
    /// `stage_done(step, stage)` after each stage of a chain, and `stage_done(step, 0)` after each
    /// step. So the time of a step without stages is that of stage 0.
    pub(super) fn run(&mut self, slice: &BatchSlice<'_>, stage_done: &dyn Fn(usize, usize)) {
        let items_max = self.schedule.items_max;
        for from in (0..slice.count).step_by(items_max) {
            let count = items_max.min(slice.count - from);
            self.set_caller_ptrs(&BatchSlice { first: slice.first + from, count, ..*slice });
            for segment in &self.schedule.segments {
                let passes = if segment.is_item_by_item { count } else { 1 };
                for pass in 0..passes {
                    let items = if segment.is_item_by_item { pass..pass + 1 } else { 0..count };
                    for step in segment.steps.clone() {
                        let done = |stage| stage_done(step, stage);
                        self.run_step(step, items.clone(), slice.failure, &done);
                        done(0);
                    }
                }
            }
        }
    }

    fn run_step(
        &self,
        step: usize,
        items: Range<usize>,
        failure: &Failure,
        stage_done: &dyn Fn(usize),
    ) {
        let step = &self.plan.steps[step];
        let region = OutputRegion { items, rows: 0..step.rows, groups: 0..step.groups };
        let run = RunContext {
            kernels: self.plan.kernels,
            buffer_ptrs: &self.buffer_ptrs,
            scratch: self.scratch.start(),
            failure,
            stage_done,
        };
        // SAFETY: the region is the whole output of the step, the buffers are those of the plan,
        // and only this thread uses them.
        unsafe { step.work.run(&run, &region) };
    }

    /// Sets the pointers of the caller's buffers to the items of a slice.
    fn set_caller_ptrs(&mut self, slice: &BatchSlice<'_>) {
        let mut offset = 0;
        let offsets: [usize; OUTPUTS_MAX] = std::array::from_fn(|index| {
            let len = self.plan.output_lens.get(index).copied().unwrap_or(0);
            let start = offset;
            offset += len * slice.batch_items;
            start
        });
        for (buffer, ptr) in self.plan.buffers.iter().zip(&mut self.buffer_ptrs) {
            let (start, len) = match buffer.owner {
                Owner::Arena => continue,
                // No step writes to the input.
                Owner::Input => (slice.input.cast_mut(), self.plan.input_len),
                Owner::Output(index) => {
                    let start = slice.outputs.wrapping_add(offsets[index]);
                    (start, self.plan.output_lens[index])
                }
            };
            let start = start.wrapping_add(slice.first * len).cast();
            *ptr = BufferPtr { start, item_stride: len * size_of::<f32>() };
        }
    }

    /// Returns the memory of one item, for several threads that run the item together.
    pub(super) fn team_item<'a>(&'a mut self, slice: &BatchSlice<'a>) -> TeamItem<'a> {
        self.set_caller_ptrs(slice);
        TeamItem {
            plan: &self.plan,
            buffer_ptrs: &self.buffer_ptrs,
            scratch: self.scratch.start(),
            failure: slice.failure,
        }
    }

    pub(super) fn scratch(&self) -> *mut u8 {
        self.scratch.start()
    }
}

/// Most outputs of a network, as in a manifest.
pub(super) const OUTPUTS_MAX: usize = 32;

/// One item of a batch that several threads run together.
pub(super) struct TeamItem<'a> {
    plan: &'a Plan,
    buffer_ptrs: &'a [BufferPtr],
    /// The scratch of the first thread.
    pub(super) scratch: *mut u8,
    failure: &'a Failure,
}

// SAFETY: in each step, every thread writes to another part of the buffers, and to a scratch of its
// own.
unsafe impl Sync for TeamItem<'_> {}

impl TeamItem<'_> {
    /// Runs this thread's share of every step.
    pub(super) fn run(&self, share: Share, scratch: *mut u8, barrier: &Barrier) {
        let run = RunContext {
            kernels: self.plan.kernels,
            buffer_ptrs: self.buffer_ptrs,
            scratch,
            failure: self.failure,
            stage_done: &|_| {},
        };
        for step in &self.plan.steps {
            if let Some(region) = share.region(step) {
                // SAFETY: the shares of a step do not overlap, and the barrier separates the steps.
                unsafe { step.work.run(&run, &region) };
            }
            barrier.wait();
        }
    }
}

/// One of `threads` equal shares of the work, by index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) threads: usize,
}

impl Share {
    /// Returns this share of a step, or `None` if the share is empty. A step with many rows is
    /// split by rows, because the next step then mostly reads rows of the same thread. So is a step
    /// with more units of rows than groups of channels. Other steps are split by groups.
    fn region(self, step: &Step) -> Option<OutputRegion> {
        let units = step.rows.div_ceil(step.row_unit);
        let split = |count: usize| {
            count * self.index / self.threads..count * (self.index + 1) / self.threads
        };
        let (rows, groups) = if units >= 4 * self.threads || units > step.groups {
            let units = split(units);
            let end = step.rows.min(units.end * step.row_unit);
            (units.start * step.row_unit..end, 0..step.groups)
        } else {
            (0..step.rows, split(step.groups))
        };
        let is_some = !rows.is_empty() && !groups.is_empty();
        is_some.then_some(OutputRegion { items: 0..1, rows, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::cpu::lower::lower;
    use crate::fixtures::random_optimised_graph;

    #[test]
    fn the_shares_of_a_step_cover_it_and_do_not_overlap() {
        for seed in 0..150 {
            let plan = lower(&random_optimised_graph(seed), &PORTABLE_F32).unwrap();
            for (step, threads) in
                plan.steps.iter().flat_map(|step| (1..=5).map(move |threads| (step, threads)))
            {
                let mut times = vec![vec![0; step.groups]; step.rows];
                for region in (0..threads).filter_map(|index| Share { index, threads }.region(step))
                {
                    assert_eq!(region.items, 0..1);
                    assert_eq!(region.rows.start % step.row_unit, 0, "tiles of rows stay whole");
                    for row in &mut times[region.rows] {
                        row[region.groups.clone()].iter_mut().for_each(|times| *times += 1);
                    }
                }
                assert!(
                    times.iter().flatten().all(|&times| times == 1),
                    "{} on {threads} threads",
                    step.label
                );
            }
        }
    }

    #[test]
    fn threads_share_all_items_of_a_batch() {
        for (count, threads) in
            (0..20).flat_map(|count| (1..=5).map(move |threads| (count, threads)))
        {
            let outputs = std::ptr::null_mut();
            let (input, failure) = (std::ptr::null(), &Failure::default());
            let all = BatchSlice { input, outputs, batch_items: 40, first: 7, count, failure };
            let mut next = 7;
            for share in (0..threads).map(|index| all.share(Share { index, threads })) {
                assert_eq!((share.first, share.batch_items), (next, 40));
                next += share.count;
            }
            assert_eq!(next, 7 + count);
        }
    }
}
