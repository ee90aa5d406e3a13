//! One batch on the device: rows into staging, the network, outputs back to rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{Device as CandleDevice, Tensor};

use super::loaded::{LoadedModel, RowOutput};
use super::{CpuOptions, DeviceError};
use crate::engine::cpu::Crew;
use crate::image::RgbImage;
use crate::trust::{Secret, Wipe};

/// Rows of one model that run together, padded with zeros up to `bucket`.
#[derive(Debug)]
pub struct Batch {
    /// The version that runs; the batch keeps it alive.
    pub model: Arc<LoadedModel>,
    /// The rows, cut to the size the model's input contract states.
    pub rows: Vec<RgbImage>,
    /// One of the model's batch sizes, at least the number of rows.
    pub bucket: usize,
}

/// What became of a [`Batch`].
#[derive(Debug)]
pub struct BatchOutcome {
    /// One result per row, in the order of the rows.
    pub rows: Vec<Result<RowOutput, DeviceError>>,
    /// The bucket the batch ran in.
    pub bucket: usize,
    /// From taking the batch up to the last output, repetitions included.
    pub run_time: Duration,
    /// How many panics of the network were caught.
    pub panics: usize,
}

/// What a device's thread runs with: its crew, and the buffer rows are staged in.
pub(super) struct Runner {
    crew: Arc<Crew>,
    cpu: CpuOptions,
    /// Empty between runs; its memory is kept.
    staging: Vec<f32>,
}

impl Runner {
    pub(super) fn new(crew: Arc<Crew>, cpu: CpuOptions) -> Self {
        Self { crew, cpu, staging: Vec::new() }
    }

    pub(super) fn crew(&self) -> Arc<Crew> {
        Arc::clone(&self.crew)
    }

    pub(super) fn cpu(&self) -> CpuOptions {
        self.cpu
    }

    /// Runs a batch; when it fails as a whole, runs each row alone so that only bad rows fail.
    pub(super) fn run(&mut self, batch: &Batch) -> BatchOutcome {
        let Batch { model, rows, bucket } = batch;
        let started = Instant::now();
        let results = match self.run_together(model, rows, *bucket) {
            Ok(outputs) => outputs.into_iter().map(Ok).collect(),
            Err(error) if rows.len() <= 1 => vec![Err(error)],
            Err(error) => {
                let together = usize::from(matches!(error, DeviceError::Panicked));
                let alone = rows.iter().map(|row| self.run_alone(model, row)).collect();
                return outcome(alone, *bucket, started, together);
            }
        };
        outcome(results, *bucket, started, 0)
    }

    /// Runs one row in the model's smallest bucket.
    pub(super) fn run_alone(
        &mut self,
        model: &LoadedModel,
        row: &RgbImage,
    ) -> Result<RowOutput, DeviceError> {
        let rows = std::slice::from_ref(row);
        let mut outputs = self.run_together(model, rows, model.smallest_bucket())?;
        Ok(outputs.pop().expect("a batch of one row gives one row"))
    }

    /// Runs all rows in one pass; the error of one is the error of all.
    pub(super) fn run_together(
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
        let outputs = model.run(&input)?;
        split_rows(&outputs, rows.len(), bucket)
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

fn outcome(
    rows: Vec<Result<RowOutput, DeviceError>>,
    bucket: usize,
    started: Instant,
    panics_together: usize,
) -> BatchOutcome {
    let alone = rows.iter().filter(|row| matches!(row, Err(DeviceError::Panicked))).count();
    BatchOutcome { rows, bucket, run_time: started.elapsed(), panics: panics_together + alone }
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
