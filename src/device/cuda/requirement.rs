//! Requirements of this build on a GPU and its driver.

use candle_core::cuda_backend::cudarc::driver::{DriverError, result, sys};
use thiserror::Error;

/// Oldest compute capability that the kernels are compiled for (`build.rs`): Turing.
const CAPABILITY_MIN: (i32, i32) = (7, 5);

/// CUDA version of the compiler of the kernels, as the driver counts. R580 is the first driver that
/// translates them.
const DRIVER_MIN: i32 = 13_000;

/// A requirement of this build that a GPU or its driver does not meet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnmetRequirement {
    /// The driver is too old for the compiled kernels.
    #[error(
        "the driver runs programs up to CUDA {found}, {needed} is needed: driver R580 or newer",
        needed = cuda_version(DRIVER_MIN)
    )]
    Driver {
        /// CUDA version of the driver, such as `12.4`.
        found: String,
    },
    /// The GPU is older than those that the kernels are compiled for.
    #[error(
        "{model} has compute capability {found}, at least {needed} is needed",
        needed = dotted(CAPABILITY_MIN)
    )]
    Capability {
        /// Model name given by the driver.
        model: String,
        /// Compute capability, such as `7.0`.
        found: String,
    },
}

/// Properties of a GPU that can be read without opening it.
pub(super) struct GpuIdentity {
    /// Model name given by the driver.
    pub(super) model: String,
    capability: (i32, i32),
}

impl GpuIdentity {
    pub(super) fn read(number: usize) -> Result<Self, DriverError> {
        use sys::CUdevice_attribute as Attribute;
        let device = result::device::get(number as i32)?;
        // SAFETY: the driver has just returned this device.
        let ask = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Self { model: result::device::get_name(device)?, capability: (major, minor) })
    }

    /// Returns the compute capability, such as `9.0`.
    pub(super) fn capability(&self) -> String {
        dotted(self.capability)
    }

    pub(super) fn check(&self) -> Result<(), UnmetRequirement> {
        if self.capability >= CAPABILITY_MIN {
            return Ok(());
        }
        Err(UnmetRequirement::Capability { model: self.model.clone(), found: self.capability() })
    }
}

/// Returns the newest CUDA version that the driver supports, as the driver counts: 13.0 is 13000.
pub(super) fn driver_version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes one `int`.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok(version)
}

pub(super) fn check_driver(version: i32) -> Result<(), UnmetRequirement> {
    match version >= DRIVER_MIN {
        true => Ok(()),
        false => Err(UnmetRequirement::Driver { found: cuda_version(version) }),
    }
}

/// Formats a CUDA version, such as `13.0`.
pub(super) fn cuda_version(version: i32) -> String {
    dotted((version / 1000, version % 1000 / 10))
}

fn dotted((major, minor): (i32, i32)) -> String {
    format!("{major}.{minor}")
}
