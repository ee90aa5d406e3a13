//! Decision on a session: from its outcome to a verdict with reasons.
//!
//! The rules, in order:
//!
//! 1. FAIL if there is evidence against the customer: a sign of an attack, a low PAD score, or a
//!    low similarity.
//! 2. RETRY if the session did not reach its end, or too few frames were judged.
//! 3. REVIEW if the evidence is not clear: no calibration entry, a similarity in the review band,
//!    or too many frames with a low PAD score.
//! 4. PASS otherwise.
//!
//! A fault of the service is a gRPC status and never reaches this module.

use super::admission::Assurance;
use super::outcome::{SessionEnd, SessionOutcome};
use super::rule::{Rule, RuleCheck};
use crate::face::ReasonCode;
use crate::face::decision::{Decision, Reason, Subject, Thresholds};

/// The decision on a session, and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionVerdict {
    /// The decision.
    pub decision: Decision,
    /// The reasons, deciding reasons first.
    pub reasons: Vec<Reason>,
    /// Every measured value with its limit.
    pub checks: Vec<RuleCheck>,
    /// How the frames reached the server.
    pub assurance: Assurance,
}

/// Decides on a session by the rules of this module. `similarity` is the cosine of the matched
/// frame and the portrait. `pad_score_min` is the least median PAD score.
pub fn decide_session(
    outcome: &SessionOutcome,
    similarity: Option<f64>,
    thresholds: Thresholds,
    pad_score_min: f64,
) -> SessionVerdict {
    let similarity = similarity.filter(|value| value.is_finite());
    let fail = session_fail_reasons(outcome, similarity, thresholds, pad_score_min);
    let retry = session_retry_reasons(outcome);
    let review = session_review_reasons(outcome, similarity, thresholds);
    let decision = match (fail.is_empty(), retry.is_empty(), review.is_empty()) {
        (false, _, _) => Decision::Fail,
        (true, false, _) => Decision::Retry,
        (true, true, false) => Decision::Review,
        (true, true, true) => Decision::Pass,
    };
    let mut reasons = [fail, retry, review].concat();
    if matches!(thresholds, Thresholds::Calibrated { generic: true, .. }) {
        reasons.push(Reason::plain(ReasonCode::GenericCalibration, Subject::Request));
    }
    let checks = session_checks(outcome, similarity, thresholds, pad_score_min);
    SessionVerdict { decision, reasons, checks, assurance: outcome.assurance }
}

impl SessionVerdict {
    /// Applies the findings about the portrait. An unusable portrait gives RETRY. A portrait that
    /// was itself shown to the camera gives FAIL.
    #[must_use]
    pub fn with_portrait(mut self, problems: &[Reason], is_shown: bool) -> Self {
        if !problems.is_empty() {
            return Self { decision: Decision::Retry, reasons: problems.to_vec(), ..self };
        }
        if is_shown {
            self.decision = Decision::Fail;
            self.reasons.insert(0, Reason::plain(ReasonCode::SameImage, Subject::Portrait));
        }
        self
    }
}

/// Removes the details that an attacker could learn from. The caller still gets the decision, what
/// the customer can do better, and one reason for all signs of an attack. Values, limits and checks
/// are removed.
pub fn coarsen(verdict: &SessionVerdict) -> SessionVerdict {
    let mut reasons: Vec<Reason> = Vec::new();
    for reason in &verdict.reasons {
        let is_portrait_shown = reason.code == ReasonCode::SameImage;
        let is_sign = is_attack_sign(reason.code) || is_portrait_shown;
        let is_disclosed = !is_sign && reason.code != ReasonCode::PadUncertain;
        let code = if is_disclosed { reason.code } else { ReasonCode::LivenessFailed };
        if reasons.iter().all(|other| other.code != code) {
            reasons.push(Reason::plain(code, reason.subject));
        }
    }
    SessionVerdict { reasons, checks: Vec::new(), ..verdict.clone() }
}

/// Returns true for signs of an attack. A session that stopped for another reason gives RETRY,
/// unless a score speaks against the customer.
fn is_attack_sign(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::JumpCut
            | ReasonCode::IdentitySwitch
            | ReasonCode::DuplicateFrames
            | ReasonCode::LoopSuspect
            | ReasonCode::ReplayedMedia
            | ReasonCode::InjectionSuspect
            | ReasonCode::PlanarFace
            | ReasonCode::LivenessLow
    )
}

fn stop_reasons(outcome: &SessionOutcome) -> &[Reason] {
    match &outcome.ending {
        SessionEnd::Stopped(reasons) => reasons,
        SessionEnd::Done => &[],
    }
}

fn has_enough_frames(outcome: &SessionOutcome) -> bool {
    outcome.pad.frames >= outcome.pad.frames_min.max(1)
}

