//! A survey of CUDA on this machine, for `menshen devices` and for `auto`.

use std::error::Error;

use candle_core::cuda_backend::cudarc::driver::CudaContext;

use super::requirement::{GpuIdentity, check_driver, cuda_version, driver_version};
use crate::device::cuda_survey::{CudaSurvey, GpuSurvey, LibrarySurvey};
use crate::engine::cuda::free_bytes;
use crate::engine::cuda::lazy::{self, Library};

/// Surveys libraries and devices. Each device is opened briefly.
pub(in crate::device) fn survey() -> CudaSurvey {
    let library = |library: Library| LibrarySurvey {
        name: library.to_string(),
        is_optional: library.is_optional(),
        missing: lazy::missing(library),
    };
    let libraries = Library::ALL.map(library).to_vec();
    let missing =
        lazy::first_missing().map(|(library, why)| format!("{library} is missing: {why}"));
    if lazy::missing(Library::Cuda).is_some() {
        return CudaSurvey { unusable: missing, driver: None, libraries, devices: Vec::new() };
    }
    let version = driver_version().ok();
    let too_old = version.and_then(|version| check_driver(version).err());
    let (devices, none) = devices();
    let unusable = missing.or_else(|| too_old.map(|unmet| unmet.to_string())).or(none);
    CudaSurvey { unusable, driver: version.map(cuda_version), libraries, devices }
}

/// Returns the ordinals of the GPUs that can be used, or why none can. Opens each GPU briefly.
pub(in crate::device) fn find_gpus() -> Result<Vec<usize>, String> {
    let found = survey();
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

/// Returns all devices that the driver finds. If none of them can be used, also returns why.
fn devices() -> (Vec<GpuSurvey>, Option<String>) {
    let devices: Vec<GpuSurvey> = match CudaContext::device_count() {
        Ok(count) => (0..count as usize).map(survey_gpu).collect(),
        Err(error) => return (Vec::new(), Some(format!("the driver finds no device: {error}"))),
    };
    if devices.iter().any(|gpu| gpu.unusable.is_none()) {
        return (devices, None);
    }
    let mut reasons = devices.iter().filter_map(|gpu| Some((&gpu.device, gpu.unusable.as_ref()?)));
    let none = match reasons.next() {
        Some((device, why)) => format!("{device} cannot be used: {why}"),
        None => "the driver finds no device".to_owned(),
    };
    (devices, Some(none))
}

fn survey_gpu(number: usize) -> GpuSurvey {
    let has_cudnn = lazy::missing(Library::CuDnn).is_none();
    let mut gpu = GpuSurvey {
        device: format!("cuda:{number}"),
        unusable: None,
        model: None,
        capability: None,
        memory_bytes: None,
        free_bytes: None,
        kernels: if has_cudnn { "cuDNN" } else { "cuBLAS" },
    };
    gpu.unusable = query_gpu(number, &mut gpu).err().map(|error| error.to_string());
    gpu
}

/// Fills in the properties of a GPU, up to the first error, which makes the GPU unusable.
fn query_gpu(number: usize, gpu: &mut GpuSurvey) -> Result<(), Box<dyn Error>> {
    let identity = GpuIdentity::read(number)?;
    gpu.capability = Some(identity.capability());
    gpu.model = Some(identity.model.clone());
    identity.check()?;
    let context = CudaContext::new(number)?;
    gpu.memory_bytes = Some(context.total_mem()?);
    gpu.free_bytes = Some(free_bytes(&context)?);
    Ok(())
}
