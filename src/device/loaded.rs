//! A model as it lives on devices.

use std::fmt;
use std::path::PathBuf;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use super::DeviceSet;
#[cfg(test)]
use super::cpu::RunNetwork;
use super::worker::Inbox;
use crate::model::{InputContract, Manifest, Package};

/// A model that devices can run: one handle for all devices of its placement.
///
/// The networks themselves live with the devices' threads, each in its machine's table under this
/// handle's key. Dropping the last handle frees them there.
pub struct LoadedModel {
    key: ModelKey,
    manifest: Manifest,
    /// Where the files are: a device that was lost reads them again.
    dir: PathBuf,
    placement: DeviceSet,
    /// Tells when the handle is dropped.
    _sweep: SweepOnDrop,
    timing: OnceLock<LoadTiming>,
    /// The network of a test, which needs no device to be loaded onto.
    #[cfg(test)]
    test_network: Option<RunNetwork>,
}

/// Of the threads that hold a network of a model.
struct SweepOnDrop(Vec<Weak<Inbox>>);

/// Under which a machine keeps a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ModelKey {
    /// A model's, different for every load.
    Live(u64),
    /// A network that is only tried: a golden of another size. One at a time.
    Trial,
}

/// How long the parts of loading took, on the device that took longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadTiming {
    /// Reading the files and building the network.
    pub build: Duration,
    /// Checking the golden rows, alone and in a bucket.
    pub golden: Duration,
    /// The first run of each bucket at full size, smallest first: bucket and time.
    pub buckets: Vec<(usize, Duration)>,
}

impl LoadTiming {
    /// All parts together.
    pub(super) fn total(&self) -> Duration {
        let buckets: Duration = self.buckets.iter().map(|(_, time)| *time).sum();
        self.build + self.golden + buckets
    }
}

impl LoadedModel {
    /// A handle under a fresh `key`, before any device has loaded it.
    pub(super) fn new(
        key: u64,
        package: &Package,
        placement: DeviceSet,
        inboxes: Vec<Weak<Inbox>>,
    ) -> Self {
        Self {
            dir: package.dir().to_owned(),
            placement,
            _sweep: SweepOnDrop(inboxes),
            ..Self::bare(ModelKey::Live(key), package.manifest.clone())
        }
    }

    /// The same model fed with `input`, to be tried.
    pub(super) fn trial(&self, input: &InputContract) -> Self {
        let manifest = Manifest { input: input.clone(), ..self.manifest.clone() };
        Self::bare(ModelKey::Trial, manifest)
    }

    /// A model that answers with `run` on any device, without any check or warm-up.
    #[cfg(test)]
    pub(crate) fn with_test_network(
        manifest: Manifest,
        placement: DeviceSet,
        run: RunNetwork,
    ) -> Self {
        Self { placement, test_network: Some(run), ..Self::bare(ModelKey::Trial, manifest) }
    }

    fn bare(key: ModelKey, manifest: Manifest) -> Self {
        Self {
            key,
            manifest,
            dir: PathBuf::new(),
            placement: DeviceSet::of([]),
            _sweep: SweepOnDrop(Vec::new()),
            timing: OnceLock::new(),
            #[cfg(test)]
            test_network: None,
        }
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

    /// The batch sizes the devices are warmed for.
    pub fn buckets(&self) -> &[usize] {
        &self.manifest.buckets
    }

    /// The devices that run it.
    pub fn placement(&self) -> DeviceSet {
        self.placement
    }

    /// How long loading took.
    pub fn timing(&self) -> &LoadTiming {
        self.timing.get_or_init(LoadTiming::default)
    }

    pub(super) fn set_timing(&self, timing: LoadTiming) {
        // A model is loaded once; coming back to a device does not change what loading took.
        let _ = self.timing.set(timing);
    }

    pub(super) fn key(&self) -> ModelKey {
        self.key
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    #[cfg(test)]
    pub(super) fn test_network(&self) -> Option<&RunNetwork> {
        self.test_network.as_ref()
    }

    pub(super) fn smallest_bucket(&self) -> usize {
        self.buckets().iter().copied().min().expect("a manifest has at least one bucket")
    }
}

impl Drop for SweepOnDrop {
    fn drop(&mut self) {
        for inbox in self.0.iter().filter_map(Weak::upgrade) {
            inbox.request_sweep();
        }
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("id", &self.id()).finish_non_exhaustive()
    }
}
