//! What a session has shown: how it ended, and every value with its limit.

use super::admission::{Assurance, Worst as GateWorst};
use super::judged_frames::PadEvidence;
use super::limits::Limits;
use super::rule::{Rule, RuleCheck};
use super::track::TrackingWorst;
use crate::face::decision::Reason;

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Every action was done, and nothing was against it.
    Done,
    /// By a rule, which comes first; what the customer was told and did not heed comes behind.
    Stopped(Vec<Reason>),
}

/// Everything that a session's verdict stands on, but the match with the portrait.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOutcome {
    /// How it ended.
    pub ending: Ending,
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
    pub(super) gate: GateWorst,
    pub(super) track: TrackingWorst,
    /// Seconds.
    pub(super) reaction: Option<f64>,
    pub(super) depth: Option<f64>,
    /// Pictures that came again, and of long before.
    pub(super) repeats: [usize; 2],
    pub(super) identity: Option<f64>,
}

/// Holds all that was measured against its limits.
pub(super) fn check_rules(
    measures: &SessionMeasures,
    limits: &Limits,
    assurance: Assurance,
) -> Vec<RuleCheck> {
    let SessionMeasures { gate, track, reaction, depth, repeats, identity } = measures;
    let least = |rule, value: Option<f64>, limit| {
        value.map(|value| RuleCheck::at_least(rule, value, limit))
    };
    let most = |rule, value, limit| Some(RuleCheck::at_most(rule, value, limit));
    let (admission, following) = (&limits.admission, &limits.track);
    let (second, second_max) = (track.second_time, following.second_time_max);
    let (losses_max, same) = (following.restarts_max, &limits.continuity);
    let drift = RuleCheck::at_most(
        Rule::ClockDrift,
        gate.drift.as_secs_f64(),
        admission.clock_drift_max.as_secs_f64(),
    );
    let reaction_min = limits.steps.reaction_min.as_secs_f64();
    let checks = [
        least(Rule::FrameRate, gate.rate, admission.rate_min),
        (assurance == Assurance::Stream).then_some(drift),
        most(Rule::SecondFaceTime, second.as_secs_f64(), second_max.as_secs_f64()),
        most(Rule::Losses, track.restarts as f64, losses_max as f64),
        most(Rule::EyesJump, track.eyes_shift, following.jump_eyes_max),
        most(Rule::SizeJump, track.size_change, following.jump_size_max),
        most(Rule::TurnJump, track.turn_change, following.jump_turn_max),
        least(Rule::Reaction, *reaction, reaction_min),
        least(Rule::Depth, *depth, limits.gestures.depth_min),
        most(Rule::RepeatedPictures, repeats[0] as f64, same.repeated_pictures_max as f64),
        most(Rule::Loops, repeats[1] as f64, same.loops_max as f64),
        least(Rule::Identity, *identity, same.identity_min()),
    ];
    checks.into_iter().flatten().collect()
}
