//! Which calibration entry a request is judged by, and the thresholds that follow.

use std::path::PathBuf;

use super::{CalibratedSimilarity, Similarity, VerifySettings};
use crate::engine::Precision;
use crate::face::calibration::{
    CalibrationEntry, CalibrationError, CalibrationFile, PairType, PolicyError, select,
};
use crate::face::verdict::Bar;
use crate::model::{Manifest, space_id};

/// Calibration entries of the live models, and the policy of this deployment.
#[derive(Debug, Clone)]
pub struct Standards {
    /// Entries, those of the deployment before those of the model.
    pub entries: Vec<CalibrationEntry>,
    /// The policy.
    pub settings: VerifySettings,
}

/// Why nothing can be decided at the configured policy.
#[derive(Debug, thiserror::Error)]
pub enum StandardsError {
    /// The calibration file cannot be read.
    #[error("cannot read the calibration file {}", path.display())]
    Read {
        /// The file's path as given.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The calibration file is refused.
    #[error("calibration file {} refused", path.display())]
    File {
        /// The file's path as given.
        path: PathBuf,
        /// The key and the rule.
        source: CalibrationError,
    },
    /// The calibration file belongs to another embedding model.
    #[error(
        "the calibration file {} is for the space {file}, the live embedding model's is {live}",
        path.display()
    )]
    Space {
        /// The file's path as given.
        path: PathBuf,
        /// Space of the file.
        file: String,
        /// Space of the live model.
        live: String,
    },
    /// No threshold can be read off for the configured policy.
    #[error("verify.policy_fmr cannot be used")]
    Policy(#[from] PolicyError),
}

/// What one request is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Standard<'a> {
    /// The entry; none means that nothing may pass.
    pub entry: Option<&'a CalibrationEntry>,
    /// False-match rate decided at.
    pub policy_fmr: f64,
    /// Thresholds.
    pub bar: Bar,
}

impl Standards {
    /// The entries of the calibration file, then those of the embedding model that is computed in
    /// `precision`. Each kind of pair can be decided at the policy of `settings`.
    ///
    /// # Errors
    /// A calibration file that is refused or of another space, a policy that the entries cannot
    /// support.
    pub fn open(
        settings: &VerifySettings,
        embedder: &Manifest,
        precision: Precision,
    ) -> Result<Self, StandardsError> {
        let live = space_id(embedder, precision);
        let mut entries = own_entries(settings, live)?;
        entries.extend(embedder.calibration.iter().cloned());
        let standards = Self { entries, settings: settings.clone() };
        for pair_type in [PairType::ChipLive, PairType::FileLive, PairType::LiveLive] {
            standards.standard(pair_type, None)?;
        }
        Ok(standards)
    }

    /// Picks the entry for a kind of pair and reads the thresholds off it.
    ///
    /// # Errors
    /// A false-match rate that the entry's sample does not support.
    pub fn standard(
        &self,
        pair_type: PairType,
        policy_fmr: Option<f64>,
    ) -> Result<Standard<'_>, PolicyError> {
        let policy_fmr = policy_fmr.unwrap_or(self.settings.policy_fmr);
        let entry = select(&self.entries, pair_type, self.settings.own_pair_type_required);
        let bar = match entry {
            None => Bar::Uncalibrated,
            Some(entry) => {
                let review_fmr = (policy_fmr * self.settings.review_factor).min(entry.fmr_max());
                let pass_min = entry.threshold(policy_fmr)?;
                let review_min = entry.threshold(review_fmr.max(policy_fmr))?;
                Bar::Calibrated { pass_min, review_min, generic: entry.is_generic() }
            }
        };
        Ok(Standard { entry, policy_fmr, bar })
    }
}

/// The entries of the deployment's own file, which must be for the space `live`.
fn own_entries(
    settings: &VerifySettings,
    live: String,
) -> Result<Vec<CalibrationEntry>, StandardsError> {
    let Some(path) = settings.calibration.clone() else { return Ok(Vec::new()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(StandardsError::Read { path, source }),
    };
    match CalibrationFile::parse(&text) {
        Ok(file) if file.space == live => Ok(file.entries),
        Ok(file) => Err(StandardsError::Space { path, file: file.space, live }),
        Err(source) => Err(StandardsError::File { path, source }),
    }
}

impl Standard<'_> {
    /// A cosine with what it stands for on the entry.
    pub fn similarity(&self, cosine: f64) -> Similarity {
        let on_entry = |entry: &CalibrationEntry| CalibratedSimilarity {
            score100: entry.score100(cosine),
            fmr: entry.fmr_at(cosine),
        };
        Similarity { cosine, calibrated: self.entry.map(on_entry) }
    }

    /// Least cosine that passes.
    pub fn similarity_min(&self) -> Option<f64> {
        match self.bar {
            Bar::Calibrated { pass_min, .. } => Some(pass_min),
            Bar::Uncalibrated => None,
        }
    }
}
