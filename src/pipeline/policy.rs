//! Which calibration row a request is judged by, and the thresholds that follow.

use std::path::PathBuf;

use super::{CalibratedSimilarity, Similarity, VerifySettings};
use crate::engine::Precision;
use crate::face::calibration::{
    CalibrationError, CalibrationFile, CalibrationRow, PairType, PolicyError, select,
};
use crate::face::verdict::Bar;
use crate::model::{Manifest, space_id};

/// Calibration rows of the live models, and the policy of this deployment.
#[derive(Debug, Clone)]
pub struct DecisionPolicies {
    /// Rows, those of the deployment before those of the model.
    pub rows: Vec<CalibrationRow>,
    /// The policy.
    pub settings: VerifySettings,
}

/// Why nothing can be decided at the configured policy.
#[derive(Debug, thiserror::Error)]
pub enum DecisionPolicyError {
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
        "the calibration file {} is for the space {file}, but the live embedding model has {live}",
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
pub struct DecisionPolicy<'a> {
    /// The row; none means that nothing may pass.
    pub calibration: Option<&'a CalibrationRow>,
    /// False-match rate decided at.
    pub policy_fmr: f64,
    /// Thresholds.
    pub bar: Bar,
}

impl DecisionPolicies {
    /// The rows of the calibration file, then those of the embedding model that is computed in
    /// `precision`. Each kind of pair can be decided at the policy of `settings`.
    ///
    /// # Errors
    /// A calibration file that is refused or of another space, a policy that the rows cannot
    /// support.
    pub fn open(
        settings: &VerifySettings,
        embedder: &Manifest,
        precision: Precision,
    ) -> Result<Self, DecisionPolicyError> {
        let live = space_id(embedder, precision);
        let mut rows = own_rows(settings, live)?;
        rows.extend(embedder.calibration.iter().cloned());
        let policies = Self { rows, settings: settings.clone() };
        for pair_type in [PairType::ChipLive, PairType::FileLive, PairType::LiveLive] {
            policies.for_pair(pair_type, None)?;
        }
        Ok(policies)
    }

    /// Picks the row for a kind of pair and reads the thresholds off it.
    ///
    /// # Errors
    /// A false-match rate that the row's sample does not support.
    pub fn for_pair(
        &self,
        pair_type: PairType,
        policy_fmr: Option<f64>,
    ) -> Result<DecisionPolicy<'_>, PolicyError> {
        let policy_fmr = policy_fmr.unwrap_or(self.settings.policy_fmr);
        let row = select(&self.rows, pair_type, self.settings.own_pair_type_required);
        let bar = match row {
            None => Bar::Uncalibrated,
            Some(row) => {
                let review_fmr = (policy_fmr * self.settings.review_factor).min(row.fmr_max());
                let pass_min = row.threshold(policy_fmr)?;
                let review_min = row.threshold(review_fmr.max(policy_fmr))?;
                Bar::Calibrated { pass_min, review_min, generic: row.is_generic() }
            }
        };
        Ok(DecisionPolicy { calibration: row, policy_fmr, bar })
    }
}

/// The rows of the deployment's own file, which must be for the space `live`.
fn own_rows(
    settings: &VerifySettings,
    live: String,
) -> Result<Vec<CalibrationRow>, DecisionPolicyError> {
    let Some(path) = settings.calibration.clone() else { return Ok(Vec::new()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(DecisionPolicyError::Read { path, source }),
    };
    match CalibrationFile::parse(&text) {
        Ok(file) if file.space == live => Ok(file.rows),
        Ok(file) => Err(DecisionPolicyError::Space { path, file: file.space, live }),
        Err(source) => Err(DecisionPolicyError::File { path, source }),
    }
}

impl DecisionPolicy<'_> {
    /// A cosine with what it stands for on the row.
    pub fn similarity(&self, cosine: f64) -> Similarity {
        let on_row = |row: &CalibrationRow| CalibratedSimilarity {
            score100: row.score100(cosine),
            fmr: row.fmr_at(cosine),
        };
        Similarity { cosine, calibrated: self.calibration.map(on_row) }
    }

    /// Least cosine that passes.
    pub fn similarity_min(&self) -> Option<f64> {
        match self.bar {
            Bar::Calibrated { pass_min, .. } => Some(pass_min),
            Bar::Uncalibrated => None,
        }
    }
}
