//! From a session's outcome to a decision with reasons.
//!
//! The rules, in order:
//!
//! 1. Something speaks against the customer (a sign of an attack, low liveness, low similarity):
//!    FAIL.
//! 2. The session did not come to its end, or too few frames could be judged: RETRY.
//! 3. Nobody can tell (no calibration entry, a similarity in the review band, some frames that look
//!    like a picture): REVIEW.
//! 4. Otherwise PASS.
//!
//! Trouble of the service is a status and never comes here.

use super::admission::Assurance;
use super::outcome::{Ending, Outcome, Rule, RuleCheck};
use crate::face::ReasonCode;
use crate::face::verdict::{Bar, Decision, Reason, Subject};

/// The answer to a session, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct LivenessVerdict {
    /// What the caller should do.
    pub decision: Decision,
    /// Why, deciding reasons first.
    pub reasons: Vec<Reason>,
    /// Every value that was measured, with its limit.
    pub checks: Vec<RuleCheck>,
    /// How far the answer can be trusted.
    pub assurance: Assurance,
}

/// Judges a session by the rules of this module. `similarity` is that of the matched frame and the
/// portrait, `live_min` the least median probability of a live person.
pub fn judge(
    outcome: &Outcome,
    similarity: Option<f64>,
    bar: Bar,
    live_min: f64,
) -> LivenessVerdict {
    let similarity = similarity.filter(|value| value.is_finite());
    let against = against(outcome, similarity, bar, live_min);
    let retry = retry(outcome);
    let unsure = unsure(outcome, similarity, bar);
    let decision = match (against.is_empty(), retry.is_empty(), unsure.is_empty()) {
        (false, _, _) => Decision::Fail,
        (true, false, _) => Decision::Retry,
        (true, true, false) => Decision::Review,
        (true, true, true) => Decision::Pass,
    };
    let mut reasons = [against, retry, unsure].concat();
    if matches!(bar, Bar::Calibrated { generic: true, .. }) {
        reasons.push(Reason::plain(ReasonCode::GenericCalibration, Subject::Request));
    }
    let checks = all_checks(outcome, similarity, bar, live_min);
    LivenessVerdict { decision, reasons, checks, assurance: outcome.assurance }
}

