//! What can go wrong on a device.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;

use crate::engine::EngineError;
use crate::model::{FillError, GoldenMismatch, ModelError};

/// Why a device, a model on it, or a row failed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The setting names no kind of device.
    #[error("device '{given}' is unknown, it must be cpu, auto or cuda:0,1")]
    UnknownDevice {
        /// The setting.
        given: String,
    },
    /// The setting names no usable list of CUDA devices.
    #[error(
        "device '{given}' must list between 1 and {max} different numbers below {max}, \
         as in cuda:0,1"
    )]
    CudaNumbers {
        /// The setting.
        given: String,
        /// The most devices, and what every number lies below.
        max: usize,
    },
    /// A GPU was asked for, and there is never a silent fallback.
    #[error(
        "device cuda:{number} was asked for, but this build has no CUDA support (feature `cuda`)"
    )]
    CudaNotBuilt {
        /// The first device asked for.
        number: usize,
    },
    /// A GPU was asked for, and what it needs is not on this machine.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but {library} is missing: {why}")]
    CudaLibrary {
        /// The device asked for.
        number: usize,
        /// What is missing.
        library: String,
        /// The loader's words.
        why: String,
    },
    /// A GPU was asked for that the driver does not know.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but the driver finds {count} devices")]
    CudaNoDevice {
        /// The device asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A GPU was asked for that, or whose driver, is too old for this build.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} was asked for, but {unmet}")]
    CudaRequirement {
        /// The device asked for.
        number: usize,
        /// What is needed, and what there is.
        unmet: super::cuda::UnmetRequirement,
    },
    /// A GPU does not open.
    #[cfg(feature = "cuda")]
    #[error("device cuda:{number} does not open")]
    CudaOpen {
        /// The device.
        number: usize,
        /// What the driver or a library says.
        #[source]
        source: Box<crate::engine::cuda::GpuError>,
    },
    /// The kernels asked for cannot be had.
    #[error(transparent)]
    Kernels(#[from] crate::engine::cpu::SelectError),
    /// The model was not checked in the precision asked for.
    #[error("model {model} cannot run in {precision}")]
    Precision {
        /// Name and version.
        model: String,
        /// What was asked for.
        precision: crate::engine::Precision,
        /// What the manifest lacks.
        #[source]
        source: Box<ModelError>,
    },
    /// The system gave no thread.
    #[error("the device's threads could not be started")]
    Thread(#[source] std::io::Error),
    /// The device's thread has ended.
    #[error("the device has stopped")]
    Stopped,
    /// Models are placed on CUDA devices, and there is none.
    #[error("device.placement.{model} lists CUDA devices, but the device is the CPU")]
    PlacementOnCpu {
        /// Name of the model.
        model: String,
    },
    /// A model is placed nowhere, or on one device twice.
    #[error("device.placement.{model} must list at least one device, and none twice")]
    PlacementList {
        /// Name of the model.
        model: String,
    },
    /// A model is placed on a device that is not opened.
    #[error("device.placement.{model} lists cuda:{number}, which device.device does not list")]
    PlacementNumber {
        /// Name of the model.
        model: String,
        /// The device listed.
        number: usize,
    },

    /// The device failed for good while it held this work. It is out of service until it has been
    /// reopened.
    #[error(transparent)]
    Lost(#[from] Loss),
    /// Every device that could do this is out of service.
    #[error("no device that could run this is in service")]
    OutOfService,
    /// The model has no network on this device.
    #[error("model {model} is not loaded on this device")]
    NotLoaded {
        /// Name and version.
        model: String,
    },

    /// The model's files do not give a network or a golden.
    #[error("model {model} could not be read")]
    Read {
        /// Name and version.
        model: String,
        /// What is wrong with the files.
        #[source]
        source: Box<ModelError>,
    },
    /// The network does not load on this device.
    #[error("model {model} could not be loaded")]
    Load {
        /// Name and version.
        model: String,
        /// What the engine says.
        #[source]
        source: Box<EngineError>,
    },
    /// A golden row or a warm-up row failed.
    #[error("model {model} failed its trial run in bucket {bucket}")]
    Trial {
        /// Name and version.
        model: String,
        /// The batch size.
        bucket: usize,
        /// How it failed.
        #[source]
        source: Box<DeviceError>,
    },
    /// The network does not compute what its golden says.
    #[error("model {model} does not match its golden")]
    Golden {
        /// Name and version.
        model: String,
        /// Where it differs, and by how much.
        #[source]
        source: GoldenMismatch,
    },
    /// A row's answer depends on the bucket it runs in.
    #[error(
        "model {model} differs by {difference} between a row alone and in bucket {bucket}, \
         the limit is {limit}"
    )]
    BucketMismatch {
        /// Name and version.
        model: String,
        /// The batch size that differs.
        bucket: usize,
        /// The largest difference found.
        difference: f32,
        /// The largest difference allowed.
        limit: f32,
    },

    /// A row does not have the form the network is fed.
    #[error("a row does not fit the network's input")]
    Fill(#[from] FillError),
    /// There are more rows than the bucket holds, or the model has no such bucket.
    #[error("{rows} rows do not fit bucket {bucket}")]
    Bucket {
        /// Rows handed in.
        rows: usize,
        /// The bucket asked for.
        bucket: usize,
    },
    /// The network failed.
    #[error("the network failed")]
    Run(#[from] EngineError),
    /// A tensor could not be moved to or from the device.
    #[error("a tensor could not be moved to or from the device")]
    Transfer(#[from] candle_core::Error),
    /// The network gave another number of outputs than it has.
    #[error("the network gave {found} outputs, but output {wanted} is needed")]
    OutputCount {
        /// Outputs given.
        found: usize,
        /// The output looked for.
        wanted: usize,
    },
    /// An output is infinite or not a number.
    #[error("output {output} of a row is not finite")]
    NotFinite {
        /// Which output.
        output: usize,
    },
    /// The network panicked; the device lives on.
    #[error("the network panicked")]
    Panicked,
}

/// A device of no use until it is reopened: an illegal address, an uncorrectable error of its
/// memory, a device that fell off the bus.
#[derive(Debug, Clone, Error)]
#[error("device {device} was lost")]
pub struct Loss {
    /// `cuda:0`.
    pub device: String,
    /// What the driver said.
    #[source]
    pub source: Arc<dyn StdError + Send + Sync>,
}

impl DeviceError {
    /// The loss behind this error, if it is one.
    pub fn loss(&self) -> Option<&Loss> {
        match self {
            Self::Lost(loss) => Some(loss),
            Self::Trial { source, .. } => source.loss(),
            _ => None,
        }
    }
}
