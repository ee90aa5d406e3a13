//! The devices that the operator asks for, and the machines that this gives.

use std::fmt;
use std::str::FromStr;

use super::device_set::DEVICES_MAX;
use super::machine::MachineSpec;
use super::{DeviceError, DeviceSettings};

/// The devices asked for. [`fmt::Display`] and [`FromStr`] use the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `cpu`.
    Cpu,
    /// `auto`: the best devices of this build and machine. The description always states the
    /// choice.
    Auto,
    /// `cuda:0,1`: these CUDA devices and no others.
    Cuda(Vec<usize>),
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

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        match given {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            _ => match given.strip_prefix("cuda") {
                Some(numbers) => parse_numbers(given, numbers).map(Self::Cuda),
                None => Err(DeviceError::UnknownDevice { given: given.to_owned() }),
            },
        }
    }
}

fn parse_numbers(given: &str, numbers: &str) -> Result<Vec<usize>, DeviceError> {
    let refused = || DeviceError::CudaNumbers { given: given.to_owned(), max: DEVICES_MAX };
    let list = numbers.strip_prefix(':').ok_or_else(refused)?;
    let mut parsed = Vec::new();
    for number in list.split(',') {
        let number: usize = number.parse().map_err(|_| refused())?;
        if number >= DEVICES_MAX || parsed.contains(&number) {
            return Err(refused());
        }
        parsed.push(number);
    }
    Ok(parsed)
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl fmt::Display for DeviceDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.name, self.kernels, self.chosen)
    }
}

impl DeviceChoice {
    /// Returns the machines of this choice. `gpus_of_auto` finds the GPUs for `auto`, or returns
    /// why the CPU is chosen instead.
    ///
    /// # Errors
    /// Returns an error if this build does not support the devices.
    pub(super) fn machines(
        &self,
        settings: &DeviceSettings,
        gpus_of_auto: fn() -> Result<Vec<usize>, String>,
    ) -> Result<Vec<MachineSpec>, DeviceError> {
        let cpu = |chosen: String| {
            let threads = settings.threads().get();
            vec![MachineSpec::Cpu { threads, kernels: settings.kernels, chosen }]
        };
        match self {
            Self::Cpu => Ok(cpu("asked for".to_owned())),
            Self::Auto => Ok(match gpus_of_auto() {
                Ok(numbers) => gpu_specs(numbers.into_iter(), "chosen by auto", settings)?,
                Err(why) => cpu(format!("chosen by auto: {why}")),
            }),
            Self::Cuda(numbers) => gpu_specs(numbers.iter().copied(), "asked for", settings),
        }
    }
}

/// Returns the ordinals of the GPUs that can be used, or why none can. Opens each GPU briefly.
#[cfg(feature = "cuda")]
pub(super) fn find_gpus() -> Result<Vec<usize>, String> {
    let found = super::cuda::survey();
    if let Some(why) = found.unusable {
        return Err(why);
    }
    let mut numbers = Vec::new();
    for (number, gpu) in found.devices.iter().enumerate() {
        match &gpu.unusable {
            None => numbers.push(number),
            Some(why) => tracing::warn!(number, why, "auto leaves out a GPU that cannot be used"),
        }
    }
    Ok(numbers)
}

#[cfg(not(feature = "cuda"))]
pub(super) fn find_gpus() -> Result<Vec<usize>, String> {
    Err("this build has no CUDA support".to_owned())
}

/// Returns the ordinals of the GPUs that are present and new enough, without opening them, or why
/// there is none.
#[cfg(feature = "cuda")]
pub(super) fn find_gpus_without_opening() -> Result<Vec<usize>, String> {
    super::cuda::find_gpus_without_opening()
}

#[cfg(not(feature = "cuda"))]
pub(super) use find_gpus as find_gpus_without_opening;

#[cfg(feature = "cuda")]
fn gpu_specs(
    numbers: impl Iterator<Item = usize>,
    chosen: &'static str,
    settings: &DeviceSettings,
) -> Result<Vec<MachineSpec>, DeviceError> {
    let spec = |number| MachineSpec::Cuda { number, settings: settings.cuda, chosen };
    Ok(numbers.map(spec).collect())
}

#[cfg(not(feature = "cuda"))]
fn gpu_specs(
    mut numbers: impl Iterator<Item = usize>,
    _: &'static str,
    _: &DeviceSettings,
) -> Result<Vec<MachineSpec>, DeviceError> {
    Err(DeviceError::CudaNotBuilt { number: numbers.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::cpu::KernelChoice;

    #[test]
    fn the_three_kinds_of_device_are_read() {
        assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        let cuda = "cuda:0,12".parse::<DeviceChoice>().unwrap();
        assert_eq!(cuda, DeviceChoice::Cuda(vec![0, 12]));
    }

    #[test]
    fn anything_else_is_refused_by_what_is_wrong_with_it() {
        for given in ["", "gpu", "CPU", "cpu "] {
            let error = given.parse::<DeviceChoice>().unwrap_err();
            assert!(matches!(error, DeviceError::UnknownDevice { .. }), "{given}: {error}");
        }
        for given in ["cuda", "cuda:", "cuda:0,", "cuda:0,0", "cuda:-1", "cuda:64", "cuda0"] {
            let error = given.parse::<DeviceChoice>().unwrap_err();
            assert!(matches!(error, DeviceError::CudaNumbers { .. }), "{given}: {error}");
        }
    }

    #[test]
    fn cuda_is_never_replaced_silently() {
        let machines =
            DeviceChoice::Cuda(vec![3, 1]).machines(&DeviceSettings::default(), find_gpus);
        assert_eq!(
            machines.err().unwrap().to_string(),
            "device cuda:3 was asked for, but this build has no CUDA support (feature `cuda`)"
        );
    }

    #[test]
    fn auto_says_what_it_chose() {
        let kernels = KernelChoice::Portable;
        let settings = DeviceSettings { threads: 2, kernels, ..DeviceSettings::default() };
        let description = |choice: DeviceChoice| {
            let mut machines = choice.machines(&settings, find_gpus).unwrap();
            machines.pop().unwrap().open(NonZeroUsize::MIN).unwrap().1
        };
        let auto = description(DeviceChoice::Auto);
        assert_eq!(auto.name, "cpu");
        assert!(auto.to_string().contains("auto"), "{auto}");
        let cpu = description(DeviceChoice::Cpu);
        assert_eq!(
            (cpu.kernels.as_str(), cpu.chosen.as_str()),
            ("portable kernels, 2 threads", "asked for")
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_choice_that_prints_back_or_an_error(
            given in "(cpu|auto|cuda|gpu)?:?[0-9,]{0,6}|.*",
        ) {
            if let Ok(choice) = given.parse::<DeviceChoice>() {
                prop_assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
            }
        }
    }
}
