//! Errors of models on disk.

use std::path::PathBuf;

use crate::engine::ImportError;
use crate::face::calibration::CalibrationError;

/// Why a model on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A size or a count exceeds its limit.
    #[error("{what} of {actual} exceeds the limit of {limit}")]
    TooLarge {
        /// The thing that is limited, with its unit.
        what: &'static str,
        /// The size or count found.
        actual: u64,
        /// The largest allowed size or count.
        limit: u64,
    },
    /// The manifest is not TOML, lacks a key, has an unknown key or a value of the wrong type.
    #[error("manifest line {line} (`{near}`): {reason}")]
    Syntax {
        /// Line in the manifest, from 1.
        line: usize,
        /// The beginning of the line.
        near: String,
        /// The message of the parser, which names a missing or unknown key.
        reason: String,
    },
    /// A value of the manifest breaks a rule.
    #[error("manifest: `{key}` {reason}")]
    Value {
        /// The key with its table.
        key: String,
        /// The broken rule.
        reason: String,
    },
    /// A calibration entry of the manifest is refused.
    #[error("manifest: a calibration entry is refused")]
    Calibration(#[from] CalibrationError),
    /// The hash of a file differs from the manifest.
    #[error("{file} has sha256 {actual}, the manifest says {stated}")]
    Hash {
        /// Name of the file.
        file: String,
        /// The hash in the manifest.
        stated: String,
        /// The hash of the file.
        actual: String,
    },
    /// The licence forbids commercial use, and the operator has not accepted such licences.
    #[error("licence `{licence}` forbids commercial use, which has not been accepted")]
    NonCommercial {
        /// The identifier of the licence.
        licence: String,
    },
    /// The golden file is not a safetensors file.
    #[error("golden: not a safetensors file")]
    GoldenFile(#[from] safetensors::SafeTensorError),
    /// A tensor of the golden file is missing, or has the wrong shape, type or content.
    #[error("golden: tensor `{tensor}` {reason}")]
    GoldenTensor {
        /// Name of the tensor.
        tensor: String,
        /// The broken rule.
        reason: String,
    },
    /// The network cannot be imported.
    #[error("the network cannot be imported")]
    Import(#[from] ImportError),
    /// The manifest names an output that the network does not have.
    #[error("manifest: `outputs` names `{0}`, which the network does not have")]
    NoOutput(String),
    /// The row shape of an output differs from the manifest.
    #[error(
        "manifest: `outputs` gives `{tensor}` the row shape {stated:?}, the network {actual:?}"
    )]
    OutputShape {
        /// Name of the output.
        tensor: String,
        /// The shape in the manifest, without the batch axis.
        stated: Vec<usize>,
        /// The shape in the network, without the batch axis.
        actual: Vec<usize>,
    },
    /// The names of the directories differ from the name and version in the manifest.
    #[error("the manifest says `{id}`, the directories do not")]
    Misplaced {
        /// `name/version` of the manifest.
        id: String,
    },
    /// An error, with the directory of the model.
    #[error("{}", dir.display())]
    InDirectory {
        /// The directory of the model.
        dir: PathBuf,
        /// The error.
        source: Box<ModelError>,
    },
}

impl ModelError {
    pub(super) fn value(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value { key: key.into(), reason: reason.into() }
    }
}
