//! Handles of models that are loaded onto devices.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use super::DeviceSet;
use crate::model::{InputContract, Manifest, Package};

/// A model that devices can run: one handle for all devices of its placement.
///
/// The networks are owned by the devices' threads. Each machine keeps its network under the key of
/// this handle. Dropping the last handle frees the networks.
pub struct LoadedModel {
    key: ModelKey,
    manifest: Manifest,
    /// Folder of the files. A device that was lost reads them again.
    dir: PathBuf,
    placement: DeviceSet,
    /// One signal for each device that holds a network of the model.
    _signals: Vec<DropSignal>,
    timing: OnceLock<LoadTiming>,
}

/// Calls a function when it is dropped: tells a device that the last handle of a model is gone.
pub(super) struct DropSignal(Box<dyn Fn() + Send + Sync>);

/// The key under which a machine keeps a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ModelKey {
    /// Key of a model, different for every load.
    Live(u64),
    /// Key of the network that checks a golden whose input size is not the model's. A machine holds
    /// one at a time.
    GoldenInput,
}

/// Durations of the parts of loading, on the device that took longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadTiming {
    /// Reading the files and building the network.
    pub build: Duration,
    /// Checking the golden rows, alone and in a bucket.
    pub golden: Duration,
    /// Each bucket and the time of its first full batch, smallest bucket first.
    pub buckets: Vec<(usize, Duration)>,
}

impl LoadTiming {
    /// Returns the sum of all parts.
    pub(super) fn total(&self) -> Duration {
        let buckets: Duration = self.buckets.iter().map(|(_, time)| *time).sum();
        self.build + self.golden + buckets
    }
}

impl LoadedModel {
    /// Returns a handle with a fresh `key`, before any device has loaded the model.
    pub(super) fn new(
        key: u64,
        package: &Package,
        placement: DeviceSet,
        signals: Vec<DropSignal>,
    ) -> Self {
        let manifest = package.manifest.clone();
        Self {
            dir: package.dir().to_owned(),
            _signals: signals,
            ..Self::without_files(ModelKey::Live(key), manifest, placement)
        }
    }

    /// Returns a handle of the same model with the input contract of its golden.
    pub(super) fn with_golden_input(&self, input: &InputContract) -> Self {
        let manifest = Manifest { input: input.clone(), ..self.manifest.clone() };
        Self::without_files(ModelKey::GoldenInput, manifest, DeviceSet::of([]))
    }

    /// Returns a handle of a network that no device loads again after a loss.
    pub(super) fn without_files(key: ModelKey, manifest: Manifest, placement: DeviceSet) -> Self {
        Self {
            key,
            manifest,
            dir: PathBuf::new(),
            placement,
            _signals: Vec::new(),
            timing: OnceLock::new(),
        }
    }

    /// Returns the manifest: how the network is fed and what it outputs.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the name of the model, without its version.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Returns `name/version`.
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// Returns the buckets: the batch sizes that the devices are warmed for.
    pub fn buckets(&self) -> &[usize] {
        &self.manifest.buckets
    }

    /// Returns the devices that run the model.
    pub fn placement(&self) -> DeviceSet {
        self.placement
    }

    /// Returns the durations of loading.
    pub fn timing(&self) -> &LoadTiming {
        self.timing.get_or_init(LoadTiming::default)
    }

    pub(super) fn set_timing(&self, timing: LoadTiming) {
        // A model is loaded once. Loading it again after a loss does not change this timing.
        let _ = self.timing.set(timing);
    }

    pub(super) fn key(&self) -> ModelKey {
        self.key
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub(super) fn smallest_bucket(&self) -> usize {
        self.buckets().iter().copied().min().expect("a manifest has at least one bucket")
    }
}

impl DropSignal {
    pub(super) fn new(send: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(send))
    }
}

impl Drop for DropSignal {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("id", &self.id()).finish_non_exhaustive()
    }
}
