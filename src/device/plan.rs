//! The devices that will be opened, known before any of them is open.

use std::fmt;
use std::num::NonZeroUsize;

use super::cpu::CpuSpec;
#[cfg(feature = "cuda")]
use super::cuda::{CudaSpec, find_gpus, find_gpus_without_opening};
use super::placement::Placements;
use super::spec::MachineSpec;
use super::watchdog::Timeouts;
use super::{DeviceChoice, DeviceError, DeviceGroup, DeviceSettings};
use crate::engine::Precision;
use crate::model::Package;

/// The devices of some settings, not open yet.
pub struct DevicePlan {
    pub(super) machines: Vec<Box<dyn MachineSpec>>,
    pub(super) placements: Placements,
    /// Slots of each device.
    pub(super) slots: NonZeroUsize,
    /// Precision of all models; `None` leaves the choice to each manifest.
    pub(super) precision: Option<Precision>,
}

impl DevicePlan {
    /// Returns a plan of the devices of `settings`. With `auto`, each GPU is opened briefly to see
    /// whether it can be used.
    ///
    /// # Errors
    /// Returns an error for devices that this build does not support, or a placement on other
    /// devices.
    pub fn new(settings: &DeviceSettings) -> Result<Self, DeviceError> {
        Self::from_machines(machines_of(settings, find_gpus)?, settings)
    }

    /// Returns a plan of the devices of `settings`, and checks them as far as possible without
    /// opening a GPU.
    ///
    /// # Errors
    /// Returns the errors of [`DevicePlan::new`], and an error for GPUs that are missing or too
    /// old, or for kernels that the processor does not have.
    pub fn without_opening(settings: &DeviceSettings) -> Result<Self, DeviceError> {
        let machines = machines_of(settings, find_gpus_without_opening)?;
        let plan = Self::from_machines(machines, settings)?;
        plan.machines.iter().try_for_each(|machine| machine.check())?;
        Ok(plan)
    }

    /// Returns a plan of these machines.
    pub(super) fn from_machines(
        machines: Vec<Box<dyn MachineSpec>>,
        settings: &DeviceSettings,
    ) -> Result<Self, DeviceError> {
        let numbers: Vec<_> = machines.iter().map(|machine| machine.cuda_number()).collect();
        let placements = Placements::parse(&settings.placement, &numbers)?;
        let default = machines.iter().map(|machine| machine.default_slots()).max();
        let slots = NonZeroUsize::new(settings.slots).or(default).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { machines, placements, slots, precision: settings.precision })
    }

    /// Returns the package in the precision that these devices will compute it in.
    ///
    /// # Errors
    /// Returns an error for a precision that the model was not checked in, or that the CPU has no
    /// kernels for.
    pub fn apply_precision(&self, package: Package) -> Result<Package, DeviceError> {
        let package = in_precision(package, self.precision)?;
        for machine in &self.machines {
            let checked = machine.check_precision(package.manifest.precision);
            checked.map_err(|source| DeviceError::Load {
                model: package.id(),
                source: Box::new(source.into()),
            })?;
        }
        Ok(package)
    }

    /// Opens the devices and starts their threads.
    ///
    /// # Errors
    /// Returns an error if a device does not open, or [`DeviceError::Thread`].
    pub async fn open(self) -> Result<DeviceGroup, DeviceError> {
        self.open_with_timeouts(&Timeouts::default()).await
    }

    pub(super) async fn open_with_timeouts(
        self,
        timeouts: &Timeouts,
    ) -> Result<DeviceGroup, DeviceError> {
        DeviceGroup::open_plan(self, timeouts).await
    }
}

impl fmt::Display for DevicePlan {
    /// Writes the names of the devices, such as `cuda:0, cuda:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.machines.iter().map(|machine| machine.name()).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DevicePlan").field(&format_args!("{self}")).finish()
    }
}

