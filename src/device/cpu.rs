//! The CPU machine: fills rows into a tensor, runs the network, and splits the outputs by row.
//!
//! A large batch runs in parts, to bound the memory: the inputs of eight rows of the detector are
//! 39 MB. Rows are independent, so the parts give the same answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use candle_core::{CpuStorage, Device as CandleDevice, InplaceOp1, Layout, Tensor, bail};

use super::loaded::ModelKey;
use super::machine::{Machine, StartedBatch};
use super::spec::MachineSpec;
use super::worker::DeviceThread;
use super::{DeviceDescription, DeviceError, LoadedModel, RowOutput};
use crate::engine::cpu::{KernelChoice, SelectError, ThreadTeam};
use crate::engine::{Network, Precision};
use crate::image::RgbImage;
use crate::model::{Manifest, OutputSpec, Package};
use crate::trust::{Secret, Wipe};

/// A network as a function: the input is `[bucket, row shape…]`, the result has one tensor
/// `[bucket, …]` per output, in the order of the manifest.
pub(super) type RunNetwork = Box<dyn Fn(&Tensor) -> Result<Vec<Tensor>, DeviceError> + Send + Sync>;

/// The CPU before its threads are started.
pub(super) struct CpuSpec {
    /// Threads that run networks.
    pub(super) threads: usize,
    pub(super) kernels: KernelChoice,
    /// Text for [`DeviceDescription::chosen`].
    pub(super) chosen: String,
}

/// The CPU with its thread team and its networks.
pub(super) struct CpuMachine {
    team: Arc<ThreadTeam>,
    kernels: KernelChoice,
    networks: BTreeMap<ModelKey, RunNetwork>,
}

/// Bytes of input rows in one part. A network computes for milliseconds on a part, and a part is
/// small beside the networks themselves.
const PART_BYTES: usize = 8 << 20;

/// Kernels may sum in another order in another bucket, which costs a few of the 24 bits of an
/// `f32`'s mantissa.
const BUCKET_TOLERANCE: f32 = 1e-5;

impl MachineSpec for CpuSpec {
    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn cuda_number(&self) -> Option<usize> {
        None
    }

    fn check(&self) -> Result<(), DeviceError> {
        self.describe().map(drop)
    }

    fn check_precision(&self, precision: Precision) -> Result<(), SelectError> {
        self.kernels.describe(precision).map(drop)
    }

    /// Work on the CPU runs on threads of this process and always ends.
    fn can_hang(&self) -> bool {
        false
    }

    /// With one slot, every batch is formed at the last moment.
    fn default_slots(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn run(self: Box<Self>, thread: DeviceThread) {
        thread.run(|_| self.open());
    }
}

impl CpuSpec {
    /// Starts the threads that run networks.
    pub(super) fn open(&self) -> Result<(CpuMachine, DeviceDescription), DeviceError> {
        let description = self.describe()?;
        let team = Arc::new(ThreadTeam::new(self.threads).map_err(DeviceError::Thread)?);
        Ok((CpuMachine { team, kernels: self.kernels, networks: BTreeMap::new() }, description))
    }

    fn describe(&self) -> Result<DeviceDescription, DeviceError> {
        let kernels = self.kernels.describe(Precision::F32)?;
        Ok(DeviceDescription {
            name: self.name(),
            kernels: format!("{kernels} kernels, {} threads", self.threads),
            chosen: self.chosen.clone(),
        })
    }
}

impl Machine for CpuMachine {
    /// No batch needs waiting, because the CPU computes inside `start`.
    type Running = Infallible;

    fn load(&mut self, model: &LoadedModel, package: &Package) -> Result<(), DeviceError> {
        let manifest = model.manifest();
        let graph = package
            .graph_for(&manifest.input)
            .map_err(|source| DeviceError::Read { model: model.id(), source: Box::new(source) })?;
        let precision = manifest.precision;
        let network = Network::cpu(&graph, self.kernels, precision, Arc::clone(&self.team))
            .map_err(|source| DeviceError::Load { model: model.id(), source: Box::new(source) })?;
        let order = output_order(&network, manifest);
        self.insert(model.key(), with_output_order(network, order));
        Ok(())
    }

    fn unload(&mut self, key: ModelKey) {
        self.networks.remove(&key);
    }

    fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> StartedBatch<Infallible> {
        StartedBatch::Done(self.run(model, rows, bucket))
    }

