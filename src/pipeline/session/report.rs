//! What a session comes to.

use crate::face::calibration::CalibrationEntry;
use crate::liveness::{Action, Assurance, LivenessVerdict, STEPS};
use crate::pipeline::Similarity;
use crate::trust::SessionClaims;

/// Frames of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Taken in.
    pub received: usize,
    /// Measured.
    pub looked_at: usize,
    /// Left out because the server was behind.
    pub late: usize,
    /// Shown to the embedder and the liveness networks.
    pub judged: usize,
}

/// The answer of a session.
#[derive(Debug)]
pub struct SessionReport {
    /// Decision, reasons, and every value with its limit.
    pub verdict: LivenessVerdict,
    /// What the session was bound to.
    pub claims: SessionClaims,
    /// What was asked for.
    pub actions: [Action; STEPS],
    /// How its frames came.
    pub assurance: Assurance,
    /// Actions that were seen.
    pub steps_done: usize,
    /// The portrait against the matched frame.
    pub similarity: Option<Similarity>,
    /// False-match rate decided at.
    pub policy_fmr: f64,
    /// Cosine that passes at it; unset without a calibration entry.
    pub similarity_min: Option<f64>,
    /// Number of the matched frame.
    pub matched: Option<u32>,
    /// How many frames came to what.
    pub frames: FrameCounts,
    /// The entry the decision stands on.
    pub calibration: Option<CalibrationEntry>,
    /// When it was decided, in milliseconds of Unix time.
    pub decided_unix_ms: u64,
}
