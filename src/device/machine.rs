//! The machine that a device's thread runs batches on. A machine is opened on its thread and never
//! leaves it.

use std::fmt;

use super::loaded::ModelKey;
use super::{DeviceError, LoadedModel, RowOutput};
use crate::engine::Precision;
use crate::image::RgbImage;
use crate::model::Package;

/// An open machine. It holds one network per loaded model, under the key of the model.
pub(super) trait Machine {
    /// A batch that was started and needs waiting.
    type Running;

    /// Builds the network of `model` from its files and keeps it under the key of the model. The
    /// network is not checked here.
    fn load(&mut self, model: &LoadedModel, package: &Package) -> Result<(), DeviceError>;

    /// Frees the network under `key`, if there is one.
    fn unload(&mut self, key: ModelKey);

    /// Starts rows in one pass, padded up to `bucket`, and returns as soon as the host's part is
    /// done. At most as many batches as the device has slots may be started and unfinished.
    fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> StartedBatch<Self::Running>;

    /// Returns whether [`Machine::finish`] would return without waiting, as far as the machine can
    /// tell.
    fn has_run(&self, running: &Self::Running) -> bool;

    /// Waits for a running batch and returns the outputs of its rows. Batches must be finished in
    /// the order they were started.
    ///
    /// # Errors
    /// The error of one row is the error of the whole batch. After [`DeviceError::Lost`] the
    /// machine cannot be used until [`Machine::reopen`].
    fn finish(&mut self, running: Self::Running) -> Result<Vec<RowOutput>, DeviceError>;

    /// Reopens a lost machine, without any network: all models must be loaded again.
    fn reopen(&mut self) -> Result<(), DeviceError>;

    /// Returns the maximum difference between a row's outputs in two buckets, relative to the
    /// largest absolute value of the output if that is above 1.
    fn bucket_tolerance(&self, precision: Precision) -> f32;

    /// Runs rows in one pass and returns their outputs.
    fn run_together(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        match self.start(model, rows, bucket) {
            StartedBatch::Done(outputs) => outputs,
            StartedBatch::Running(running) => self.finish(running),
        }
    }

    /// Runs one row in the model's smallest bucket and returns its outputs.
    fn run_alone(&mut self, model: &LoadedModel, row: &RgbImage) -> Result<RowOutput, DeviceError> {
        let rows = std::slice::from_ref(row);
        let mut outputs = self.run_together(model, rows, model.smallest_bucket())?;
        Ok(outputs.pop().expect("a batch of one row gives one row"))
    }
}

/// A batch that a machine has started.
pub(super) enum StartedBatch<R> {
    /// The batch needs no waiting: it has run inside `start`, or it could not be started.
    Done(Result<Vec<RowOutput>, DeviceError>),
    /// The machine runs the batch.
    Running(R),
}

impl<R> From<Result<R, DeviceError>> for StartedBatch<R> {
    /// A batch that could not be started is done.
    fn from(started: Result<R, DeviceError>) -> Self {
        match started {
            Ok(running) => Self::Running(running),
            Err(error) => Self::Done(Err(error)),
        }
    }
}

/// The description of a device, for the log and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// Name, such as `cpu` or `cuda:0`.
    pub name: String,
    /// The kernels and the hardware or threads that run them.
    pub kernels: String,
    /// Why this device was chosen.
    pub chosen: String,
}

impl fmt::Display for DeviceDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.name, self.kernels, self.chosen)
    }
}
