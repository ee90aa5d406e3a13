//! The rules of a session that limit a measured value, and the checks of values against limits.

use crate::face::LimitKind;

/// A rule of a session with a measured value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Frames per second.
    FrameRate,
    /// Seconds between the client's and the server's clock.
    ClockDrift,
    /// Seconds with a second face.
    SecondFaceTime,
    /// Number of times that the face was lost for too long.
    Losses,
    /// Movement of the eyes between frames, in inter-eye distances.
    EyesJump,
    /// Relative change of the face's size between frames.
    SizeJump,
    /// Change of turn between frames.
    TurnJump,
    /// Seconds from a prompt to the start of the movement.
    Reaction,
    /// Residual of a turned face that no flat picture explains, in inter-eye distances.
    Depth,
    /// Number of pictures that repeat one of the last second.
    RepeatedPictures,
    /// Number of pictures that repeat an older one: signs of a loop.
    Loops,
    /// Least similarity of any two judged frames.
    Identity,
    /// Number of judged frames.
    JudgedFrames,
    /// Median PAD score.
    PadMedian,
    /// Share of frames with a low PAD score.
    PadLowShare,
    /// Similarity of the matched frame and the portrait.
    Similarity,
}

impl Rule {
    /// Returns the name used in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::FrameRate => "frames.per_second",
            Self::ClockDrift => "frames.clock_drift_s",
            Self::SecondFaceTime => "track.second_face_s",
            Self::Losses => "track.losses",
            Self::EyesJump => "track.eyes_jump",
            Self::SizeJump => "track.size_jump",
            Self::TurnJump => "track.turn_jump",
            Self::Reaction => "steps.reaction_s",
            Self::Depth => "turn.depth",
            Self::RepeatedPictures => "continuity.repeated_pictures",
            Self::Loops => "continuity.loops",
            Self::Identity => "continuity.identity",
            Self::JudgedFrames => "passive.frames",
            Self::PadMedian => "passive.median",
            Self::PadLowShare => "passive.low_share",
            Self::Similarity => "match.similarity",
        }
    }
}

/// A value and the limit it was checked against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleCheck {
    /// The rule.
    pub rule: Rule,
    /// The worst value of the session.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// The side of the limit on which the value must be.
    pub kind: LimitKind,
    /// True if the limit was kept. A NaN keeps no limit.
    pub passed: bool,
}

impl RuleCheck {
    pub(super) fn at_least(rule: Rule, value: f64, limit: f64) -> Self {
        Self { rule, value, limit, kind: LimitKind::Min, passed: value >= limit }
    }

    pub(super) fn at_most(rule: Rule, value: f64, limit: f64) -> Self {
        Self { rule, value, limit, kind: LimitKind::Max, passed: value <= limit }
    }
}
