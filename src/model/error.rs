//! Why a model is refused.

use std::path::PathBuf;

use crate::engine::ImportError;
use crate::face::calibration::CalibrationError;

/// Why a model on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Something is larger or more than allowed.
    #[error("{what} of {actual} exceeds the limit of {limit}")]
    TooLarge {
        /// What was measured, and its unit.
        what: &'static str,
        /// How much there is.
        actual: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// The manifest is not TOML, misses a key, has an unknown one or a value of the wrong type.
    #[error("manifest line {line} (`{near}`): {reason}")]
    Syntax {
        /// Line in the manifest, from 1.
        line: usize,
        /// The line's beginning.
        near: String,
        /// What the parser says; it names a missing or unknown key.
        reason: String,
    },
    /// A value of the manifest breaks a rule.
    #[error("manifest: `{key}` {reason}")]
    Value {
        /// The key, with its table.
        key: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A calibration entry of the manifest is refused.
    #[error("manifest: a calibration entry is refused")]
    Calibration(#[from] CalibrationError),
    /// A file is not the one the manifest was written for.
    #[error("{file} has sha256 {actual}, the manifest says {stated}")]
    Hash {
        /// Name of the file.
        file: String,
        /// What the manifest says.
        stated: String,
        /// What the file's bytes give.
        actual: String,
    },
    /// The licence forbids commercial use, and the operator has not accepted that.
    #[error("licence `{licence}` forbids commercial use, which has not been accepted")]
    NonCommercial {
        /// The licence's identifier.
        licence: String,
    },
    /// The golden file is not a safetensors file.
    #[error("golden: not a safetensors file")]
    GoldenFile(#[from] safetensors::SafeTensorError),
    /// A tensor of the golden file is missing or of the wrong shape, type or content.
    #[error("golden: tensor `{tensor}` {reason}")]
    GoldenTensor {
        /// Name of the tensor.
        tensor: String,
        /// The rule it breaks.
        reason: String,
    },
    /// The network cannot be imported.
    #[error("the network cannot be imported")]
    Import(#[from] ImportError),
    /// The manifest names an output that the network does not have.
    #[error("manifest: `outputs` names `{0}`, which the network does not have")]
    NoOutput(String),
    /// An output has another row shape than the manifest says.
    #[error(
        "manifest: `outputs` gives `{tensor}` the row shape {stated:?}, the network {actual:?}"
    )]
    OutputShape {
        /// Name of the output.
        tensor: String,
        /// What the manifest says, without the batch axis.
        stated: Vec<usize>,
        /// What the network has, without the batch axis.
        actual: Vec<usize>,
    },
    /// A model lies in a directory of another name.
    #[error("the manifest says `{id}`, the directories do not")]
    Misplaced {
        /// `name/version` of the manifest.
        id: String,
    },
    /// What went wrong, and in which directory.
    #[error("{}", dir.display())]
    InDirectory {
        /// The directory of the model.
        dir: PathBuf,
        /// What went wrong.
        source: Box<ModelError>,
    },
}

impl ModelError {
    /// A manifest value refused: `key` `reason`.
    pub(super) fn value(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value { key: key.into(), reason: reason.into() }
    }
}
