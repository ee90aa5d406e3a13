//! Errors of devices.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;

use crate::engine::EngineError;
use crate::model::{FillError, GoldenMismatch, ModelError};

/// Why a device, a model on a device, or a row failed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The setting names an unknown kind of device.
    #[error("device '{given}' is unknown, it must be cpu, auto or cuda:0,1")]
    UnknownDevice {
        /// Value of the setting.
        given: String,
    },
    /// The setting holds no valid list of CUDA devices.
    #[error(
        "device '{given}' must list between 1 and {max} different numbers below {max}, \
         as in cuda:0,1"
    )]
    CudaNumbers {
        /// Value of the setting.
        given: String,
        /// Maximum number of devices; every ordinal must be below it.
        max: usize,
    },
    /// A GPU was asked for in a build without CUDA. There is no silent fallback to the CPU.
    #[error(
        "device cuda:{number} was asked for, but this build has no CUDA support (feature `cuda`)"
    )]
    CudaNotBuilt {
        /// CUDA ordinal of the first device asked for.
        number: usize,
    },
    /// A GPU was asked for, but a library that GPUs need is missing on this machine.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but {library} is missing: {why}")]
    CudaLibrary {
        /// CUDA ordinal of the device asked for.
        number: usize,
        /// Name of the missing library.
        library: String,
        /// Message of the dynamic loader.
        why: String,
    },
    /// A GPU was asked for that the driver does not find.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but the driver finds {count} devices")]
    CudaNoDevice {
        /// CUDA ordinal of the device asked for.
        number: usize,
        /// Number of devices that the driver finds.
        count: usize,
    },
    /// A GPU was asked for, but the GPU or its driver is too old for this build.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but {unmet}")]
    CudaRequirement {
        /// CUDA ordinal of the device asked for.
        number: usize,
        /// The requirement and what was found.
        unmet: super::cuda::UnmetRequirement,
    },
    /// A GPU could not be opened.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} does not open")]
    CudaOpen {
        /// CUDA ordinal of the device.
        number: usize,
        /// Error of the driver or a library.
        #[source]
        source: Box<crate::engine::cuda::GpuError>,
    },
    /// The processor does not have the kernels asked for.
    #[error(transparent)]
    Kernels(#[from] crate::engine::cpu::SelectError),
    /// The model was not checked in the precision asked for.
    #[error("model {model} cannot run in {precision}")]
    Precision {
        /// Name and version of the model.
        model: String,
        /// Precision asked for.
        precision: crate::engine::Precision,
        /// The part that the manifest lacks.
        #[source]
        source: Box<ModelError>,
    },
    /// The operating system could not start a thread.
    #[error("the device's threads could not be started")]
    Thread(#[source] std::io::Error),
    /// The device's thread has ended.
    #[error("the device has stopped")]
    Stopped,
    /// The settings place models on CUDA devices, but the device is the CPU.
    #[error("device.placement.{model} lists CUDA devices, but the device is the CPU")]
    PlacementOnCpu {
        /// Name of the model.
        model: String,
    },
    /// The settings place a model on no device, or on one device twice.
    #[error("device.placement.{model} must list at least one device, and none twice")]
    PlacementList {
        /// Name of the model.
        model: String,
    },
    /// The settings place a model on a device that is not opened.
    #[error("device.placement.{model} lists cuda:{number}, which device.device does not list")]
    PlacementNumber {
        /// Name of the model.
        model: String,
        /// CUDA ordinal in the list.
        number: usize,
    },

    /// The device was lost while it held this work. It is out of service until it has been
    /// reopened.
    #[error(transparent)]
    Lost(#[from] Loss),
    /// Every device that could run this is out of service.
    #[error("no device that could run this is in service")]
    OutOfService,
    /// The device holds no network of the model.
    #[error("model {model} is not loaded on this device")]
    NotLoaded {
        /// Name and version of the model.
        model: String,
    },

    /// The files of the model do not give a network or a golden.
    #[error("model {model} could not be read")]
    Read {
        /// Name and version of the model.
        model: String,
        /// The error in the files.
        #[source]
        source: Box<ModelError>,
    },
    /// The network could not be loaded onto this device.
    #[error("model {model} could not be loaded")]
    Load {
        /// Name and version of the model.
        model: String,
        /// Error of the engine.
        #[source]
        source: Box<EngineError>,
    },
    /// A golden row or a warm-up row failed.
    #[error("model {model} failed its trial run in bucket {bucket}")]
    Trial {
        /// Name and version of the model.
        model: String,
        /// Batch size of the run.
        bucket: usize,
        /// Error of the run.
        #[source]
        source: Box<DeviceError>,
    },
    /// The outputs of the network do not match its golden.
    #[error("model {model} does not match its golden")]
    Golden {
        /// Name and version of the model.
        model: String,
        /// Where they differ, and by how much.
        #[source]
        source: GoldenMismatch,
    },
    /// The outputs of a row depend on the bucket it runs in.
    #[error(
        "model {model} differs by {difference} between a row alone and in bucket {bucket}, \
         the limit is {limit}"
    )]
    BucketMismatch {
        /// Name and version of the model.
        model: String,
        /// Batch size whose outputs differ.
        bucket: usize,
        /// Largest difference found.
        difference: f32,
        /// Largest difference allowed.
        limit: f32,
    },

    /// A row does not fit the input contract of the network.
    #[error("a row does not fit the network's input")]
    Fill(#[from] FillError),
    /// The batch has no rows or more than the bucket holds, or the model has no such bucket.
    #[error("{rows} rows do not fit bucket {bucket}")]
    Bucket {
        /// Rows of the batch.
        rows: usize,
        /// Bucket of the batch.
        bucket: usize,
    },
    /// The network failed.
    #[error("the network failed")]
    Run(#[from] EngineError),
    /// A tensor could not be copied to or from the device.
    #[error("a tensor could not be moved to or from the device")]
    Transfer(#[from] candle_core::Error),
    /// The network gave fewer outputs than expected.
    #[error("the network gave {found} outputs, but output {wanted} is needed")]
    OutputCount {
        /// Number of outputs given.
        found: usize,
        /// Index of the missing output.
        wanted: usize,
    },
    /// An output value is infinite or NaN.
    #[error("output {output} of a row is not finite")]
    NotFinite {
        /// Index of the output.
        output: usize,
    },
    /// The network panicked. The device still works.
    #[error("the network panicked")]
    Panicked,
}

/// The loss of a device, which cannot be used until it is reopened. Causes are an illegal address,
/// an uncorrectable memory error, or a device that fell off the bus.
#[derive(Debug, Clone, Error)]
#[error("device {device} was lost")]
pub struct Loss {
    /// Name of the device, such as `cuda:0`.
    pub device: String,
    /// Error of the driver.
    #[source]
    pub source: Arc<dyn StdError + Send + Sync>,
}

impl DeviceError {
    /// Returns the loss behind this error, if the error is one.
    pub fn loss(&self) -> Option<&Loss> {
        match self {
            Self::Lost(loss) => Some(loss),
            Self::Trial { source, .. } => source.loss(),
            _ => None,
        }
    }
}
