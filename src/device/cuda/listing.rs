//! What there is of CUDA on this machine, for people and for `auto`.

use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys};

use crate::device::survey::{CudaSurvey, GpuSurvey, LibrarySurvey};
use crate::engine::cuda::free_bytes;
use crate::engine::cuda::lazy::{self, Library};

/// Looks for libraries and devices. Each device is opened for as long as it takes to ask it.
pub(in crate::device) fn survey() -> CudaSurvey {
    let library = |library: Library| LibrarySurvey {
        name: library.to_string(),
        is_optional: library.is_optional(),
        missing: lazy::missing(library),
    };
    let libraries = Library::ALL.map(library).to_vec();
    let missing =
        lazy::first_missing().map(|(library, why)| format!("{library} is missing: {why}"));
    let mut found = CudaSurvey { unusable: missing, driver: None, libraries, devices: Vec::new() };
    if lazy::missing(Library::Cuda).is_some() {
        return found;
    }
    found.driver = driver_version();
    match devices() {
        Ok(devices) if devices.is_empty() => {
            found.unusable.get_or_insert_with(|| "the driver finds no device".to_owned());
        }
        Ok(devices) => found.devices = devices,
        Err(error) => {
            found.unusable.get_or_insert_with(|| format!("the driver finds no device: {error}"));
        }
    }
    found
}

fn devices() -> Result<Vec<GpuSurvey>, DriverError> {
    let count = CudaContext::device_count()? as usize;
    (0..count).map(look).collect()
}

fn look(number: usize) -> Result<GpuSurvey, DriverError> {
    let context = CudaContext::new(number)?;
    let (major, minor) = context.compute_capability()?;
    let has_cudnn = lazy::missing(Library::CuDnn).is_none();
    Ok(GpuSurvey {
        device: format!("cuda:{number}"),
        model: context.name()?,
        capability: format!("{major}.{minor}"),
        memory_bytes: context.total_mem()?,
        free_bytes: free_bytes(&context)?,
        kernels: if has_cudnn { "cuDNN" } else { "cuBLAS" },
    })
}

fn driver_version() -> Option<String> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    let result = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    result.result().ok().map(|()| format!("{}.{}", version / 1000, version % 1000 / 10))
}
