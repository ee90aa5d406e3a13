//! The result of a session.

use crate::face::calibration::CalibrationEntry;
use crate::liveness::{Action, Assurance, STEPS, SessionVerdict};
use crate::pipeline::report::Similarity;
use crate::trust::SessionClaims;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// All frames that the server received.
    pub received: usize,
    /// Frames run through the detector, and through the mesh and iris networks if needed.
    pub measured: usize,
    /// Frames skipped because the server was behind.
    pub skipped: usize,
    /// Frames also run through the embedder and the PAD networks.
    pub judged: usize,
}

/// The result of a session.
#[derive(Debug)]
pub struct SessionReport {
    /// Decision, reasons, and every checked value with its limit.
    pub verdict: SessionVerdict,
    /// The claims of the session.
    pub claims: SessionClaims,
    /// The requested actions, in order.
    pub actions: [Action; STEPS],
    /// Whether the frames came as a stream or as a recording.
    pub assurance: Assurance,
    /// Number of completed actions.
    pub steps_done: usize,
    /// Similarity of the portrait and the matched frame.
    pub similarity: Option<Similarity>,
    /// False-match rate of the decision.
    pub policy_fmr: f64,
    /// Least cosine that passes at that rate. `None` without a calibration entry.
    pub similarity_min: Option<f64>,
    /// Sequence number of the matched frame.
    pub matched: Option<u32>,
    /// Counts of the frames.
    pub frames: FrameCounts,
    /// The calibration entry of the decision.
    pub calibration: Option<CalibrationEntry>,
    /// Time of the decision, in milliseconds of Unix time.
    pub decided_unix_ms: u64,
}
