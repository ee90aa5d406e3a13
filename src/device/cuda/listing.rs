//! What there is of CUDA on this machine, for people.

use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};

use crate::engine::cuda::lazy::{self, Library};

/// A library of CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryListing {
    /// Its name and the files looked for.
    pub name: String,
    /// Whether GPUs can be used without it.
    pub is_optional: bool,
    /// The loader's words when it is not there.
    pub missing: Option<String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaListing {
    /// The number behind `cuda:`.
    pub number: usize,
    /// As the driver calls it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// Bytes of it that are free.
    pub free_bytes: usize,
}

/// Driver, libraries and devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevices {
    /// In the order they are needed in.
    pub libraries: Vec<LibraryListing>,
    /// The newest CUDA version the driver runs, major and minor.
    pub driver: Option<(i32, i32)>,
    /// Empty when the driver is missing or knows none.
    pub devices: Vec<CudaListing>,
    /// Why no device can be used, if so.
    pub unusable: Option<String>,
}

/// Looks for libraries and devices; opens nothing for longer than it takes to ask.
pub fn list() -> CudaDevices {
    let library = |library: Library| LibraryListing {
        name: library.to_string(),
        is_optional: library.is_optional(),
        missing: lazy::missing(library),
    };
    let libraries = Library::ALL.map(library).to_vec();
    let mut found = CudaDevices { libraries, driver: None, devices: Vec::new(), unusable: None };
    if let Some((library, why)) = lazy::first_missing() {
        found.unusable = Some(format!("{library} is missing: {why}"));
    }
    if lazy::missing(Library::Cuda).is_some() {
        return found;
    }
    found.driver = driver_version();
    match CudaContext::device_count() {
        Ok(count) => {
            found.devices = (0..count as usize).filter_map(|number| look(number).ok()).collect();
        }
        Err(error) => found.unusable = Some(format!("the driver finds no device: {error}")),
    }
    if found.devices.is_empty() && found.unusable.is_none() {
        found.unusable = Some("the driver finds no device".to_owned());
    }
    found
}

fn look(
    number: usize,
) -> Result<CudaListing, candle_core::cuda_backend::cudarc::driver::DriverError> {
    let context = CudaContext::new(number)?;
    let (free_bytes, memory_bytes) = context.mem_get_info()?;
    let (name, capability) = (context.name()?, context.compute_capability()?);
    Ok(CudaListing { number, name, capability, memory_bytes, free_bytes })
}

fn driver_version() -> Option<(i32, i32)> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    let result = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    result.result().ok().map(|()| (version / 1000, version % 1000 / 10))
}
