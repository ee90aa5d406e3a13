//! The rules of a session that have a number, and a value checked against its limit.

use crate::face::LimitKind;

/// A rule of a session with a number to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Frames a second.
    FrameRate,
    /// Seconds between the client's and the server's clock.
    ClockDrift,
    /// Seconds with a second face.
    SecondFaceTime,
    /// How often the face was gone.
    Losses,
    /// Way of the eyes between frames, in their distances.
    EyesJump,
    /// Relative change of the face's size between frames.
    SizeJump,
    /// Change of turn between frames.
    TurnJump,
    /// Seconds from a prompt to its movement.
    Reaction,
    /// What of a turned face no flat picture explains.
    Depth,
    /// Pictures that came again.
    RepeatedPictures,
    /// Pictures of long before that came again.
    Loops,
    /// Least similarity of any two judged frames.
    Identity,
    /// Frames that were judged.
    JudgedFrames,
    /// Median probability of a live person.
    PadMedian,
    /// Share of frames that look like a picture.
    PadLowShare,
    /// Similarity of the matched frame and the portrait.
    Similarity,
}

impl Rule {
    /// The name that results carry.
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

/// A value, and what it was held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleCheck {
    /// Of which rule.
    pub rule: Rule,
    /// The worst of the session.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// Which side of the limit is good.
    pub kind: LimitKind,
    /// Whether the limit was kept; a value that is not a number keeps none.
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
