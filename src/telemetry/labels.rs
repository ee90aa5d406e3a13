//! The closed sets of words that label metrics and lines of the log.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// The calls of `FaceService` and `LivenessService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `Verify`
    Verify,
    /// `Compare`
    Compare,
    /// `Embed`
    Embed,
    /// `Detect`
    Detect,
    /// `CheckLiveness`
    CheckLiveness,
    /// `CreateSession`
    CreateSession,
    /// `Run`
    Run,
    /// `Evaluate`
    Evaluate,
    /// `GetResult`
    GetResult,
    /// A call that this version of the API does not have.
    Unknown,
}

impl Method {
    /// The method as metrics and logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Compare => "compare",
            Self::Embed => "embed",
            Self::Detect => "detect",
            Self::CheckLiveness => "check_liveness",
            Self::CreateSession => "create_session",
            Self::Run => "run",
            Self::Evaluate => "evaluate",
            Self::GetResult => "get_result",
            Self::Unknown => "unknown",
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered without a decision (`Compare`, `Embed`, `Detect`).
    Answered,
    /// Decision PASS.
    Pass,
    /// Decision FAIL.
    Fail,
    /// Decision REVIEW.
    Review,
    /// Decision RETRY.
    Retry,
    /// The request was malformed, or not possible.
    Invalid,
    /// Refused or ended for load.
    Overloaded,
    /// The deadline passed.
    Expired,
    /// The caller left before the answer.
    Cancelled,
    /// Not ready, or a fault of the server.
    Failed,
}

impl Outcome {
    /// The outcome as metrics and logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Review => "review",
            Self::Retry => "retry",
            Self::Invalid => "invalid",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// Work on one picture of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Bytes to pixels, and the detector's canvas.
    Decode,
    /// The detector's batch.
    Detect,
    /// Alignment, crops and quality.
    Align,
    /// The embedder's batch.
    Embed,
    /// The batch of one liveness network.
    Liveness,
    /// The batch of the face mesh.
    Mesh,
    /// The batch of one eye.
    Eyes,
}

impl Stage {
    /// All stages, in the order in which they are declared.
    pub(super) const ALL: [Self; 7] = [
        Self::Decode,
        Self::Detect,
        Self::Align,
        Self::Embed,
        Self::Liveness,
        Self::Mesh,
        Self::Eyes,
    ];

    /// The stage as metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Detect => "detect",
            Self::Align => "align",
            Self::Embed => "embed",
            Self::Liveness => "liveness",
            Self::Mesh => "mesh",
            Self::Eyes => "eyes",
        }
    }
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}
