//! What a session has shown: how it ended, and every value with its limit.

use super::admission::{AdmissionWorst, Assurance};
use super::judged_frames::PadEvidence;
use super::limits::{AdmissionLimits, SessionLimits};
use super::rule::{Rule, RuleCheck};
use super::track::TrackingWorst;
use crate::face::decision::Reason;

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEnd {
    /// Every action was done, and nothing was against it.
    Done,
    /// By a rule, which comes first; what the customer was told and did not heed comes behind.
    Stopped(Vec<Reason>),
}

/// Everything that a session's verdict stands on, but the match with the portrait.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOutcome {
    /// How it ended.
    pub ending: SessionEnd,
    /// How its frames came.
    pub assurance: Assurance,
    /// What the liveness networks say.
    pub pad: PadEvidence,
    /// The frame that was matched.
    pub matched: Option<u32>,
    /// Frames that were left out because they came too fast.
    pub thinned: usize,
    /// Every value that was measured.
    pub checks: Vec<RuleCheck>,
}

/// What the parts of a session have measured.
pub(super) struct SessionMeasures {
    pub(super) admission: AdmissionWorst,
    pub(super) track: TrackingWorst,
    /// Seconds.
    pub(super) reaction: Option<f64>,
    pub(super) depth: Option<f64>,
    pub(super) repeats: usize,
    pub(super) loops: usize,
    pub(super) identity: Option<f64>,
}

/// Holds all that was measured against its limits.
pub(super) fn check_rules(
    measures: &SessionMeasures,
    limits: &SessionLimits,
    assurance: Assurance,
) -> Vec<RuleCheck> {
    let SessionMeasures { admission, track, reaction, depth, repeats, loops, identity } = measures;
    let least = |rule, value: Option<f64>, limit| {
        value.map(|value| RuleCheck::at_least(rule, value, limit))
    };
    let most = |rule, value, limit| Some(RuleCheck::at_most(rule, value, limit));
    let AdmissionLimits { clock_drift_max, rate_min, .. } = &limits.admission;
    let (track_limits, continuity) = (&limits.track, &limits.continuity);
    let second_time_max = track_limits.second_time_max.as_secs_f64();
    let drift = RuleCheck::at_most(
        Rule::ClockDrift,
        admission.drift.as_secs_f64(),
        clock_drift_max.as_secs_f64(),
    );
    let reaction_min = limits.steps.reaction_min.as_secs_f64();
    let checks = [
        least(Rule::FrameRate, admission.rate, *rate_min),
        (assurance == Assurance::Stream).then_some(drift),
        most(Rule::SecondFaceTime, track.second_time.as_secs_f64(), second_time_max),
        most(Rule::Losses, track.restarts as f64, track_limits.restarts_max as f64),
        most(Rule::EyesJump, track.eyes_shift, track_limits.jump_eyes_max),
        most(Rule::SizeJump, track.size_change, track_limits.jump_size_max),
        most(Rule::TurnJump, track.turn_change, track_limits.jump_turn_max),
        least(Rule::Reaction, *reaction, reaction_min),
        least(Rule::Depth, *depth, limits.gestures.depth_min),
        most(Rule::RepeatedPictures, *repeats as f64, continuity.repeated_pictures_max as f64),
        most(Rule::Loops, *loops as f64, continuity.loops_max as f64),
        least(Rule::Identity, *identity, continuity.identity_min()),
    ];
    checks.into_iter().flatten().collect()
}
