//! Why a model is not among the live ones.

use thiserror::Error;

use crate::device::DeviceError;
use crate::model::TaskKind;

/// Why the models asked for cannot be had.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// No model goes by this name.
    #[error("model '{asked}' is unknown, there are: {known}")]
    Unknown {
        /// The name, or name and version, asked for.
        asked: String,
        /// What there is instead.
        known: String,
    },
    /// A model of another task was asked for.
    #[error("model {model} is for {task}, {wanted} was asked for")]
    WrongTask {
        /// Name and version.
        model: String,
        /// What the model is for.
        task: TaskKind,
        /// What it was asked to do.
        wanted: TaskKind,
    },
    /// More than one model would do, and guessing is not done.
    #[error("several models fit '{asked}', ask for one of: {candidates}")]
    Several {
        /// The name asked for.
        asked: String,
        /// Names and versions that fit.
        candidates: String,
    },
    /// A member of an ensemble cannot be had.
    #[error("ensemble {ensemble} is refused")]
    Member {
        /// Name and version.
        ensemble: String,
        /// Which member, and why.
        #[source]
        source: Box<CatalogError>,
    },
    /// The device refused the model.
    #[error("model {model} did not become live")]
    Device {
        /// Name and version.
        model: String,
        /// Why.
        #[source]
        source: Box<DeviceError>,
    },
}
