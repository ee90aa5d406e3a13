//! Rows that run together, and what became of them.

use std::sync::Arc;
use std::time::Duration;

use super::{DeviceError, LoadedModel, Loss};
use crate::image::RgbImage;
use crate::trust::Secret;

/// Rows of one model that run together, padded with zeros up to `bucket`.
#[derive(Debug)]
pub struct Batch {
    /// The version that runs; the batch keeps it alive.
    pub model: Arc<LoadedModel>,
    /// The rows, of the size the model's input contract states; letterboxed ones may be smaller.
    pub rows: Vec<RgbImage>,
    /// One of the model's batch sizes, at least the number of rows.
    pub bucket: usize,
}

/// What became of a [`Batch`].
#[derive(Debug)]
pub struct BatchOutcome {
    /// One result per row, in the order of the rows.
    pub results: Vec<Result<RowOutput, DeviceError>>,
    /// From taking the batch up to the last output, repetitions included.
    pub run_time: Duration,
    /// How many panics of the network were caught.
    pub panics: usize,
}

impl BatchOutcome {
    /// Every row answered with the loss of its device.
    pub(super) fn lost(loss: &Loss, rows: usize, run_time: Duration) -> Self {
        let results = (0..rows).map(|_| Err(DeviceError::Lost(loss.clone()))).collect();
        Self { results, run_time, panics: 0 }
    }
}

/// What a network says about one row.
#[derive(Debug)]
pub struct RowOutput {
    /// One flat tensor per output, in the order of the manifest's outputs; all values are finite.
    pub tensors: Vec<Secret<Vec<f32>>>,
}

impl RowOutput {
    /// The values of each output, opened for reading.
    pub fn slices(&self) -> Vec<&[f32]> {
        self.tensors.iter().map(|tensor| tensor.expose().as_slice()).collect()
    }
}
