//! What the operator asks of the devices.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::thread;

#[cfg(feature = "cuda")]
use super::cuda::CudaOptions;
use super::{DeviceChoice, DeviceError};
use crate::config::DeviceSettings;
use crate::engine::Precision;
use crate::engine::cpu::KernelChoice;

/// What to open, and how to run networks on it.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Which devices.
    pub choice: DeviceChoice,
    /// How many batches each device may have launched and not finished; `None` takes one on the CPU
    /// and two on GPUs. One makes every batch form at the last moment; two keep a device busy whose
    /// host takes long between batches, and let a GPU fetch the next batch while it computes.
    pub slots: Option<NonZeroUsize>,
    /// How the CPU runs networks.
    pub cpu: CpuOptions,
    /// How GPUs do.
    #[cfg(feature = "cuda")]
    pub cuda: CudaOptions,
    /// The CUDA devices of a model, by its name; a model that is not listed goes to all.
    pub placement: BTreeMap<String, Vec<usize>>,
}

/// How the CPU runs networks.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Threads; `None` takes one per core.
    pub threads: Option<NonZeroUsize>,
    /// Instructions to use.
    pub kernels: KernelChoice,
    /// What all models are computed in; `None` leaves it to each manifest.
    pub precision: Option<Precision>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            choice: DeviceChoice::Cpu,
            slots: None,
            cpu: CpuOptions::default(),
            #[cfg(feature = "cuda")]
            cuda: CudaOptions::default(),
            placement: BTreeMap::new(),
        }
    }
}

/// Most threads that run networks; the largest machines have 512 cores.
const THREADS_MAX: usize = 1024;

impl DeviceOptions {
    /// What the settings ask for.
    ///
    /// # Errors
    /// A setting that names nothing known.
    pub fn of(settings: &DeviceSettings) -> Result<Self, DeviceError> {
        if settings.threads > THREADS_MAX {
            return Err(DeviceError::Threads { given: settings.threads, max: THREADS_MAX });
        }
        Ok(Self {
            choice: settings.device.parse()?,
            slots: NonZeroUsize::new(settings.slots),
            cpu: CpuOptions {
                threads: NonZeroUsize::new(settings.threads),
                kernels: settings.kernels.parse()?,
                precision: settings.precision.as_deref().map(str::parse).transpose()?,
            },
            #[cfg(feature = "cuda")]
            cuda: CudaOptions { graphs: settings.cuda.graphs },
            placement: settings.placement.clone(),
        })
    }
}

impl CpuOptions {
    pub(super) fn threads(&self) -> usize {
        let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(cores).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_any_machine_has_cores_are_refused() {
        let settings = DeviceSettings { threads: 1025, ..DeviceSettings::default() };
        let error = DeviceOptions::of(&settings).unwrap_err();
        assert_eq!(error.to_string(), "device.threads is 1025, at most 1024 are allowed");
    }
}