fn session_fail_reasons(
    outcome: &SessionOutcome,
    similarity: Option<f64>,
    thresholds: Thresholds,
    pad_score_min: f64,
) -> Vec<Reason> {
    let attacks = stop_reasons(outcome).iter().filter(|reason| is_attack_sign(reason.code));
    let mut reasons: Vec<Reason> = attacks.copied().collect();
    // A NaN fails the check, as value and as limit.
    let is_low =
        |median: &f64| median.is_nan() || pad_score_min.is_nan() || *median < pad_score_min;
    if let Some(median) = outcome.pad.median.filter(is_low).filter(|_| has_enough_frames(outcome)) {
        let code = ReasonCode::LivenessLow;
        reasons.push(Reason::limited(code, Subject::Request, median, pad_score_min));
    }
    let Thresholds::Calibrated { pass_min, review_min, .. } = thresholds else { return reasons };
    if let Some(similarity) = similarity.filter(|similarity| *similarity < review_min) {
        let code = ReasonCode::SimilarityLow;
        reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
    }
    reasons
}

fn session_retry_reasons(outcome: &SessionOutcome) -> Vec<Reason> {
    match &outcome.ending {
        SessionEnd::Stopped(reasons) => {
            reasons.iter().filter(|reason| !is_attack_sign(reason.code)).copied().collect()
        }
        SessionEnd::Done if has_enough_frames(outcome) => Vec::new(),
        SessionEnd::Done => {
            let (frames, frames_min) = (outcome.pad.frames, outcome.pad.frames_min);
            let code = ReasonCode::TooFewFrames;
            vec![Reason::limited(code, Subject::Request, frames as f64, frames_min as f64)]
        }
    }
}

