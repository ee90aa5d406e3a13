//! One batch on the device: rows into a tensor, the network, outputs back to rows.
//!
//! A large batch goes through in parts: on the CPU rows run apart all the same, and eight pictures
//! for a detector are 40 MiB.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, Device as CandleDevice, InplaceOp1, Layout, Tensor, bail};

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

/// What a device's thread runs with.
pub(super) struct Runner {
    crew: Arc<Crew>,
    cpu: CpuOptions,
}

/// Bytes of rows that are staged at once: enough for a network to work on for milliseconds, and
/// little beside the networks themselves.
const STAGED_BYTES: usize = 8 << 20;

impl Runner {
    pub(super) fn new(crew: Arc<Crew>, cpu: CpuOptions) -> Self {
        Self { crew, cpu }
    }

    pub(super) fn crew(&self) -> Arc<Crew> {
        Arc::clone(&self.crew)
    }

    pub(super) fn cpu(&self) -> CpuOptions {
        self.cpu
    }

    /// Runs a batch; when it fails as a whole, runs each row alone so that only bad rows fail.
    pub(super) fn run(&self, batch: &Batch) -> BatchOutcome {
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
        &self,
        model: &LoadedModel,
        row: &RgbImage,
    ) -> Result<RowOutput, DeviceError> {
        let rows = std::slice::from_ref(row);
        let mut outputs = self.run_together(model, rows, model.smallest_bucket())?;
        Ok(outputs.pop().expect("a batch of one row gives one row"))
    }

    /// Runs all rows in one pass; the error of one is the error of all.
    pub(super) fn run_together(
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
        let size = self.part_rows(model, bucket);
        let mut outputs = Vec::with_capacity(rows.len());
        for (index, part) in rows.chunks(size).enumerate() {
            let size = size.min(bucket - index * size);
            let staged = Staged::new(model, part, size)?;
            outputs.extend(split_rows(&model.run(&staged.0)?, part.len(), size)?);
        }
        Ok(outputs)
    }

    /// Rows that are staged at once: as many for each thread.
    fn part_rows(&self, model: &LoadedModel, bucket: usize) -> usize {
        let row_bytes = model.manifest().input.row_len() * size_of::<f32>();
        let threads = self.crew.size();
        let for_each = (STAGED_BYTES / row_bytes / threads).max(1);
        bucket.min(for_each * threads)
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::device::fixture::{PANICS, grey, manifest, reading};

    const BUCKET: usize = 8;

    fn runner(threads: usize) -> Runner {
        Runner::new(Arc::new(Crew::new(threads).unwrap()), CpuOptions::default())
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
        (LoadedModel::new(manifest, Box::new(run)), fed)
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
            let outputs = runner(threads).run_together(&model, &images, BUCKET).unwrap();
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
            let run = runner(2).run_together(&model, &[large_grey(value)], BUCKET);
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
        let model = LoadedModel::new(manifest("tiny", "1", &[32]), Box::new(reading));
        assert_eq!(runner(2).part_rows(&model, 32), 32);
        assert!(runner(2).run_together(&model, &[grey(1)], 32).is_ok());
    }
}
