//! What a sample allows to claim: an error rate is known only as well as there were presentations.

use crate::bounds::{Rate, error_free_needed};
use crate::rates::{Counts, Report};

/// Attack rates worth claiming of every species: those at which BPCER20 and BPCER100 are read, the
/// lower one the limit of level 2 of iBeta's tests.
pub const APCER_CLAIMS: [f64; 2] = [0.05, 0.01];

/// Bona fide rates worth claiming: the limits of levels 1 and 2, and of level 3, of iBeta's tests.
pub const BPCER_CLAIMS: [f64; 2] = [0.15, 0.10];

/// "The rate is at most `limit`", and what stands against saying so.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The rate claimed.
    pub limit: f64,
    /// Every kind of presentation whose upper bound is above the limit; empty when the claim holds.
    pub shortfalls: Vec<Shortfall>,
}

/// Why one kind of presentation does not support a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Shortfall {
    /// Even without any error, this many would not be enough.
    TooFew {
        /// Species, or `bona fide`.
        name: String,
        /// Answered presentations.
        presentations: usize,
        /// What it takes when none goes wrong.
        needed: usize,
    },
    /// There are enough, but too many went wrong.
    TooManyErrors {
        /// Species, or `bona fide`.
        name: String,
        /// What was measured.
        rate: Rate,
    },
}

impl Claim {
    /// Whether the sample supports it.
    pub fn is_supported(&self) -> bool {
        self.shortfalls.is_empty()
    }
}

impl Report {
    /// Which of [`APCER_CLAIMS`] the answered attacks support.
    pub fn apcer_claims(&self) -> Vec<Claim> {
        judge(&APCER_CLAIMS, &self.attacks)
    }

    /// Which of [`BPCER_CLAIMS`] the answered bona fide presentations support.
    pub fn bpcer_claims(&self) -> Vec<Claim> {
        judge(&BPCER_CLAIMS, std::slice::from_ref(&self.bona_fide))
    }
}

/// Judges the claims of each limit on all of `samples`; without samples nothing is claimed.
fn judge(limits: &[f64], samples: &[Counts]) -> Vec<Claim> {
    if samples.is_empty() {
        return Vec::new();
    }
    let claim = |&limit: &f64| {
        let shortfalls = samples.iter().filter_map(|counts| shortfall(limit, counts)).collect();
        Claim { limit, shortfalls }
    };
    limits.iter().map(claim).collect()
}

fn shortfall(limit: f64, counts: &Counts) -> Option<Shortfall> {
    let name = counts.name.clone();
    let needed = error_free_needed(limit);
    match counts.errors {
        Some(rate) if rate.presentations() >= needed => {
            (rate.upper() > limit).then_some(Shortfall::TooManyErrors { name, rate })
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

    fn counts(name: &str, errors: usize, answered: usize) -> Counts {
        Counts {
            name: name.to_owned(),
            presentations: answered,
            subjects: 0,
            devices: 0,
            errors: Rate::new(errors, answered),
            non_responses: Rate::new(0, answered),
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
    fn silence_and_absence_support_nothing() {
        let claim = &judge(&[0.05], &[counts("print", 0, 0)])[0];
        let short = Shortfall::TooFew { name: "print".into(), presentations: 0, needed: 59 };
        assert_eq!(claim.shortfalls, [short]);
        assert_eq!(judge(&[0.05], &[]), []);
    }
}