/// Returns the machines of `settings`. `gpus_of_auto` finds the GPUs for `auto`, or returns why the
/// CPU is chosen instead.
///
/// # Errors
/// Returns an error if this build does not support the devices.
fn machines_of(
    settings: &DeviceSettings,
    gpus_of_auto: fn() -> Result<Vec<usize>, String>,
) -> Result<Vec<Box<dyn MachineSpec>>, DeviceError> {
    let cpu = |chosen: String| -> Vec<Box<dyn MachineSpec>> {
        let threads = settings.threads().get();
        vec![Box::new(CpuSpec { threads, kernels: settings.kernels, chosen })]
    };
    match &settings.device {
        DeviceChoice::Cpu => Ok(cpu("asked for".to_owned())),
        DeviceChoice::Auto => Ok(match gpus_of_auto() {
            Ok(numbers) => gpu_specs(&numbers, "chosen by auto", settings)?,
            Err(why) => cpu(format!("chosen by auto: {why}")),
        }),
        DeviceChoice::Cuda(numbers) => gpu_specs(numbers, "asked for", settings),
    }
}

#[cfg(feature = "cuda")]
fn gpu_specs(
    numbers: &[usize],
    chosen: &'static str,
    settings: &DeviceSettings,
) -> Result<Vec<Box<dyn MachineSpec>>, DeviceError> {
    let spec = |&number| -> Box<dyn MachineSpec> {
        Box::new(CudaSpec { number, settings: settings.cuda, chosen })
    };
    Ok(numbers.iter().map(spec).collect())
}

#[cfg(not(feature = "cuda"))]
fn gpu_specs(
    numbers: &[usize],
    _: &'static str,
    _: &DeviceSettings,
) -> Result<Vec<Box<dyn MachineSpec>>, DeviceError> {
    Err(DeviceError::CudaNotBuilt { number: numbers.first().copied().unwrap_or_default() })
}

#[cfg(not(feature = "cuda"))]
fn find_gpus() -> Result<Vec<usize>, String> {
    Err("this build has no CUDA support".to_owned())
}

#[cfg(not(feature = "cuda"))]
use find_gpus as find_gpus_without_opening;

/// Returns the package in `precision`, or in the precision of its manifest if that is `None`.
pub(super) fn in_precision(
    package: Package,
    precision: Option<Precision>,
) -> Result<Package, DeviceError> {
    let precision = precision.unwrap_or(package.manifest.precision);
    let model = package.id();
    package.in_precision(precision).map_err(|source| DeviceError::Precision {
        model,
        precision,
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::cpu::KernelChoice;

    fn iris() -> Package {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        Package::open(&models.join("iris/3.3.6")).unwrap()
    }

    #[test]
    fn a_precision_without_kernels_or_tolerance_is_refused_before_a_device_is_open() {
        let plan = |precision| {
            let settings = DeviceSettings { precision, ..DeviceSettings::default() };
            DevicePlan::new(&settings).unwrap()
        };
        assert_eq!(plan(None).apply_precision(iris()).unwrap().manifest.precision, Precision::F32);
        for precision in [Precision::Tf32, Precision::F16] {
            let error = plan(Some(precision)).apply_precision(iris()).unwrap_err();
            assert!(
                matches!(error, DeviceError::Load { .. } | DeviceError::Precision { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn cuda_is_never_replaced_silently() {
        let device = DeviceChoice::Cuda(vec![3, 1]);
        let plan = DevicePlan::new(&DeviceSettings { device, ..DeviceSettings::default() });
        assert_eq!(
            plan.err().unwrap().to_string(),
            "device cuda:3 was asked for, but this build has no CUDA support (feature `cuda`)"
        );
    }

    #[tokio::test]
    async fn auto_says_what_it_chose() {
        let description = async |device: DeviceChoice| {
            let (threads, kernels) = (2, KernelChoice::Portable);
            let settings = DeviceSettings { device, threads, kernels, ..DeviceSettings::default() };
            let group = DeviceGroup::open(&settings).await.unwrap();
            group.describe().next().unwrap().clone()
        };
        let auto = description(DeviceChoice::Auto).await;
        assert_eq!(auto.name, "cpu");
        assert!(auto.to_string().contains("auto"), "{auto}");
        let cpu = description(DeviceChoice::Cpu).await;
        assert_eq!(
            (cpu.kernels.as_str(), cpu.chosen.as_str()),
            ("portable kernels, 2 threads", "asked for")
        );
    }

    #[test]
    fn a_model_placed_on_a_gpu_is_refused_while_the_device_is_the_cpu() {
        let mut settings = DeviceSettings::default();
        settings.placement.insert("sface".to_owned(), vec![0]);
        let error = DevicePlan::new(&settings).err().unwrap();
        assert!(matches!(error, DeviceError::PlacementOnCpu { .. }), "{error}");
    }
}
