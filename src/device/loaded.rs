//! A model as it lives on a device.

use std::fmt;
use std::time::Duration;

use candle_core::Tensor;

use super::DeviceError;
use crate::model::{Manifest, Task, space_id};
use crate::trust::Secret;

/// Runs a network: `[bucket, row shape…]` in, one tensor `[bucket, …]` per output out, in the
/// order of the manifest's outputs.
///
/// [`super::Device::load`] makes it from the model's files; a test hands in whatever it wants run.
pub type RunNetwork = Box<dyn Fn(&Tensor) -> Result<Vec<Tensor>, DeviceError> + Send + Sync>;

/// A model that a device can run. Only the device's thread runs it.
pub struct LoadedModel {
    manifest: Manifest,
    run: RunNetwork,
    space: String,
    timing: LoadTiming,
}

/// How long the parts of loading took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadTiming {
    /// Reading the files and building the network.
    pub build: Duration,
    /// Checking the golden rows, alone and in a bucket.
    pub golden: Duration,
    /// The first run of each bucket at full size, smallest first: bucket and time.
    pub buckets: Vec<(usize, Duration)>,
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

impl LoadedModel {
    /// A model that answers with `run`, without any check or warm-up.
    pub fn new(manifest: Manifest, run: RunNetwork) -> Self {
        let space = space_id(&manifest, manifest.precision);
        Self { manifest, run, space, timing: LoadTiming::default() }
    }

    /// How the network is fed and what it answers.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's name, without its version.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// `name/version`.
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// What the model is for, and which of its outputs says what.
    pub fn task(&self) -> &Task {
        &self.manifest.task
    }

    /// The space its embeddings lie in; two spaces cannot be compared.
    pub fn space(&self) -> &str {
        &self.space
    }

    /// The batch sizes the device is warmed for.
    pub fn buckets(&self) -> &[usize] {
        &self.manifest.buckets
    }

    /// How long loading took.
    pub fn timing(&self) -> &LoadTiming {
        &self.timing
    }

    pub(super) fn with_timing(self, timing: LoadTiming) -> Self {
        Self { timing, ..self }
    }

    pub(super) fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, DeviceError> {
        (self.run)(input)
    }

    pub(super) fn smallest_bucket(&self) -> usize {
        self.buckets().iter().copied().min().expect("a manifest has at least one bucket")
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("id", &self.id()).finish_non_exhaustive()
    }
}