/// Returns the reasons for REVIEW of a session that reached its end.
fn session_review_reasons(
    outcome: &SessionOutcome,
    similarity: Option<f64>,
    thresholds: Thresholds,
) -> Vec<Reason> {
    if outcome.ending != SessionEnd::Done {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    let (low, low_max) = (outcome.pad.low_share, outcome.pad.low_share_max);
    let is_kept = low <= low_max;
    if !is_kept {
        let code = ReasonCode::PadUncertain;
        reasons.push(Reason::limited(code, Subject::Request, low, low_max));
    }
    let uncalibrated = Reason::plain(ReasonCode::Uncalibrated, Subject::Request);
    match (thresholds, similarity) {
        // Without a similarity nothing may pass. With a usable portrait, judged frames have one.
        (Thresholds::Uncalibrated, _) | (_, None) => reasons.push(uncalibrated),
        (Thresholds::Calibrated { pass_min, review_min, .. }, Some(similarity)) => {
            let (is_high, is_low) = (similarity >= pass_min, similarity < review_min);
            // A similarity below the review band is a reason for FAIL.
            if !is_high && !is_low {
                let code = ReasonCode::SimilarityBorderline;
                reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
            }
        }
    }
    reasons
}

/// Returns the checks of the outcome and those of this module.
fn session_checks(
    outcome: &SessionOutcome,
    similarity: Option<f64>,
    thresholds: Thresholds,
    pad_score_min: f64,
) -> Vec<RuleCheck> {
    let pad = &outcome.pad;
    let (frames, frames_min) = (pad.frames as f64, pad.frames_min as f64);
    let mut checks = outcome.checks.clone();
    checks.push(RuleCheck::at_least(Rule::JudgedFrames, frames, frames_min));
    if let Some(median) = pad.median {
        checks.push(RuleCheck::at_least(Rule::PadMedian, median, pad_score_min));
        checks.push(RuleCheck::at_most(Rule::PadLowShare, pad.low_share, pad.low_share_max));
    }
    if let (Some(similarity), Thresholds::Calibrated { pass_min, .. }) = (similarity, thresholds) {
        checks.push(RuleCheck::at_least(Rule::Similarity, similarity, pass_min));
    }
    checks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::judged_frames::PadEvidence;
    use super::*;

    const THRESHOLDS: Thresholds =
        Thresholds::Calibrated { pass_min: 0.425, review_min: 0.37, generic: false };

    fn outcome(ending: SessionEnd, frames: usize, median: f64, low_share: f64) -> SessionOutcome {
        SessionOutcome {
            ending,
            assurance: Assurance::Stream,
            pad: PadEvidence {
                frames,
                frames_min: 5,
                median: Some(median),
                low_share,
                low_share_max: 0.2,
            },
            matched: Some(7),
            thinned: 0,
            checks: vec![],
        }
    }

    fn stopped_by(code: ReasonCode) -> SessionEnd {
        SessionEnd::Stopped(vec![Reason::plain(code, Subject::Request)])
    }

    fn codes(verdict: &SessionVerdict) -> Vec<ReasonCode> {
        verdict.reasons.iter().map(|reason| reason.code).collect()
    }

    type Case = (SessionOutcome, Option<f64>, Thresholds, Decision, Vec<ReasonCode>);

    /// Similarities of a good session, and the expected decision and reasons.
    fn cases_of_similarity() -> Vec<Case> {
        use ReasonCode as Code;
        let done = || outcome(SessionEnd::Done, 7, 0.9, 0.0);
        vec![
            (done(), Some(0.5), THRESHOLDS, Decision::Pass, vec![]),
            (done(), Some(0.4), THRESHOLDS, Decision::Review, vec![Code::SimilarityBorderline]),
            (done(), Some(0.3), THRESHOLDS, Decision::Fail, vec![Code::SimilarityLow]),
            (
                done(),
                Some(0.9),
                Thresholds::Calibrated { pass_min: f64::NAN, review_min: f64::NAN, generic: false },
                Decision::Review,
                vec![Code::SimilarityBorderline],
            ),
            (done(), None, THRESHOLDS, Decision::Review, vec![Code::Uncalibrated]),
            (done(), Some(f64::NAN), THRESHOLDS, Decision::Review, vec![Code::Uncalibrated]),
            (
                done(),
                Some(0.9),
                Thresholds::Uncalibrated,
                Decision::Review,
                vec![Code::Uncalibrated],
            ),
        ]
    }

    /// Outcomes with one deviation each, and the expected decision and reasons.
    fn cases_of_outcome() -> Vec<Case> {
        use ReasonCode as Code;
        vec![
            (
                outcome(SessionEnd::Done, 7, 0.79, 0.0),
                Some(0.5),
                THRESHOLDS,
                Decision::Fail,
                vec![Code::LivenessLow],
            ),
            (
                outcome(SessionEnd::Done, 7, 0.9, 0.25),
                Some(0.5),
                THRESHOLDS,
                Decision::Review,
                vec![Code::PadUncertain],
            ),
            (
                outcome(SessionEnd::Done, 4, 0.1, 0.0),
                Some(0.5),
                THRESHOLDS,
                Decision::Retry,
                vec![Code::TooFewFrames],
            ),
            (
                outcome(stopped_by(Code::SessionExpired), 7, 0.9, 0.0),
                Some(0.5),
                THRESHOLDS,
                Decision::Retry,
                vec![Code::SessionExpired],
            ),
            (
                outcome(stopped_by(Code::WrongAction), 7, 0.9, 0.0),
                None,
                THRESHOLDS,
                Decision::Retry,
                vec![Code::WrongAction],
            ),
            (
                outcome(stopped_by(Code::WrongAction), 7, 0.1, 1.0),
                None,
                THRESHOLDS,
                Decision::Fail,
                vec![Code::LivenessLow, Code::WrongAction],
            ),
            (
                outcome(stopped_by(Code::JumpCut), 7, 0.9, 0.0),
                Some(0.9),
                THRESHOLDS,
                Decision::Fail,
                vec![Code::JumpCut],
            ),
        ]
    }

    #[test]
    fn each_rule_decides_in_its_order() {
        for (outcome, similarity, thresholds, decision, reasons) in
            cases_of_similarity().into_iter().chain(cases_of_outcome())
        {
            let verdict = decide_session(&outcome, similarity, thresholds, 0.8);
            assert_eq!((verdict.decision, codes(&verdict)), (decision, reasons), "{outcome:?}");
        }
    }

    #[test]
    fn coarse_answers_hide_which_check_an_attack_failed() {
        let verdict = decide_session(
            &outcome(stopped_by(ReasonCode::PlanarFace), 7, 0.1, 1.0),
            None,
            THRESHOLDS,
            0.8,
        );
        let coarse = coarsen(&verdict);
        assert_eq!(
            (coarse.decision, codes(&coarse)),
            (Decision::Fail, vec![ReasonCode::LivenessFailed])
        );
        assert!(coarse.checks.is_empty() && coarse.reasons[0].value.is_none());
        let shown = coarsen(&verdict.with_portrait(&[], true));
        assert_eq!(codes(&shown), [ReasonCode::LivenessFailed]);

        let verdict = decide_session(
            &outcome(stopped_by(ReasonCode::FpsTooLow), 7, 0.9, 0.0),
            None,
            THRESHOLDS,
            0.8,
        );
        assert_eq!(codes(&coarsen(&verdict)), [ReasonCode::FpsTooLow]);
    }

    proptest! {
        #[test]
        fn a_pass_means_that_every_rule_held(
            end in 0..2,
            frames in 0..9_usize,
            median in any::<f64>(),
            low_share in any::<f64>(),
            similarity in prop::option::of(any::<f64>()),
            is_calibrated in any::<bool>(),
        ) {
            let ending = match end {
                0 => SessionEnd::Done,
                _ => stopped_by(ReasonCode::TimeGap),
            };
            let thresholds = if is_calibrated { THRESHOLDS } else { Thresholds::Uncalibrated };
            let outcome = outcome(ending, frames, median, low_share);
            if decide_session(&outcome, similarity, thresholds, 0.8).decision == Decision::Pass {
                prop_assert_eq!(outcome.ending, SessionEnd::Done);
                prop_assert!(is_calibrated && frames >= 5 && median >= 0.8 && low_share <= 0.2);
                prop_assert!(similarity.unwrap() >= 0.425);
            }
        }
    }
}
