//! Settings of the decision policy.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::setting::{RangeCheck, Violation};

/// Section `verify`: policy and calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// False-match rate of the decision when the request sets none, above 0 and below 1. NIST SP
    /// 800-63A requires 1e-4 of identity proofing.
    pub policy_fmr: f64,
    /// A similarity that fails at `policy_fmr` but would pass at `review_factor` times that rate
    /// gives REVIEW: a person must decide. From 1, which turns this off, to 1000.
    pub review_factor: f64,
    /// Whether a decision needs a calibration entry measured on pairs of the request's own type. If
    /// `true`, a generic entry is not used.
    pub own_pair_type_required: bool,
    /// Calibration file of this deployment, for the embedding space of the live model. Its entries
    /// take precedence over the model's. If not set, only the model's entries are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self {
            policy_fmr: 1e-4,
            review_factor: 10.0,
            own_pair_type_required: false,
            calibration: None,
        }
    }
}

impl VerifySettings {
    /// Returns every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("verify");
        let is_rate = self.policy_fmr > 0.0 && self.policy_fmr < 1.0;
        check.require(is_rate, "policy_fmr", self.policy_fmr, "between 0 and 1");
        check.within("review_factor", self.review_factor, 1.0..=1000.0);
        check.violations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_none_and_a_factor_outside_its_range_are_reported() {
        assert_eq!(VerifySettings::default().violations(), []);
        for policy_fmr in [0.0, 1.0, -1e-4, f64::NAN] {
            let settings = VerifySettings { policy_fmr, ..VerifySettings::default() };
            assert_eq!(settings.violations()[0].key, "verify.policy_fmr", "{policy_fmr}");
        }
        for review_factor in [0.9, 1000.1, f64::NAN] {
            let settings = VerifySettings { review_factor, ..VerifySettings::default() };
            assert_eq!(settings.violations()[0].key, "verify.review_factor", "{review_factor}");
        }
    }
}
