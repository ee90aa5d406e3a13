//! Runs a plan on memory of its own.

#[cfg(test)]
mod guards;

use std::ops::Range;
use std::sync::Arc;

use super::memory::Buffer;
use super::plan::{Home, Plan, Step};
use super::schedule::Schedule;
use super::team::Barrier;
use super::work::{Failure, Region, Run, Spot};

/// A plan with an arena: what one thread needs to run it.
pub(super) struct Executor {
    plan: Arc<Plan>,
    schedule: Arc<Schedule>,
    /// Keeps the memory that `spots` point to.
    _arena: Buffer,
    scratch: Buffer,
    spots: Vec<Spot>,
}

// SAFETY: the pointers in `spots` are to the executor's own arena, or to the caller's input and
// outputs during a run.
unsafe impl Send for Executor {}

/// The caller's memory for some rows of a batch.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The whole batch's input, and its outputs, one after the other for all rows.
    pub(super) input: *const f32,
    pub(super) outputs: *mut f32,
    /// Rows of the whole batch.
    pub(super) of: usize,
    /// The rows meant.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Where a step says that it failed.
    pub(super) failure: &'a Failure,
}

// SAFETY: whoever makes one sees to it that nobody else uses the outputs of these rows.
unsafe impl Sync for Rows<'_> {}

impl Rows<'_> {
    /// A thread's share of the rows.
    pub(super) fn part(&self, Part { index, of }: Part) -> Self {
        let (from, to) = (self.count * index / of, self.count * (index + 1) / of);
        Self { first: self.first + from, count: to - from, ..*self }
    }
}

impl Executor {
    pub(super) fn new(plan: Arc<Plan>, schedule: Arc<Schedule>) -> Self {
        let arena = Buffer::zeroed(schedule.arena);
        let scratch = Buffer::zeroed(schedule.scratch);
        let nowhere = Spot { start: std::ptr::null_mut(), stride: 0 };
        let spots = schedule.places.iter().map(|place| match place {
            // SAFETY: places lie in the arena.
            Some(place) => {
                Spot { start: unsafe { arena.start().add(place.offset) }, stride: place.stride }
            }
            None => nowhere,
        });
        let spots = spots.collect();
        Self { plan, schedule, _arena: arena, scratch, spots }
    }

    /// Runs any number of rows, as many at a time as the schedule takes. `seen` is told of each
    /// step and each link of a step when it has run.
    pub(super) fn run(&mut self, rows: &Rows<'_>, seen: &dyn Fn(usize, usize)) {
        let rows_max = self.schedule.rows_max;
        for from in (0..rows.count).step_by(rows_max) {
            let count = rows_max.min(rows.count - from);
            self.aim(&Rows { first: rows.first + from, count, ..*rows });
            for segment in &self.schedule.segments {
                let passes = if segment.is_row_by_row { count } else { 1 };
                for pass in 0..passes {
                    let images = if segment.is_row_by_row { pass..pass + 1 } else { 0..count };
                    for step in segment.steps.clone() {
                        let lap = |link| seen(step, link);
                        self.step(step, images.clone(), rows.failure, &lap);
                        lap(0);
                    }
                }
            }
        }
    }

    fn step(&self, step: usize, images: Range<usize>, failure: &Failure, lap: &dyn Fn(usize)) {
        let step = &self.plan.steps[step];
        let region = Region { images, rows: 0..step.rows, groups: 0..step.groups };
        let (kernels, spots) = (self.plan.kernels, &self.spots);
        let run = Run { kernels, spots, scratch: self.scratch.start(), failure, lap };
        // SAFETY: the region is the step's output, the spots are those of the plan, and this
        // thread alone uses them.
        unsafe { step.work.run(&run, &region) };
    }

    /// Points the caller's values at some rows.
    fn aim(&mut self, rows: &Rows<'_>) {
        let mut offset = 0;
        let offsets: [usize; OUTPUTS_MAX] = std::array::from_fn(|index| {
            let len = self.plan.output_lens.get(index).copied().unwrap_or(0);
            let start = offset;
            offset += len * rows.of;
            start
        });
        for (value, spot) in self.plan.values.iter().zip(&mut self.spots) {
            let (start, len) = match value.home {
                Home::Arena => continue,
                // Nothing writes to the input.
                Home::Input => (rows.input.cast_mut(), self.plan.input_len),
                Home::Output(index) => {
                    let start = rows.outputs.wrapping_add(offsets[index]);
                    (start, self.plan.output_lens[index])
                }
            };
            let start = start.wrapping_add(rows.first * len).cast();
            *spot = Spot { start, stride: len * size_of::<f32>() };
        }
    }

