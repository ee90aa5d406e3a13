//! Errors of choosing and loading models.

use thiserror::Error;

use crate::device::DeviceError;
use crate::model::TaskKind;

/// Why the requested models cannot become live.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// No model has this name.
    #[error("model '{asked}' is unknown, there are: {known}")]
    Unknown {
        /// The requested `name` or `name/version`.
        asked: String,
        /// The models on disk.
        known: String,
    },
    /// The requested model has another task.
    #[error("model {model} is for {task}, {wanted} was asked for")]
    WrongTask {
        /// `name/version`.
        model: String,
        /// The task of the model.
        task: TaskKind,
        /// The task that the model was requested for.
        wanted: TaskKind,
    },
    /// More than one model has the requested name.
    #[error("several models fit '{asked}', ask for one of: {candidates}")]
    Several {
        /// The requested name.
        asked: String,
        /// Each matching `name/version`.
        candidates: String,
    },
    /// A member of an ensemble cannot become live.
    #[error("ensemble {ensemble} is refused")]
    Member {
        /// `name/version`.
        ensemble: String,
        /// The error of the member.
        #[source]
        source: Box<CatalogError>,
    },
    /// The device refused the model.
    #[error("model {model} did not become live")]
    Device {
        /// `name/version`.
        model: String,
        /// The error of the device.
        #[source]
        source: Box<DeviceError>,
    },
}
