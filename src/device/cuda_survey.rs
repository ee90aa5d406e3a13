//! What a survey says about CUDA. The types exist in every build: one without CUDA says so in the
//! same form.

use serde::Serialize;

/// The libraries and devices of CUDA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CudaSurvey {
    /// Why no GPU can be used; `None` if at least one can.
    pub unusable: Option<String>,
    /// Newest CUDA version that the driver supports, such as `13.0`.
    pub driver: Option<String>,
    /// Libraries, in the order in which they are checked.
    pub libraries: Vec<LibrarySurvey>,
    /// All devices that the driver finds, usable or not. The index is the CUDA ordinal.
    pub devices: Vec<GpuSurvey>,
}

/// A library that networks on GPUs need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibrarySurvey {
    /// Name and file names of the library.
    pub name: String,
    /// Whether GPUs can be used without the library.
    pub is_optional: bool,
    /// Message of the dynamic loader if the library is missing.
    pub missing: Option<String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuSurvey {
    /// Device name, such as `cuda:0`.
    pub device: String,
    /// Why the GPU cannot be used. The fields below are `None` if the reason kept them from being
    /// read.
    pub unusable: Option<String>,
    /// Model name given by the driver.
    pub model: Option<String>,
    /// Compute capability, such as `9.0`.
    pub capability: Option<String>,
    /// Total memory.
    pub memory_bytes: Option<usize>,
    /// Memory that this process can allocate.
    pub free_bytes: Option<usize>,
    /// Library that runs convolutions.
    pub kernels: &'static str,
}
