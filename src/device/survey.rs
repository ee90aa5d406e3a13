//! A survey of the devices that this build could open on this machine.

use std::fs;
use std::num::NonZeroUsize;
use std::thread;

use serde::Serialize;

use super::cuda_survey::CudaSurvey;
use crate::engine::Precision;
use crate::engine::cpu::KernelChoice;

/// The devices of this machine, and why others cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    pub cpu: CpuSurvey,
    pub cuda: CudaSurvey,
}

/// The CPU and the kernels that it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CpuSurvey {
    /// Processor name if the system reports it, else the architecture.
    pub model: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory of the machine, if the system reports it.
    pub memory_bytes: Option<u64>,
    /// Kernels for 32-bit floats.
    pub f32: KernelSurvey,
    /// Kernels for bfloat16.
    pub bf16: KernelSurvey,
}

/// Kernels of one precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelSurvey {
    /// Kernels that settings may choose, fastest first.
    pub available: Vec<&'static str>,
    /// Kernels that `auto` chooses; `None` if every kernel would be slower than those of another
    /// precision.
    pub auto: Option<&'static str>,
}

/// Surveys the machine. Each GPU is opened briefly to read its free memory.
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
    Survey { cpu, cuda: survey_cuda() }
}

#[cfg(feature = "cuda")]
use super::cuda::survey as survey_cuda;

#[cfg(not(feature = "cuda"))]
fn survey_cuda() -> CudaSurvey {
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

/// Reads the processor name from `/proc/cpuinfo`; all processors of a machine have the same name.
fn processor_name(cpuinfo: &str) -> Option<&str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim())
}

/// Reads the total memory from `/proc/meminfo`, which counts in KiB.
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
