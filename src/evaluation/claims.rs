//! Claims "the rate is at most …". The upper bound of the measured rate decides each claim, so that
//! a small sample supports few claims.

use crate::bounds::{Rate, error_free_needed};
use crate::rates::{SampleCounts, ThresholdReport};

/// APCER limits to judge for every species: the limits of BPCER20 and BPCER100. The lower one is
/// also the limit of level 2 of iBeta's tests.
pub const APCER_CLAIMS: [f64; 2] = [0.05, 0.01];

/// BPCER limits to judge: the limit of levels 1 and 2 of iBeta's tests, and that of level 3.
pub const BPCER_CLAIMS: [f64; 2] = [0.15, 0.10];

/// The claim that a rate is at most `limit`, and the reasons against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The claimed rate, 0..=1.
    pub limit: f64,
    /// Every sample whose upper bound is above the limit. Empty if the claim holds.
    pub shortfalls: Vec<Shortfall>,
}

/// Why a sample does not support a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Shortfall {
    /// Even without an error, the sample would be too small.
    TooFew {
        /// Species, or `bona fide`.
        name: String,
        /// Answered presentations.
        presentations: usize,
        /// Number of presentations that would support the claim, if none has an error.
        needed: usize,
    },
    /// The sample is large enough, but has too many errors.
    TooManyErrors {
        /// Species, or `bona fide`.
        name: String,
        /// The measured rate.
        rate: Rate,
    },
}

impl Claim {
    /// Returns true if all samples support the claim.
    pub fn is_supported(&self) -> bool {
        self.shortfalls.is_empty()
    }
}

impl ThresholdReport {
    /// Judges [`APCER_CLAIMS`] on the answered attacks of every species. Returns no claim without
    /// attacks.
    pub fn apcer_claims(&self) -> Vec<Claim> {
        judge(&APCER_CLAIMS, &self.attacks)
    }

    /// Judges [`BPCER_CLAIMS`] on the answered bona fide presentations.
    pub fn bpcer_claims(&self) -> Vec<Claim> {
        judge(&BPCER_CLAIMS, std::slice::from_ref(&self.bona_fide))
    }
}

/// Judges each limit on all of `samples`. Returns no claim without samples.
fn judge(limits: &[f64], samples: &[SampleCounts]) -> Vec<Claim> {
    if samples.is_empty() {
        return Vec::new();
    }
    let claim = |&limit: &f64| {
        let shortfalls = samples.iter().filter_map(|counts| shortfall(limit, counts)).collect();
        Claim { limit, shortfalls }
    };
    limits.iter().map(claim).collect()
}

fn shortfall(limit: f64, counts: &SampleCounts) -> Option<Shortfall> {
    let name = counts.name.clone();
    let needed = error_free_needed(limit);
    match counts.error_rate {
        Some(rate) if rate.presentations() >= needed => {
            (rate.upper_bound() > limit).then_some(Shortfall::TooManyErrors { name, rate })
        }
        rate => {
            let presentations = rate.map_or(0, Rate::presentations);
            Some(Shortfall::TooFew { name, presentations, needed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(name: &str, errors: usize, answered: usize) -> SampleCounts {
        SampleCounts {
            name: name.to_owned(),
            presentations: answered,
            subjects: 0,
            devices: 0,
            error_rate: Rate::new(errors, answered),
            non_response_rate: Rate::new(0, answered),
        }
    }

    #[test]
    fn a_claim_needs_enough_presentations_of_every_species() {
        let claims = judge(&APCER_CLAIMS, &[counts("print", 0, 299), counts("mask", 0, 58)]);
        for (claim, needed) in claims.iter().zip([59, 299]) {
            let short = Shortfall::TooFew { name: "mask".into(), presentations: 58, needed };
            assert_eq!(claim.shortfalls, [short]);
        }
        assert!(judge(&[0.01], &[counts("print", 0, 299)])[0].is_supported());
    }

    #[test]
    fn one_error_in_299_is_too_many_for_one_per_cent() {
        let claim = &judge(&[0.01], &[counts("print", 1, 299)])[0];
        let rate = Rate::new(1, 299).unwrap();
        assert_eq!(claim.shortfalls, [Shortfall::TooManyErrors { name: "print".into(), rate }]);
    }

    #[test]
    fn unanswered_or_missing_presentations_support_no_claim() {
        let claim = &judge(&[0.05], &[counts("print", 0, 0)])[0];
        let short = Shortfall::TooFew { name: "print".into(), presentations: 0, needed: 59 };
        assert_eq!(claim.shortfalls, [short]);
        assert_eq!(judge(&[0.05], &[]), []);
    }
}