    /// The memory of one row, for several threads that run it together.
    pub(super) fn share<'a>(&'a mut self, rows: &Rows<'a>) -> SharedRow<'a> {
        self.aim(rows);
        let (plan, spots, scratch) = (&self.plan, &self.spots, self.scratch.start());
        SharedRow { plan, spots, scratch, failure: rows.failure }
    }

    pub(super) fn scratch(&self) -> *mut u8 {
        self.scratch.start()
    }
}

/// Most outputs of a network, as in a manifest.
pub(super) const OUTPUTS_MAX: usize = 32;

/// One row of a batch that several threads work on.
pub(super) struct SharedRow<'a> {
    plan: &'a Plan,
    spots: &'a [Spot],
    /// The scratch of the first of them.
    pub(super) scratch: *mut u8,
    failure: &'a Failure,
}

// SAFETY: threads write to different parts of the spots, step by step, and each to a scratch of
// its own.
unsafe impl Sync for SharedRow<'_> {}

impl SharedRow<'_> {
    /// This thread's part of the row.
    pub(super) fn run(&self, part: Part, scratch: *mut u8, barrier: &Barrier) {
        let (kernels, spots, failure) = (self.plan.kernels, self.spots, self.failure);
        let run = Run { kernels, spots, scratch, failure, lap: &|_| {} };
        for step in &self.plan.steps {
            if let Some(region) = part.of(step) {
                // SAFETY: the parts of a step do not overlap, and the barrier keeps steps apart.
                unsafe { step.work.run(&run, &region) };
            }
            barrier.wait();
        }
    }
}

/// Which of how many threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Part {
    /// This part of a step: rows where there are many, as the next step reads mostly the same
    /// rows, else groups of channels.
    fn of(self, step: &Step) -> Option<Region> {
        let units = step.rows.div_ceil(step.row_unit);
        let share = |count: usize| count * self.index / self.of..count * (self.index + 1) / self.of;
        let (rows, groups) = if units >= 4 * self.of || units > step.groups {
            let units = share(units);
            let end = step.rows.min(units.end * step.row_unit);
            (units.start * step.row_unit..end, 0..step.groups)
        } else {
            (0..step.rows, share(step.groups))
        };
        let is_some = !rows.is_empty() && !groups.is_empty();
        is_some.then_some(Region { images: 0..1, rows, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::cpu::lower::lower;
    use crate::fixtures::random_optimised_graph;

    #[test]
    fn parts_of_a_step_are_the_whole_step_and_do_not_overlap() {
        for seed in 0..150 {
            let plan = lower(&random_optimised_graph(seed), &PORTABLE_F32).unwrap();
            for (step, of) in plan.steps.iter().flat_map(|step| (1..=5).map(move |of| (step, of))) {
                let mut times = vec![vec![0; step.groups]; step.rows];
                for region in (0..of).filter_map(|index| Part { index, of }.of(step)) {
                    assert_eq!(region.images, 0..1);
                    assert_eq!(region.rows.start % step.row_unit, 0, "tiles of rows stay whole");
                    for row in &mut times[region.rows] {
                        row[region.groups.clone()].iter_mut().for_each(|times| *times += 1);
                    }
                }
                assert!(times.iter().flatten().all(|&times| times == 1), "{} of {of}", step.label);
            }
        }
    }

    #[test]
    fn threads_share_all_rows_of_a_batch() {
        for (count, of) in (0..20).flat_map(|count| (1..=5).map(move |of| (count, of))) {
            let outputs = std::ptr::null_mut();
            let (input, failure) = (std::ptr::null(), &Failure::default());
            let all = Rows { input, outputs, of: 40, first: 7, count, failure };
            let mut next = 7;
            for part in (0..of).map(|index| all.part(Part { index, of })) {
                assert_eq!((part.first, part.of), (next, 40));
                next += part.count;
            }
            assert_eq!(next, 7 + count);
        }
    }
}
