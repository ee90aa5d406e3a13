//! Settings of the devices.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::thread;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::DeviceChoice;
use crate::engine::Precision;
use crate::engine::cpu::KernelChoice;
use crate::setting::{RangeCheck, Violation};

/// Section `device`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceSettings {
    /// Devices that run networks: `cpu`, `auto` (the GPUs of this machine, or else the CPU), or
    /// `cuda:0,1` (these CUDA devices and no others).
    #[serde(with = "crate::setting::text")]
    pub device: DeviceChoice,
    /// Batches that each device may hold, queued and running. With 1, every batch is formed at the
    /// last moment. 0 means 1 on the CPU and 2 on GPUs, which upload the next batch while they
    /// compute.
    pub slots: usize,
    /// Threads that decode, resize and align; 0 means one per core.
    pub cpu_pool_threads: usize,
    /// Threads that run networks on the CPU, at most 1024; 0 means one per core.
    pub threads: usize,
    /// Kernels for networks on the CPU: `auto` (the fastest of this processor except `amx`, which
    /// has never run on hardware), `amx`, `avx512`, `avx2`, `neon` or `portable`.
    #[serde(with = "crate::setting::text")]
    pub kernels: KernelChoice,
    /// Precision of all models: `f32`, `bf16` (on the CPU), `tf32` or `f16` (on GPUs). If it is not
    /// set, each manifest decides.
    #[serde(with = "crate::setting::optional_text", skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// CUDA devices by model name: the model runs on these devices only. A model that is not listed
    /// runs on all devices.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub placement: BTreeMap<String, Vec<usize>>,
    /// Settings of GPUs.
    pub cuda: CudaSettings,
}

/// Section `device.cuda`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct CudaSettings {
    /// Whether each batch size is captured once as a CUDA graph and then replayed as a whole. If
    /// `false`, the kernels are launched one by one, which is slower and easier to profile.
    pub graphs: bool,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self { graphs: true }
    }
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            slots: 0,
            cpu_pool_threads: 0,
            threads: 0,
            kernels: KernelChoice::Auto,
            precision: None,
            placement: BTreeMap::new(),
            cuda: CudaSettings::default(),
        }
    }
}

/// Maximum number of threads of one kind. The largest machines have 512 cores.
const THREADS_MAX: usize = 1024;

/// Maximum number of slots. Two keep a device busy, and each has its own buffers.
const SLOTS_MAX: usize = 64;

impl DeviceSettings {
    /// Returns the number of threads that decode, resize and align.
    pub fn cpu_pool_threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.cpu_pool_threads).unwrap_or_else(cores)
    }

    /// Returns the number of threads that run networks on the CPU.
    pub(super) fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads).unwrap_or_else(cores)
    }

    /// Returns every setting that is out of range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("device");
        let rule = format!("at most {THREADS_MAX}");
        let threads = [("threads", self.threads), ("cpu_pool_threads", self.cpu_pool_threads)];
        for (key, value) in threads {
            check.require(value <= THREADS_MAX, key, value, rule.clone());
        }
        let rule = format!("at most {SLOTS_MAX}");
        check.require(self.slots <= SLOTS_MAX, "slots", self.slots, rule);
        check.violations()
    }
}

fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_any_machine_has_cores_are_reported() {
        let settings = |threads| DeviceSettings { threads, ..DeviceSettings::default() };
        assert_eq!(settings(1024).violations(), []);
        let message = settings(1025).violations()[0].to_string();
        assert_eq!(message, "device.threads is 1025, but must be at most 1024");
    }

    #[test]
    fn devices_kernels_and_precisions_are_read_as_what_they_are() {
        let text = "device = \"cuda:0,2\"\nkernels = \"avx2\"\nprecision = \"f16\"\n";
        let settings: DeviceSettings = toml::from_str(text).unwrap();
        assert_eq!(settings.device, DeviceChoice::Cuda(vec![0, 2]));
        assert_eq!(settings.kernels, KernelChoice::Avx2);
        assert_eq!(settings.precision, Some(Precision::F16));
        let written = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<DeviceSettings>(&written).unwrap(), settings);
    }

    #[test]
    fn a_word_that_means_nothing_is_refused_with_the_words_that_do() {
        for (text, allowed) in [
            ("device = \"gpu\"", "cpu, auto or cuda:0,1"),
            ("kernels = \"sse\"", "auto, amx, avx512, avx2, neon or portable"),
            ("precision = \"int8\"", "f32, tf32, f16 or bf16"),
        ] {
            let message = toml::from_str::<DeviceSettings>(text).unwrap_err().to_string();
            assert!(message.contains(allowed), "{message}");
        }
    }
}
