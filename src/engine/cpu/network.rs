//! A network on the CPU, also as one operation on candle tensors.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, bail};
use parking_lot::Mutex;

use super::item_parallelism::{ItemParallelism, Mode};
use super::kernels::KernelSet;
use super::lower::{fuse_bands, lower};
use super::peak;
use super::plan::Plan;
use super::runner::{BatchSlice, OUTPUTS_MAX, PlanRunner, Share};
use super::schedule::{Policy, Schedule};
use super::select::KernelChoice;
use super::team::{Barrier, ThreadTeam};
use super::work::Failure;
use crate::Precision;
use crate::error::EngineError;
use crate::graph::Graph;

/// A network on the CPU, with one executor for each thread of its team.
pub struct CpuNetwork {
    plan: Arc<Plan>,
    schedule: Arc<Schedule>,
    team: Arc<ThreadTeam>,
    runners: Vec<Mutex<PlanRunner>>,
    /// Locked during a run: the network runs one batch at a time.
    parallelism: Mutex<ItemParallelism>,
}

#[cfg(test)]
impl CpuNetwork {
    /// See [`PlanRunner::poison`].
    pub(super) fn poison(&self) {
        self.runners.iter().for_each(|executor| executor.lock().poison());
    }

    /// See [`PlanRunner::assert_guards_intact`].
    #[track_caller]
    pub(super) fn assert_guards_intact(&self) {
        self.runners.iter().for_each(|executor| executor.lock().assert_guards_intact());
    }
}

/// The time of one step, for `models profile`.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The operation and its shape.
    pub label: String,
    /// The algorithm of the kernel.
    pub algorithm: &'static str,
    /// Time for the whole batch: the shortest of all runs.
    pub time: Duration,
    /// Multiply-accumulate operations (MACs) for the whole batch, counted as for a direct
    /// convolution.
    pub macs: u64,
    /// Bytes of packed weights.
    pub weight_bytes: usize,
    /// Whether the step ran in bands of rows, as a stage of a chain.
    pub is_in_bands: bool,
}

impl CpuNetwork {
    /// Lowers an optimised graph to the kernels of this processor and packs its weights.
    ///
    /// # Errors
    /// If the processor lacks the instructions, or no kernel can run an operation.
    pub fn load(
        graph: &Graph,
        choice: KernelChoice,
        precision: Precision,
        team: Arc<ThreadTeam>,
    ) -> Result<Self, EngineError> {
        Self::load_with(graph, choice.select(precision)?, team, &Policy::DEFAULT)
    }

    pub(super) fn load_with(
        graph: &Graph,
        kernels: &'static KernelSet,
        team: Arc<ThreadTeam>,
        policy: &Policy,
    ) -> Result<Self, EngineError> {
        if graph.outputs().len() > OUTPUTS_MAX {
            return Err(EngineError::TooManyOutputs(graph.outputs().len()));
        }
        let plan = fuse_bands(lower(graph, kernels)?, &policy.bands);
        Ok(Self::from_plan(plan, team, policy))
    }

    fn from_plan(plan: Plan, team: Arc<ThreadTeam>, policy: &Policy) -> Self {
        let plan = Arc::new(plan);
        let schedule = Arc::new(Schedule::new(&plan, policy));
        let executor = |_| Mutex::new(PlanRunner::new(Arc::clone(&plan), Arc::clone(&schedule)));
        let runners = (0..team.size()).map(executor).collect();
        Self { plan, schedule, team, runners, parallelism: Mutex::default() }
    }

