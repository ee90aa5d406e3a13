//! The decision policy of a request: its calibration entry, and the thresholds that follow.

use std::path::PathBuf;

use super::report::{CalibratedSimilarity, Similarity};
use super::settings::VerifySettings;
use crate::engine::Precision;
use crate::face::calibration::{
    CalibrationEntry, CalibrationError, CalibrationFile, PairType, PolicyError, select_entry,
};
use crate::face::decision::Thresholds;
use crate::model::{Manifest, space_id};

/// Calibration entries of the live embedding model, and the policy of this deployment.
#[derive(Debug, Clone)]
pub struct DecisionPolicies {
    /// The entries of the deployment, then those of the model.
    pub entries: Vec<CalibrationEntry>,
    /// False-match rate and review band of this deployment.
    pub settings: VerifySettings,
}

/// Why no decision policy can be made from the settings.
#[derive(Debug, thiserror::Error)]
pub enum DecisionPolicyError {
    /// The calibration file cannot be read.
    #[error("cannot read the calibration file {}", path.display())]
    Read {
        /// Path of the file, as given.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The calibration file is refused.
    #[error("calibration file {} refused", path.display())]
    File {
        /// Path of the file, as given.
        path: PathBuf,
        /// The violated key and rule.
        source: CalibrationError,
    },
    /// The calibration file belongs to another embedding model.
    #[error(
        "the calibration file {} is for the space {file}, but the live embedding model has {live}",
        path.display()
    )]
    Space {
        /// Path of the file, as given.
        path: PathBuf,
        /// Embedding space of the file.
        file: String,
        /// Embedding space of the live model.
        live: String,
    },
    /// The calibration entries do not support the configured false-match rate.
    #[error("verify.policy_fmr cannot be used")]
    Policy(#[from] PolicyError),
}

/// The decision policy of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecisionPolicy<'a> {
    /// The calibration entry. Without an entry nothing may pass.
    pub(super) calibration: Option<&'a CalibrationEntry>,
    /// False-match rate of the decision.
    pub(super) policy_fmr: f64,
    /// Thresholds on the similarity.
    pub(super) thresholds: Thresholds,
}

impl DecisionPolicies {
    /// Reads the entries of the calibration file, then those of the embedding model computed in
    /// `precision`. Checks that the entry of each pair type, if it has one, supports the
    /// false-match rate of `settings`.
    ///
    /// # Errors
    /// The calibration file is refused or is for another embedding space, or the entries do not
    /// support the false-match rate.
    pub fn open(
        settings: &VerifySettings,
        embedder: &Manifest,
        precision: Precision,
    ) -> Result<Self, DecisionPolicyError> {
        let live = space_id(embedder, precision);
        let mut entries = own_entries(settings, live)?;
        entries.extend(embedder.calibration.iter().cloned());
        let policies = Self { entries, settings: settings.clone() };
        for pair_type in [PairType::ChipLive, PairType::FileLive, PairType::LiveLive] {
            policies.for_pair(pair_type, None)?;
        }
        Ok(policies)
    }

    /// Selects the entry for a pair type and computes its thresholds.
    ///
    /// # Errors
    /// The entry's sample does not support the false-match rate.
    pub(super) fn for_pair(
        &self,
        pair_type: PairType,
        policy_fmr: Option<f64>,
    ) -> Result<DecisionPolicy<'_>, PolicyError> {
        let policy_fmr = policy_fmr.unwrap_or(self.settings.policy_fmr);
        let entry = select_entry(&self.entries, pair_type, self.settings.own_pair_type_required);
        let thresholds = match entry {
            None => Thresholds::Uncalibrated,
            Some(entry) => {
                let review_fmr = (policy_fmr * self.settings.review_factor).min(entry.fmr_max());
                let pass_min = entry.threshold(policy_fmr)?;
                let review_min = entry.threshold(review_fmr.max(policy_fmr))?;
                Thresholds::Calibrated { pass_min, review_min, generic: entry.is_generic() }
            }
        };
        Ok(DecisionPolicy { calibration: entry, policy_fmr, thresholds })
    }
}

/// Reads the entries of the deployment's own file, which must be for the embedding space `live`.
fn own_entries(
    settings: &VerifySettings,
    live: String,
) -> Result<Vec<CalibrationEntry>, DecisionPolicyError> {
    let Some(path) = settings.calibration.clone() else { return Ok(Vec::new()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(DecisionPolicyError::Read { path, source }),
    };
    match CalibrationFile::parse(&text) {
        Ok(file) if file.space == live => Ok(file.entries),
        Ok(file) => Err(DecisionPolicyError::Space { path, file: file.space, live }),
        Err(source) => Err(DecisionPolicyError::File { path, source }),
    }
}

impl DecisionPolicy<'_> {
    /// Returns a cosine with its score and false-match rate by the calibration entry.
    pub(super) fn similarity(&self, cosine: f64) -> Similarity {
        let on_entry = |entry: &CalibrationEntry| CalibratedSimilarity {
            score100: entry.score100(cosine),
            fmr: entry.fmr_at(cosine),
        };
        Similarity { cosine, calibrated: self.calibration.map(on_entry) }
    }

    /// Returns the least cosine that passes, or `None` without a calibration entry.
    pub(super) fn similarity_min(&self) -> Option<f64> {
        match self.thresholds {
            Thresholds::Calibrated { pass_min, .. } => Some(pass_min),
            Thresholds::Uncalibrated => None,
        }
    }
}
