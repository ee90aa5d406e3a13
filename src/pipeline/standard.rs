//! Which calibration row a request is judged by, and the thresholds that follow.

use super::{CalibratedSimilarity, Similarity};
use crate::face::calibration::{CalibrationRow, PairType, PolicyError, select};
use crate::face::verdict::Bar;

/// Calibration rows of the live models, and the policy of this deployment.
#[derive(Debug, Clone)]
pub struct Standards {
    /// Rows, those of the deployment before those of the model.
    pub rows: Vec<CalibrationRow>,
    /// False-match rate when the request names none.
    pub policy_fmr: f64,
    /// Similarities that would pass at this many times the policy go to a person.
    pub review_factor: f64,
    /// The generic row counts as none.
    pub own_pair_type_required: bool,
}

/// What one request is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Standard<'a> {
    /// The row; none means that nothing may pass.
    pub row: Option<&'a CalibrationRow>,
    /// False-match rate decided at.
    pub policy_fmr: f64,
    /// Thresholds.
    pub bar: Bar,
}

impl Standards {
    /// Picks the row for a kind of pair and reads the thresholds off it.
    ///
    /// # Errors
    /// A false-match rate that the row's sample does not support.
    pub fn standard(
        &self,
        pair_type: PairType,
        policy_fmr: Option<f64>,
    ) -> Result<Standard<'_>, PolicyError> {
        let policy_fmr = policy_fmr.unwrap_or(self.policy_fmr);
        let row = select(&self.rows, pair_type, self.own_pair_type_required);
        let bar = match row {
            None => Bar::Uncalibrated,
            Some(row) => {
                let review_fmr = (policy_fmr * self.review_factor).min(row.fmr_max());
                let pass_min = row.threshold(policy_fmr)?;
                let review_min = row.threshold(review_fmr.max(policy_fmr))?;
                Bar::Calibrated { pass_min, review_min, generic: row.is_generic() }
            }
        };
        Ok(Standard { row, policy_fmr, bar })
    }
}

impl Standard<'_> {
    /// A cosine with what it stands for on the row.
    pub fn similarity(&self, cosine: f64) -> Similarity {
        let on_row = |row: &CalibrationRow| CalibratedSimilarity {
            score100: row.score100(cosine),
            fmr: row.fmr_at(cosine),
        };
        Similarity { cosine, calibrated: self.row.map(on_row) }
    }

    /// Least cosine that passes.
    pub fn similarity_min(&self) -> Option<f64> {
        match self.bar {
            Bar::Calibrated { pass_min, .. } => Some(pass_min),
            Bar::Uncalibrated => None,
        }
    }
}
