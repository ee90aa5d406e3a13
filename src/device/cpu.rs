//! The CPU: rows into a tensor, the network, outputs back to rows.
//!
//! A large batch goes through in parts: rows run apart all the same, and eight pictures for a
//! detector are 40 MiB.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use candle_core::{CpuStorage, Device as CandleDevice, InplaceOp1, Layout, Tensor, bail};

use super::loaded::ModelKey;
use super::{DeviceDescription, DeviceError, LoadedModel, RowOutput};
use crate::engine::cpu::{KernelChoice, ThreadTeam};
use crate::engine::{Network, Precision};
use crate::image::RgbImage;
use crate::model::{Manifest, OutputSpec, Package};
use crate::trust::{Secret, Wipe};

/// Runs a network: `[bucket, row shape…]` in, one tensor `[bucket, …]` per output out, in the
/// order of the manifest's outputs.
pub(super) type RunNetwork = Box<dyn Fn(&Tensor) -> Result<Vec<Tensor>, DeviceError> + Send + Sync>;

/// The CPU with its thread team and its networks.
pub(super) struct CpuMachine {
    team: Arc<ThreadTeam>,
    kernels: KernelChoice,
    networks: BTreeMap<ModelKey, RunNetwork>,
}

/// Bytes of rows that are staged at once: enough for a network to work on for milliseconds, and
/// little beside the networks themselves.
const STAGED_BYTES: usize = 8 << 20;

impl CpuMachine {
    /// Kernels may sum in another order, which costs a few of 24 bits.
    pub(super) const BUCKET_TOLERANCE: f32 = 1e-5;

    /// Starts the threads that run networks.
    pub(super) fn open(threads: usize, kernels: KernelChoice) -> Result<Self, DeviceError> {
        let team = Arc::new(ThreadTeam::new(threads).map_err(DeviceError::Thread)?);
        Ok(Self { team, kernels, networks: BTreeMap::new() })
    }

    /// What the CPU is called; `chosen` says how it came to be this device.
    pub(super) fn describe(
        threads: usize,
        kernels: KernelChoice,
        chosen: &str,
    ) -> Result<DeviceDescription, DeviceError> {
        let kernels = kernels.describe(Precision::F32)?;
        let kernels = format!("{kernels} kernels, {threads} threads");
        Ok(DeviceDescription { name: "cpu".to_owned(), kernels, chosen: chosen.to_owned() })
    }

    /// Builds the model's network and keeps it under the model's key.
    pub(super) fn load(
        &mut self,
        model: &LoadedModel,
        package: &Package,
    ) -> Result<(), DeviceError> {
        let manifest = model.manifest();
        let graph = package
            .graph_for(&manifest.input)
            .map_err(|source| DeviceError::Read { model: model.id(), source: Box::new(source) })?;
        let precision = manifest.precision;
        let network = Network::cpu(&graph, self.kernels, precision, Arc::clone(&self.team))
            .map_err(|source| DeviceError::Load { model: model.id(), source: Box::new(source) })?;
        let order = output_order(&network, manifest);
        self.networks.insert(model.key(), in_order(network, order));
        Ok(())
    }

    pub(super) fn unload(&mut self, key: ModelKey) {
        self.networks.remove(&key);
    }

    /// Forgets every network; the threads live on.
    pub(super) fn reopen(&mut self) {
        self.networks.clear();
    }

    /// Runs all rows in one pass; the error of one is the error of all.
    pub(super) fn run(
        &self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        if rows.is_empty() || rows.len() > bucket || !model.buckets().contains(&bucket) {
            return Err(DeviceError::Bucket { rows: rows.len(), bucket });
        }
        // Nothing half-done survives a panic: what is staged is wiped, and a network keeps no
        // state.
        let pass = AssertUnwindSafe(|| self.pass(model, rows, bucket));
        catch_unwind(pass).unwrap_or(Err(DeviceError::Panicked))
    }

    /// Parts without a row are not run.
    fn pass(
        &self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        let (network, size) = (self.network(model)?, self.part_rows(model, bucket));
        let mut outputs = Vec::with_capacity(rows.len());
        for (index, part) in rows.chunks(size).enumerate() {
            let size = size.min(bucket - index * size);
            let staged = Staged::new(model, part, size)?;
            outputs.extend(split_rows(&network(&staged.0)?, part.len(), size)?);
        }
        Ok(outputs)
    }

    /// Rows that are staged at once: as many for each thread.
    fn part_rows(&self, model: &LoadedModel, bucket: usize) -> usize {
        let row_bytes = model.manifest().input.row_len() * size_of::<f32>();
        let threads = self.team.size();
        let for_each = (STAGED_BYTES / row_bytes / threads).max(1);
        bucket.min(for_each * threads)
    }

    fn network<'a>(&'a self, model: &'a LoadedModel) -> Result<&'a RunNetwork, DeviceError> {
        #[cfg(test)]
        if let Some(run) = model.carried() {
            return Ok(run);
        }
        let network = self.networks.get(&model.key());
        network.ok_or_else(|| DeviceError::NotLoaded { model: model.id() })
    }
}

