//! Outcome of a session: how it ended, and every measured value with its limit.

use super::admission::{AdmissionWorst, Assurance};
use super::judged_frames::PadEvidence;
use super::limits::{AdmissionLimits, SessionLimits};
use super::rule::{Rule, RuleCheck};
use super::track::TrackingWorst;
use crate::face::decision::Reason;

/// End of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEnd {
    /// Every action was performed, and no rule was broken.
    Done,
    /// A rule was broken; its reason comes first. The reason of guidance that the customer did not
    /// follow may come second.
    Stopped(Vec<Reason>),
}

/// The basis of a session's verdict, except for the match with the portrait.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOutcome {
    pub ending: SessionEnd,
    /// How the frames reached the server.
    pub assurance: Assurance,
    pub pad: PadEvidence,
    /// Sequence number of the matched frame.
    pub matched: Option<u32>,
    /// Number of frames left out because the stream was too fast.
    pub thinned: usize,
    /// Every measured value with its limit.
    pub checks: Vec<RuleCheck>,
}

/// Values that the parts of a session measured.
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

/// Checks every measured value against its limit.
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