    fn has_run(&self, running: &Infallible) -> bool {
        match *running {}
    }

    fn finish(&mut self, running: Infallible) -> Result<Vec<RowOutput>, DeviceError> {
        match running {}
    }

    /// Drops every network. The threads stay.
    fn reopen(&mut self) -> Result<(), DeviceError> {
        self.networks.clear();
        Ok(())
    }

    fn bucket_tolerance(&self, _: Precision) -> f32 {
        BUCKET_TOLERANCE
    }
}

impl CpuMachine {
    /// Keeps a network under the key of its model.
    pub(super) fn insert(&mut self, key: ModelKey, network: RunNetwork) {
        self.networks.insert(key, network);
    }

    /// Runs all rows and returns their outputs. The error of one row is the error of all.
    pub(super) fn run(
        &self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        if rows.is_empty() || rows.len() > bucket || !model.buckets().contains(&bucket) {
            return Err(DeviceError::Bucket { rows: rows.len(), bucket });
        }
        // A panic leaves no partial state: the input tensor is wiped, and a network has no state.
        let run = AssertUnwindSafe(|| self.run_in_parts(model, rows, bucket));
        catch_unwind(run).unwrap_or(Err(DeviceError::Panicked))
    }

    /// Runs the rows in parts, each a smaller bucket. Parts that would hold only padding are not
    /// run.
    fn run_in_parts(
        &self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        let (network, part_rows) = (self.network(model)?, self.part_rows(model, bucket));
        let mut outputs = Vec::with_capacity(rows.len());
        for (index, part) in rows.chunks(part_rows).enumerate() {
            let part_bucket = part_rows.min(bucket - index * part_rows);
            let input = InputTensor::new(model, part, part_bucket)?;
            outputs.extend(split_by_row(&network(&input.0)?, part.len(), part_bucket)?);
        }
        Ok(outputs)
    }

    /// Returns the number of rows in one part, a multiple of the number of threads unless the
    /// bucket is smaller.
    fn part_rows(&self, model: &LoadedModel, bucket: usize) -> usize {
        let row_bytes = model.manifest().input.row_len() * size_of::<f32>();
        let threads = self.team.size();
        let thread_rows = (PART_BYTES / row_bytes / threads).max(1);
        bucket.min(thread_rows * threads)
    }

    fn network(&self, model: &LoadedModel) -> Result<&RunNetwork, DeviceError> {
        let network = self.networks.get(&model.key());
        network.ok_or_else(|| DeviceError::NotLoaded { model: model.id() })
    }
}

/// The input of a network, `[bucket, row shape…]`. Rows beyond those given are zeros. The tensor is
/// wiped on drop.
struct InputTensor(Tensor);

impl InputTensor {
    fn new(model: &LoadedModel, rows: &[RgbImage], bucket: usize) -> Result<Self, DeviceError> {
        let contract = &model.manifest().input;
        let row_len = contract.row_len();
        let mut values = Secret::new(vec![0.0; bucket * row_len]);
        for (row, values) in rows.iter().zip(values.expose_mut().chunks_exact_mut(row_len)) {
            contract.fill(row, values)?;
        }
        let shape = [&[bucket], contract.row_shape().as_slice()].concat();
        let values = std::mem::take(values.expose_mut());
        Ok(Self(Tensor::from_vec(values, shape, &CandleDevice::Cpu)?))
    }
}

impl Drop for InputTensor {
    fn drop(&mut self) {
        let wiped = self.0.inplace_op1(&WipeValues);
        debug_assert!(wiped.is_ok(), "input tensors are on the host");
    }
}

struct WipeValues;

impl InplaceOp1 for WipeValues {
    fn name(&self) -> &'static str {
        "wipe"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else { bail!("input tensors hold f32") };
        values.wipe();
        Ok(())
    }
}

/// Returns the index in the network of each output of the manifest.
fn output_order(network: &Network, manifest: &Manifest) -> Vec<usize> {
    let names: Vec<&str> = network.output_names().collect();
    let index_of = |output: &OutputSpec| names.iter().position(|name| *name == output.tensor);
    let outputs = manifest.outputs.iter();
    outputs.map(|output| index_of(output).expect("a package's graph has its outputs")).collect()
}

