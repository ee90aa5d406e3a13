//! What devices this build could open on this machine.

use std::fs;
use std::num::NonZeroUsize;
use std::thread;

use serde::Serialize;

use crate::engine::Precision;
use crate::engine::cpu::KernelChoice;

/// The devices, and why there are no further ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The CPU.
    pub cpu: CpuSurvey,
    /// CUDA and its devices.
    pub cuda: CudaSurvey,
}

/// CUDA's libraries and devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CudaSurvey {
    /// Why no GPU can be used; `None` when some can.
    pub unusable: Option<String>,
    /// The newest version of CUDA that the driver runs, such as `13.0`.
    pub driver: Option<String>,
    /// In the order in which they are missed.
    pub libraries: Vec<LibrarySurvey>,
    /// What the driver finds, whether it can be used or not; each at its number.
    pub devices: Vec<GpuSurvey>,
}

/// A library that networks on GPUs call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibrarySurvey {
    /// What it is, and the files looked for.
    pub name: String,
    /// Whether GPUs can be used without it.
    pub is_optional: bool,
    /// The loader's words when it is not there.
    pub missing: Option<String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuSurvey {
    /// Such as `cuda:0`.
    pub device: String,
    /// Why it cannot be used; what could not be asked any more is not told.
    pub unusable: Option<String>,
    /// As the driver calls it.
    pub model: Option<String>,
    /// Compute capability, such as `9.0`.
    pub capability: Option<String>,
    /// Memory in all.
    pub memory_bytes: Option<usize>,
    /// Memory that this process can have.
    pub free_bytes: Option<usize>,
    /// What convolutions run in.
    pub kernels: &'static str,
}

/// What the CPU is, and which kernels it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CpuSurvey {
    /// The processor's own name, where the system tells it; else its architecture.
    pub model: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory of the machine, where the system tells it.
    pub memory_bytes: Option<u64>,
    /// Kernels for 32-bit floats.
    pub f32: KernelSurvey,
    /// Kernels for bfloat16.
    pub bf16: KernelSurvey,
}

/// Kernels of one precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelSurvey {
    /// What can be asked for, the fastest first.
    pub available: Vec<&'static str>,
    /// What `auto` takes; none where every kernel would be slower than those of another precision.
    pub auto: Option<&'static str>,
}

/// Looks at the machine. GPUs are opened for as long as it takes to ask what is free on them.
pub fn survey() -> Survey {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let model = processor_name(&read("/proc/cpuinfo")).map(str::to_owned);
    let cpu = CpuSurvey {
        model: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).get(),
        memory_bytes: memory_bytes(&read("/proc/meminfo")),
        f32: KernelSurvey::of(Precision::F32),
        bf16: KernelSurvey::of(Precision::Bf16),
    };
    Survey { cpu, cuda: cuda_survey() }
}

#[cfg(feature = "cuda")]
use super::cuda::survey as cuda_survey;

#[cfg(not(feature = "cuda"))]
fn cuda_survey() -> CudaSurvey {
    let unusable = Some("this build has no CUDA support (feature `cuda`)".to_owned());
    CudaSurvey { unusable, driver: None, libraries: Vec::new(), devices: Vec::new() }
}

impl KernelSurvey {
    fn of(precision: Precision) -> Self {
        let available = KernelChoice::SETS
            .iter()
            .filter_map(|kernels| kernels.describe(precision).ok())
            .collect();
        Self { available, auto: KernelChoice::Auto.describe(precision).ok() }
    }
}

/// From `/proc/cpuinfo`; all processors of a machine have the same name.
fn processor_name(cpuinfo: &str) -> Option<&str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim())
}

/// From `/proc/meminfo`, which counts in KiB.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read_and_missing_ones_are_no_error() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 9R45\nmodel\t\t: 2\n";
        assert_eq!(processor_name(cpuinfo), Some("AMD EPYC 9R45"));
        assert_eq!(processor_name("processor\t: 0\nCPU part\t: 0xd4f\n"), None);
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(memory_bytes("MemTotal: many kB\n"), None);
        assert_eq!(memory_bytes(""), None);
    }

    #[test]
    fn what_auto_takes_is_available_and_portable_kernels_always_are() {
        let cpu = survey().cpu;
        for kernels in [&cpu.f32, &cpu.bf16] {
            assert!(kernels.available.iter().any(|name| name.starts_with("portable")));
            assert!(kernels.auto.is_none_or(|auto| kernels.available.contains(&auto)));
        }
        assert_eq!(cpu.f32.auto, cpu.f32.available.first().copied());
    }
}
