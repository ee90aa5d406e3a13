//! Settings that choose the live models.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::model::LicencePolicy;

/// Section `models`. A model is chosen by its name, or by `name/version` if the folder holds
/// several versions of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// Folder with `<name>/<version>/model.toml` or `<name>/<version>/ensemble.toml`.
    pub dir: PathBuf,
    /// Face detection model: `name` or `name/version`.
    pub detector: String,
    /// Face embedding model: `name` or `name/version`.
    pub embedder: String,
    /// Face mesh model: `name` or `name/version`.
    pub mesh: String,
    /// Iris model: `name` or `name/version`.
    pub iris: String,
    /// Passive liveness model, or an ensemble of such models: `name` or `name/version`.
    pub liveness: String,
    /// Allow models whose licence forbids commercial use.
    accept_noncommercial: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("models"),
            detector: "yunet".to_owned(),
            embedder: "sface".to_owned(),
            mesh: "facemesh".to_owned(),
            iris: "iris".to_owned(),
            liveness: "fr_liveness".to_owned(),
            accept_noncommercial: false,
        }
    }
}

impl ModelSettings {
    /// Returns which licences the operator accepts.
    pub fn licence_policy(&self) -> LicencePolicy {
        if self.accept_noncommercial {
            LicencePolicy::AcceptNonCommercial
        } else {
            LicencePolicy::Commercial
        }
    }
}
