//! Batches and their outcomes.

use std::sync::Arc;
use std::time::Duration;

use super::{DeviceError, LoadedModel, Loss};
use crate::image::RgbImage;
use crate::trust::Secret;

/// Rows of one model that run together, padded with zeros up to `bucket`.
#[derive(Debug)]
pub struct Batch {
    /// The model version that runs. The batch keeps it alive.
    pub model: Arc<LoadedModel>,
    /// The rows, in the size that the input contract of the model states. Letterboxed rows may be
    /// smaller.
    pub rows: Vec<RgbImage>,
    /// The batch size to run: a bucket of the model, at least the number of rows.
    pub bucket: usize,
}

/// The outcome of a [`Batch`].
#[derive(Debug)]
pub struct BatchOutcome {
    /// One result per row, in the order of the rows.
    pub results: Vec<Result<RowOutput, DeviceError>>,
    /// Time from taking the batch to its last output, reruns included.
    pub run_time: Duration,
    /// Number of panics of the network that were caught.
    pub panics: usize,
}

impl BatchOutcome {
    /// Returns an outcome in which every row has failed with the loss of its device.
    pub(super) fn lost(loss: &Loss, rows: usize, run_time: Duration) -> Self {
        let results = (0..rows).map(|_| Err(DeviceError::Lost(loss.clone()))).collect();
        Self { results, run_time, panics: 0 }
    }
}

/// The outputs of a network for one row.
#[derive(Debug)]
pub struct RowOutput {
    /// One flat tensor per output, in the order of the outputs in the manifest. All values are
    /// finite.
    pub tensors: Vec<Secret<Vec<f32>>>,
}

impl RowOutput {
    /// Returns the values of each output, opened for reading.
    pub fn slices(&self) -> Vec<&[f32]> {
        self.tensors.iter().map(|tensor| tensor.expose().as_slice()).collect()
    }
}