/// Rows as a network is fed, `[size, row shape…]`, wiped when they are dropped. Rows beyond the
/// last are zeros.
struct Staged(Tensor);

impl Staged {
    fn new(model: &LoadedModel, rows: &[RgbImage], size: usize) -> Result<Self, DeviceError> {
        let contract = &model.manifest().input;
        let row_len = contract.row_len();
        let mut numbers = Secret::new(vec![0.0; size * row_len]);
        for (row, numbers) in rows.iter().zip(numbers.expose_mut().chunks_exact_mut(row_len)) {
            contract.fill(row, numbers)?;
        }
        let shape = [&[size], contract.row_shape().as_slice()].concat();
        let numbers = std::mem::take(numbers.expose_mut());
        Ok(Self(Tensor::from_vec(numbers, shape, &CandleDevice::Cpu)?))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let wiped = self.0.inplace_op1(&WipeNumbers);
        debug_assert!(wiped.is_ok(), "rows are staged on the host");
    }
}

struct WipeNumbers;

impl InplaceOp1 for WipeNumbers {
    fn name(&self) -> &'static str {
        "wipe"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(numbers) = storage else { bail!("rows are staged as f32") };
        numbers.wipe();
        Ok(())
    }
}

/// For every output of the manifest, its place among the network's.
fn output_order(network: &Network, manifest: &Manifest) -> Vec<usize> {
    let names: Vec<&str> = network.output_names().collect();
    let place = |output: &OutputSpec| names.iter().position(|name| *name == output.tensor);
    let outputs = manifest.outputs.iter();
    outputs.map(|output| place(output).expect("a package's graph has its outputs")).collect()
}

fn in_order(network: Network, order: Vec<usize>) -> RunNetwork {
    Box::new(move |input| {
        let outputs = network.run(input)?;
        let found = outputs.len();
        let pick = |place: &usize| {
            outputs.get(*place).cloned().ok_or(DeviceError::OutputCount { found, wanted: *place })
        };
        order.iter().map(pick).collect()
    })
}

/// Cuts outputs of `[bucket, …]` into the first `count` rows.
fn split_rows(
    outputs: &[Tensor],
    count: usize,
    bucket: usize,
) -> Result<Vec<RowOutput>, DeviceError> {
    let mut rows: Vec<_> = (0..count).map(|_| RowOutput { tensors: Vec::new() }).collect();
    for (index, output) in outputs.iter().enumerate() {
        let values = output.reshape((bucket, ()))?.narrow(0, 0, count)?.to_vec2::<f32>()?;
        for (row, values) in rows.iter_mut().zip(values.into_iter().map(Secret::new)) {
            if !values.expose().iter().all(|value| value.is_finite()) {
                return Err(DeviceError::NotFinite { output: index });
            }
            row.tensors.push(values);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::device::fixture::{PANICS, everywhere, grey, manifest, reading};

    const BUCKET: usize = 8;

    fn machine(threads: usize) -> CpuMachine {
        CpuMachine::open(threads, KernelChoice::Auto).unwrap()
    }

    /// A reader of pictures of half the bytes that are staged at once and a bit, and the tensors
    /// that it was fed, which share their memory.
    fn large_reader() -> (LoadedModel, Arc<Mutex<Vec<Tensor>>>) {
        let fed = Arc::new(Mutex::new(Vec::new()));
        let mut manifest = manifest("large", "1", &[BUCKET]);
        (manifest.input.width, manifest.input.height) = (592, 592);
        let seen = Arc::clone(&fed);
        let run = move |input: &Tensor| {
            seen.lock().push(input.clone());
            reading(input)
        };
        (LoadedModel::carrying(manifest, everywhere(), Box::new(run)), fed)
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
            let (model, fed) = large_reader();
            let images: Vec<RgbImage> = (1..=rows).map(large_grey).collect();
            let outputs = machine(threads).run(&model, &images, BUCKET).unwrap();
            let values: Vec<f32> = outputs.iter().map(|row| row.slices()[0][0]).collect();
            assert!(values.into_iter().eq((1..=rows).map(f32::from)), "{threads} threads");
            let sizes: Vec<usize> = fed.lock().iter().map(|input| input.dims()[0]).collect();
            assert_eq!(sizes, parts, "{threads} threads");
        }
    }

    #[test]
    fn what_was_staged_is_wiped_also_after_a_panic() {
        for value in [7, PANICS] {
            let (model, fed) = large_reader();
            let run = machine(2).run(&model, &[large_grey(value)], BUCKET);
            assert_eq!(run.is_err(), value == PANICS);
            for input in fed.lock().iter() {
                let largest = input.abs().unwrap().max_all().unwrap();
                assert_eq!(largest.to_scalar::<f32>().unwrap(), 0.0);
            }
            assert_eq!(fed.lock().len(), 1);
        }
    }

    #[test]
    fn small_rows_are_staged_together() {
        let tiny = manifest("tiny", "1", &[32]);
        let model = LoadedModel::carrying(tiny, everywhere(), Box::new(reading));
        assert_eq!(machine(2).part_rows(&model, 32), 32);
        assert!(machine(2).run(&model, &[grey(1)], 32).is_ok());
    }
}