impl LivenessVerdict {
    /// What the portrait says: one that cannot be used is to be taken again, and one that was
    /// itself shown to the camera speaks against the customer.
    #[must_use]
    pub fn about_portrait(mut self, problems: &[Reason], is_shown: bool) -> Self {
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

/// What a caller who is not trusted with details may know: the decision, one word for every sign of
/// an attack, what the customer can do better, and no number that an attacker could climb by.
pub fn coarsen(verdict: &LivenessVerdict) -> LivenessVerdict {
    let mut reasons: Vec<Reason> = Vec::new();
    for reason in &verdict.reasons {
        let is_portrait_shown = reason.code == ReasonCode::SameImage;
        let is_sign = is_attack(reason.code) || is_portrait_shown;
        let is_told = !is_sign && reason.code != ReasonCode::PadUncertain;
        let code = if is_told { reason.code } else { ReasonCode::LivenessFailed };
        if reasons.iter().all(|other| other.code != code) {
            reasons.push(Reason::plain(code, reason.subject));
        }
    }
    LivenessVerdict { reasons, checks: Vec::new(), ..verdict.clone() }
}

/// Signs of an attack; whatever else ends a session, the customer may try again.
fn is_attack(code: ReasonCode) -> bool {
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

fn stopped(outcome: &Outcome) -> &[Reason] {
    match &outcome.ending {
        Ending::Stopped(reasons) => reasons,
        Ending::Done => &[],
    }
}

fn has_frames(outcome: &Outcome) -> bool {
    outcome.live.frames >= outcome.live.frames_min.max(1)
}

/// Reasons that fail the session.
fn against(outcome: &Outcome, similarity: Option<f64>, bar: Bar, live_min: f64) -> Vec<Reason> {
    let attacks = stopped(outcome).iter().filter(|reason| is_attack(reason.code));
    let mut reasons: Vec<Reason> = attacks.copied().collect();
    // A limit that is not a number is kept by nobody.
    let is_low = |median: &f64| median.is_nan() || live_min.is_nan() || *median < live_min;
    if let Some(median) = outcome.live.median.filter(is_low).filter(|_| has_frames(outcome)) {
        let code = ReasonCode::LivenessLow;
        reasons.push(Reason::limited(code, Subject::Request, median, live_min));
    }
    let Bar::Calibrated { pass_min, review_min, .. } = bar else { return reasons };
    if let Some(similarity) = similarity.filter(|similarity| *similarity < review_min) {
        let code = ReasonCode::SimilarityLow;
        reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
    }
    reasons
}

/// Reasons to start another session.
fn retry(outcome: &Outcome) -> Vec<Reason> {
    match &outcome.ending {
        Ending::Stopped(reasons) => {
            reasons.iter().filter(|reason| !is_attack(reason.code)).copied().collect()
        }
        Ending::Done if has_frames(outcome) => Vec::new(),
        Ending::Done => {
            let (frames, frames_min) = (outcome.live.frames, outcome.live.frames_min);
            let code = ReasonCode::TooFewFrames;
            vec![Reason::limited(code, Subject::Request, frames as f64, frames_min as f64)]
        }
    }
}

/// Reasons that send a finished session to a person.
fn unsure(outcome: &Outcome, similarity: Option<f64>, bar: Bar) -> Vec<Reason> {
    if outcome.ending != Ending::Done {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    let (low, low_max) = (outcome.live.low_share, outcome.live.low_share_max);
    let is_kept = low <= low_max;
    if !is_kept {
        let code = ReasonCode::PadUncertain;
        reasons.push(Reason::limited(code, Subject::Request, low, low_max));
    }
    let uncalibrated = Reason::plain(ReasonCode::Uncalibrated, Subject::Request);
    match (bar, similarity) {
        // Without a similarity nothing may pass; judged frames always have one.
        (Bar::Uncalibrated, _) | (_, None) => reasons.push(uncalibrated),
        (Bar::Calibrated { pass_min, review_min, .. }, Some(similarity)) => {
            let (is_high, is_low) = (similarity >= pass_min, similarity < review_min);
            // A low one speaks against the customer.
            if !is_high && !is_low {
                let code = ReasonCode::SimilarityBorderline;
                reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
            }
        }
    }
    reasons
}

/// The outcome's checks, and those of this module.
fn all_checks(
    outcome: &Outcome,
    similarity: Option<f64>,
    bar: Bar,
    live_min: f64,
) -> Vec<RuleCheck> {
    let live = &outcome.live;
    let (frames, frames_min) = (live.frames as f64, live.frames_min as f64);
    let mut checks = outcome.checks.clone();
    checks.push(RuleCheck::at_least(Rule::JudgedFrames, frames, frames_min));
    if let Some(median) = live.median {
        checks.push(RuleCheck::at_least(Rule::LiveMedian, median, live_min));
        checks.push(RuleCheck::at_most(Rule::LiveLowShare, live.low_share, live.low_share_max));
    }
    if let (Some(similarity), Bar::Calibrated { pass_min, .. }) = (similarity, bar) {
        checks.push(RuleCheck::at_least(Rule::Similarity, similarity, pass_min));
    }
    checks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::judging::LiveEvidence;
    use super::*;

    const BAR: Bar = Bar::Calibrated { pass_min: 0.425, review_min: 0.37, generic: false };

    fn outcome(ending: Ending, frames: usize, median: f64, low_share: f64) -> Outcome {
        Outcome {
            ending,
            assurance: Assurance::Stream,
            live: LiveEvidence {
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

    fn stopped_by(code: ReasonCode) -> Ending {
        Ending::Stopped(vec![Reason::plain(code, Subject::Request)])
    }

    fn codes(verdict: &LivenessVerdict) -> Vec<ReasonCode> {
        verdict.reasons.iter().map(|reason| reason.code).collect()
    }

    type Row = (Outcome, Option<f64>, Bar, Decision, Vec<ReasonCode>);

    /// Outcomes of which one thing is wrong, with what comes of it.
    fn rows() -> Vec<Row> {
        use ReasonCode as Code;
        let done = || outcome(Ending::Done, 7, 0.9, 0.0);
        vec![
            (done(), Some(0.5), BAR, Decision::Pass, vec![]),
            (done(), Some(0.4), BAR, Decision::Review, vec![Code::SimilarityBorderline]),
            (done(), Some(0.3), BAR, Decision::Fail, vec![Code::SimilarityLow]),
            (
                done(),
                Some(0.9),
                Bar::Calibrated { pass_min: f64::NAN, review_min: f64::NAN, generic: false },
                Decision::Review,
                vec![Code::SimilarityBorderline],
            ),
            (done(), None, BAR, Decision::Review, vec![Code::Uncalibrated]),
            (done(), Some(f64::NAN), BAR, Decision::Review, vec![Code::Uncalibrated]),
            (done(), Some(0.9), Bar::Uncalibrated, Decision::Review, vec![Code::Uncalibrated]),
            (
                outcome(Ending::Done, 7, 0.79, 0.0),
                Some(0.5),
                BAR,
                Decision::Fail,
                vec![Code::LivenessLow],
            ),
            (
                outcome(Ending::Done, 7, 0.9, 0.25),
                Some(0.5),
                BAR,
                Decision::Review,
                vec![Code::PadUncertain],
            ),
            (
                outcome(Ending::Done, 4, 0.1, 0.0),
                Some(0.5),
                BAR,
                Decision::Retry,
                vec![Code::TooFewFrames],
            ),
            (
                outcome(stopped_by(Code::SessionExpired), 7, 0.9, 0.0),
                Some(0.5),
                BAR,
                Decision::Retry,
                vec![Code::SessionExpired],
            ),
            (
                outcome(stopped_by(Code::WrongAction), 7, 0.9, 0.0),
                None,
                BAR,
                Decision::Retry,
                vec![Code::WrongAction],
            ),
            (
                outcome(stopped_by(Code::WrongAction), 7, 0.1, 1.0),
                None,
                BAR,
                Decision::Fail,
                vec![Code::LivenessLow, Code::WrongAction],
            ),
            (
                outcome(stopped_by(Code::JumpCut), 7, 0.9, 0.0),
                Some(0.9),
                BAR,
                Decision::Fail,
                vec![Code::JumpCut],
            ),
        ]
    }

    #[test]
    fn each_rule_decides_in_its_turn() {
        for (outcome, similarity, bar, decision, reasons) in rows() {
            let verdict = judge(&outcome, similarity, bar, 0.8);
            assert_eq!((verdict.decision, codes(&verdict)), (decision, reasons), "{outcome:?}");
        }
    }

    #[test]
    fn coarse_answers_do_not_tell_which_check_an_attack_met() {
        let verdict =
            judge(&outcome(stopped_by(ReasonCode::PlanarFace), 7, 0.1, 1.0), None, BAR, 0.8);
        let coarse = coarsen(&verdict);
        assert_eq!(
            (coarse.decision, codes(&coarse)),
            (Decision::Fail, vec![ReasonCode::LivenessFailed])
        );
        assert!(coarse.checks.is_empty() && coarse.reasons[0].value.is_none());
        let shown = coarsen(&verdict.about_portrait(&[], true));
        assert_eq!(codes(&shown), [ReasonCode::LivenessFailed]);

        let verdict =
            judge(&outcome(stopped_by(ReasonCode::FpsTooLow), 7, 0.9, 0.0), None, BAR, 0.8);
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
                0 => Ending::Done,
                _ => stopped_by(ReasonCode::TimeGap),
            };
            let bar = if is_calibrated { BAR } else { Bar::Uncalibrated };
            let outcome = outcome(ending, frames, median, low_share);
            if judge(&outcome, similarity, bar, 0.8).decision == Decision::Pass {
                prop_assert_eq!(outcome.ending, Ending::Done);
                prop_assert!(is_calibrated && frames >= 5 && median >= 0.8 && low_share <= 0.2);
                prop_assert!(similarity.unwrap() >= 0.425);
            }
        }
    }
}
