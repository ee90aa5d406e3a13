//! The CPU: rows into staging, the network, outputs back to rows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use candle_core::{Device as CandleDevice, Tensor};

use super::loaded::ModelKey;
use super::{CpuOptions, DeviceDescription, DeviceError, LoadedModel, RowOutput};
use crate::engine::cpu::Crew;
use crate::engine::{Network, Precision};
use crate::image::RgbImage;
use crate::model::{Manifest, OutputSpec, Package};
use crate::trust::{Secret, Wipe};

/// Runs a network: `[bucket, row shape…]` in, one tensor `[bucket, …]` per output out, in the
/// order of the manifest's outputs.
pub(super) type RunNetwork = Box<dyn Fn(&Tensor) -> Result<Vec<Tensor>, DeviceError> + Send + Sync>;

/// The CPU with its crew, its networks, and the buffer rows are staged in.
pub(super) struct CpuMachine {
    crew: Arc<Crew>,
    options: CpuOptions,
    networks: BTreeMap<ModelKey, RunNetwork>,
    /// Empty between runs; its memory is kept.
    staging: Vec<f32>,
}

impl CpuMachine {
    /// Kernels may sum in another order, which costs a few of 24 bits.
    pub(super) const BUCKET_TOLERANCE: f32 = 1e-5;

    /// Starts the threads that run networks.
    pub(super) fn open(options: CpuOptions) -> Result<Self, DeviceError> {
        let crew = Arc::new(Crew::new(options.threads()).map_err(DeviceError::Thread)?);
        Ok(Self { crew, options, networks: BTreeMap::new(), staging: Vec::new() })
    }

    /// What the CPU is called; `chosen` says how it came to be this device.
    pub(super) fn describe(
        options: &CpuOptions,
        chosen: &str,
    ) -> Result<DeviceDescription, DeviceError> {
        let (kernels, threads) = (options.kernels.describe(Precision::F32)?, options.threads());
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
        let (kernels, precision) = (self.options.kernels, manifest.precision);
        let network = Network::cpu(&graph, kernels, precision, Arc::clone(&self.crew))
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
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        // Nothing half-done survives a panic: staging is wiped, and a network keeps no state.
        let pass = AssertUnwindSafe(|| self.pass(model, rows, bucket));
        let outputs = catch_unwind(pass).unwrap_or(Err(DeviceError::Panicked));
        self.staging.wipe();
        outputs
    }

    fn pass(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        let input = self.stage(model, rows, bucket)?;
        let outputs = self.network(model)?(&input)?;
        split_rows(&outputs, rows.len(), bucket)
    }

    fn network<'a>(&'a self, model: &'a LoadedModel) -> Result<&'a RunNetwork, DeviceError> {
        #[cfg(test)]
        if let Some(run) = model.carried() {
            return Ok(run);
        }
        let network = self.networks.get(&model.key());
        network.ok_or_else(|| DeviceError::NotLoaded { model: model.id() })
    }

    /// Rows as the network is fed, `[bucket, row shape…]`; rows beyond the last are zeros.
    fn stage(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Tensor, DeviceError> {
        if rows.is_empty() || rows.len() > bucket || !model.buckets().contains(&bucket) {
            return Err(DeviceError::Bucket { rows: rows.len(), bucket });
        }
        let contract = &model.manifest().input;
        let row_len = contract.row_len();
        self.staging.clear();
        self.staging.resize(bucket * row_len, 0.0);
        for (row, staged) in rows.iter().zip(self.staging.chunks_exact_mut(row_len)) {
            contract.fill(row, staged)?;
        }
        let mut shape = contract.row_shape();
        shape.insert(0, bucket);
        Ok(Tensor::from_slice(&self.staging, shape, &CandleDevice::Cpu)?)
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