fn with_output_order(network: Network, order: Vec<usize>) -> RunNetwork {
    Box::new(move |input| {
        let outputs = network.run(input)?;
        let found = outputs.len();
        let pick = |index: &usize| {
            outputs.get(*index).cloned().ok_or(DeviceError::OutputCount { found, wanted: *index })
        };
        order.iter().map(pick).collect()
    })
}

/// Splits outputs of `[bucket, …]` by row and returns the first `count` rows.
fn split_by_row(
    outputs: &[Tensor],
    count: usize,
    bucket: usize,
) -> Result<Vec<RowOutput>, DeviceError> {
    let mut row_outputs: Vec<_> = (0..count).map(|_| RowOutput { tensors: Vec::new() }).collect();
    for (index, output) in outputs.iter().enumerate() {
        let values = output.reshape((bucket, ()))?.narrow(0, 0, count)?.to_vec2::<f32>()?;
        for (row_output, values) in row_outputs.iter_mut().zip(values.into_iter().map(Secret::new))
        {
            if !values.expose().iter().all(|value| value.is_finite()) {
                return Err(DeviceError::NotFinite { output: index });
            }
            row_output.tensors.push(values);
        }
    }
    Ok(row_outputs)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::device::fixture::{PANICS, TestNetworks, all_devices, grey, grey_network, manifest};

    const BUCKET: usize = 8;

    fn machine(threads: usize, networks: &TestNetworks) -> CpuMachine {
        let (kernels, chosen) = (KernelChoice::Auto, "asked for".to_owned());
        let mut machine = CpuSpec { threads, kernels, chosen }.open().unwrap().0;
        networks.insert_into(&mut machine);
        machine
    }

    /// A reader whose rows have a little more than half the bytes of a part.
    struct LargeReader {
        model: LoadedModel,
        networks: TestNetworks,
        /// The input tensors that the network is given. These share memory with the tensors in the
        /// machine.
        fed: Arc<Mutex<Vec<Tensor>>>,
    }

    impl LargeReader {
        fn new() -> Self {
            let mut networks = TestNetworks::default();
            let fed = Arc::new(Mutex::new(Vec::new()));
            let mut manifest = manifest("large", "1", &[BUCKET]);
            (manifest.input.width, manifest.input.height) = (592, 592);
            let record = Arc::clone(&fed);
            let run = move |input: &Tensor| {
                record.lock().push(input.clone());
                grey_network(input)
            };
            let model = networks.add(manifest, all_devices(), Box::new(run));
            Self { model, networks, fed }
        }
    }

    fn large_grey(value: u8) -> RgbImage {
        let mut image = RgbImage::black(592, 592);
        image.pixels_mut().fill(value);
        image
    }

    #[test]
    fn a_large_batch_runs_in_parts_for_all_threads_and_answers_in_order() {
        for (threads, rows, parts) in
            [(1, 8, vec![1; 8]), (2, 8, vec![2; 4]), (3, 8, vec![3, 3, 2]), (2, 3, vec![2, 2])]
        {
            let LargeReader { model, networks, fed } = LargeReader::new();
            let images: Vec<RgbImage> = (1..=rows).map(large_grey).collect();
            let outputs = machine(threads, &networks).run(&model, &images, BUCKET).unwrap();
            let values: Vec<f32> = outputs.iter().map(|row| row.slices()[0][0]).collect();
            assert!(values.into_iter().eq((1..=rows).map(f32::from)), "{threads} threads");
            let sizes: Vec<usize> = fed.lock().iter().map(|input| input.dims()[0]).collect();
            assert_eq!(sizes, parts, "{threads} threads");
        }
    }

    #[test]
    fn input_tensors_are_wiped_also_after_a_panic() {
        for value in [7, PANICS] {
            let LargeReader { model, networks, fed } = LargeReader::new();
            let run = machine(2, &networks).run(&model, &[large_grey(value)], BUCKET);
            assert_eq!(run.is_err(), value == PANICS);
            for input in fed.lock().iter() {
                let largest = input.abs().unwrap().max_all().unwrap();
                assert_eq!(largest.to_scalar::<f32>().unwrap(), 0.0);
            }
            assert_eq!(fed.lock().len(), 1);
        }
    }

    #[test]
    fn small_rows_run_in_one_part() {
        let mut networks = TestNetworks::default();
        let model = networks.reader("tiny", &[32]);
        let machine = machine(2, &networks);
        assert_eq!(machine.part_rows(&model, 32), 32);
        assert!(machine.run(&model, &[grey(1)], 32).is_ok());
    }
}