    /// Returns the name of the kernel set, for listings.
    pub fn kernels(&self) -> &'static str {
        self.plan.kernels.name
    }

    /// Returns the bytes of all packed weights, and of the activations and scratch of one thread.
    pub fn memory_bytes(&self) -> [usize; 2] {
        [self.plan.weight_bytes(), self.schedule.arena_bytes + self.schedule.scratch_bytes]
    }

    /// Returns the label and the algorithm of each step.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.plan.steps.iter().map(|step| (step.label.as_str(), step.work.algorithm()))
    }

    /// Runs `count` items that lie one after another in `input`. `outputs` receives the first
    /// output of all items, then the second output of all items, and so on. Allocates no memory.
    ///
    /// # Errors
    /// If a step of the reference failed. The content of `outputs` is then unspecified.
    ///
    /// # Panics
    /// If the length of `input` or `outputs` does not fit `count`.
    pub fn run(&self, input: &[f32], count: usize, outputs: &mut [f32]) -> Result<(), EngineError> {
        let output_len: usize = self.plan.output_lens.iter().sum();
        assert_eq!(
            input.len(),
            count * self.plan.input_len,
            "every item has the length of the input"
        );
        assert_eq!(outputs.len(), count * output_len, "there is room for every output");
        let (input, outputs) = (input.as_ptr(), outputs.as_mut_ptr());
        let failure = Failure::default();
        self.run_batch(&BatchSlice {
            input,
            outputs,
            batch_items: count,
            first: 0,
            count,
            failure: &failure,
        });
        failure.into_result()
    }

    fn run_batch(&self, all: &BatchSlice<'_>) {
        let mut parallelism = self.parallelism.lock();
        let threads = self.team.size();
        if threads == 1 {
            self.run_on_one_thread(all);
        } else if all.count == 1 {
            let (mode, begun) = (parallelism.choose(), Instant::now());
            match mode {
                Mode::AllThreads => self.run_on_all_threads(all),
                Mode::OneThread => self.run_on_one_thread(all),
            }
            parallelism.record(mode, begun.elapsed());
        } else {
            self.team.run(&|index| {
                let slice = all.share(Share { index, threads });
                self.runners[index].lock().run(&slice, &|_, _| {});
            });
        }
    }

    fn run_on_one_thread(&self, slice: &BatchSlice<'_>) {
        self.runners[0].lock().run(slice, &|_, _| {});
    }

    /// Runs one item on all threads.
    fn run_on_all_threads(&self, slice: &BatchSlice<'_>) {
        let mut first = self.runners[0].lock();
        let item = first.team_item(slice);
        let barrier = Barrier::new(self.team.size());
        self.team.run(&|index| {
            let _guard = barrier.break_on_panic();
            let share = Share { index, threads: self.team.size() };
            let scratch = match index {
                0 => item.scratch,
                _ => self.runners[index].lock().scratch(),
            };
            item.run(share, scratch, &barrier);
        });
    }

    /// Returns the operations per second that this core reaches at most with these kernels. A
    /// multiply-add counts as two operations.
    pub fn peak_flops(&self) -> f64 {
        peak::peak_flops(self.plan.kernels, peak::ROUNDS)
    }

    /// Runs a batch of `count` items `repeats` times on one thread, and reports the shortest time
    /// of each step.
    ///
    /// # Errors
    /// If a step failed.
    pub fn profile(&self, count: usize, repeats: usize) -> Result<Vec<StepReport>, EngineError> {
        let input = vec![0.5; count * self.plan.input_len];
        let mut outputs = vec![0.0; count * self.plan.output_lens.iter().sum::<usize>()];
        let failure = Failure::default();
        let batch = BatchSlice {
            input: input.as_ptr(),
            outputs: outputs.as_mut_ptr(),
            batch_items: count,
            first: 0,
            count,
            failure: &failure,
        };
        let mut executor = self.runners[0].lock();
        let steps = &self.plan.steps;
        let per_stage =
            |time| steps.iter().map(|step| vec![time; step.timed_parts().len()]).collect();
        let mut least: Vec<Vec<Duration>> = per_stage(Duration::MAX);
        // The first run warms the caches and is not counted.
        for repeat in 0..=repeats {
            let times: RefCell<Vec<Vec<Duration>>> = RefCell::new(per_stage(Duration::ZERO));
            let last = Cell::new(Instant::now());
            executor.run(&batch, &|step, stage| {
                let now = Instant::now();
                times.borrow_mut()[step][stage] += now - last.replace(now);
            });
            let times = times.into_inner().into_iter().flatten();
            if repeat > 0 {
                let least = least.iter_mut().flatten();
                least.zip(times).for_each(|(least, time)| *least = time.min(*least));
            }
        }
        failure.into_result()?;
        let reports = self.plan.steps.iter().zip(least).flat_map(|(step, times)| {
            let is_in_bands = !step.work.stages().is_empty();
            let parts = step.timed_parts().into_iter().zip(times);
            parts.map(move |(part, time)| StepReport {
                label: part.label.to_owned(),
                algorithm: part.work.algorithm(),
                time,
                macs: part.macs * count as u64,
                weight_bytes: part.work.weight_bytes(),
                is_in_bands,
            })
        });
        Ok(reports.collect())
    }
}

/// The whole network as one operation. The input is `[items, …]`; the result is flat and holds each
/// output for all items, one output after another.
impl CustomOp1 for CpuNetwork {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let CpuStorage::F32(data) = storage else { bail!("a network is fed f32") };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("a network is fed contiguous items")
        };
        let count = layout.shape().dims()[0];
        let mut outputs = vec![0.0; count * self.plan.output_lens.iter().sum::<usize>()];
        self.run(&data[start..end], count, &mut outputs).map_err(candle_core::Error::wrap)?;
        let shape = Shape::from(outputs.len());
        Ok((CpuStorage::F32(outputs), shape))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::cpu::work::Fallback;
    use crate::fixtures::{floats, graph_of, model, node};
    use crate::reference::ReferenceOp;

    /// A softmax of three numbers, replaced by a product with a matrix that needs two. The importer
    /// would refuse such a product.
    fn broken_plan() -> Plan {
        let softmax = vec![node("Softmax", &["x"], "y", &[])];
        let mut plan =
            lower(&graph_of(&model(13, &[1, 3], softmax, vec![])), &PORTABLE_F32).unwrap();
        let gemm = vec![node("MatMul", &["x", "w"], "y", &[])];
        let weights = vec![floats("w", &[2, 3], &[0.5; 6])];
        let product = graph_of(&model(13, &[1, 2], gemm, weights));
        let reference_op = ReferenceOp::load(&product, &product.nodes()[0], &Device::Cpu).unwrap();
        let step = plan.steps.iter_mut().find(|step| step.work.algorithm() == "reference").unwrap();
        let inputs = vec![(step.reads[0], vec![3])];
        let work = Fallback { op: "MatMul", reference_op, inputs, output: step.writes, len: 3 };
        step.work = Box::new(work);
        plan
    }

    #[test]
    fn a_failed_step_fails_the_run_with_its_error() {
        for (threads, items) in [(1, 1), (1, 3), (2, 1), (2, 3)] {
            let team = Arc::new(ThreadTeam::new(threads).unwrap());
            let network = CpuNetwork::from_plan(broken_plan(), team, &Policy::DEFAULT);
            let error = network.run(&vec![1.0; 3 * items], items, &mut vec![0.0; 3 * items]);
            let error = error.unwrap_err();
            assert!(matches!(error, EngineError::Tensor { op: "MatMul", .. }), "{error}");
            assert!(network.profile(items, 1).is_err());
        }
    }
}
