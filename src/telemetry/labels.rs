//! The closed sets of words that label metrics and log lines.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// The methods of `FaceService` and `LivenessService`.
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
    /// A method that this version of the API does not have.
    Unknown,
}

impl Method {
    /// Returns the name of the method in metrics and logs.
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
    /// Answered without a decision, as `Embed` is.
    Answered,
    /// Decision PASS.
    Pass,
    /// Decision FAIL.
    Fail,
    /// Decision REVIEW.
    Review,
    /// Decision RETRY.
    Retry,
    /// The request was malformed, or not possible now.
    Invalid,
    /// The call was refused or ended for load.
    Overloaded,
    /// The deadline passed.
    Expired,
    /// The caller left before the answer.
    Cancelled,
    /// The server was not ready or had a fault.
    Failed,
}

impl Outcome {
    /// Returns the name of the outcome in metrics and logs.
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

/// A stage of the work on one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Decoding the file, and scaling for the detector.
    Decode,
    /// The batch of the detector.
    Detect,
    /// Alignment, crops and quality.
    Align,
    /// The batch of the embedder.
    Embed,
    /// The batch of one passive-liveness network.
    Liveness,
    /// The batch of the face mesh.
    Mesh,
    /// The batch of the iris network, for one eye.
    Eyes,
}

impl Stage {
    /// All stages, in the order of declaration.
    pub(super) const ALL: [Self; 7] = [
        Self::Decode,
        Self::Detect,
        Self::Align,
        Self::Embed,
        Self::Liveness,
        Self::Mesh,
        Self::Eyes,
    ];

    /// Returns the name of the stage in metrics.
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
