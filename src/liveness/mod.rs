//! Liveness: is the person in front of the camera real and present?
//!
//! PAD (presentation attack detection) reads the score of a network from one photograph. The active
//! part checks that the person performs prompted actions in one unbroken stream.
//!
//! [`Session`] is the active part, without I/O. [`Session::admit`] accepts a frame by its metadata,
//! [`Session::observe`] evaluates its measures, [`Session::outcome`] collects the result, and
//! [`decide_session`] decides.

mod action;
mod admission;
mod baseline;
mod continuity;
mod gesture;
mod guidance;
mod judged_frames;
mod limits;
mod measures;
mod outcome;
mod pad;
mod percentile;
mod planarity;
mod pose;
mod reading;
mod rule;
mod session;
mod session_decision;
#[cfg(any(test, fuzzing))]
pub mod synthetic;
#[cfg(test)]
mod tests;
mod track;

pub use action::{Action, STEPS, draw_actions};
pub use admission::{Admission, Assurance, FrameMeta, FrameRefusal};
pub use guidance::Guidance;
pub use limits::SessionLimits;
pub use measures::{Detail, FaceMeasures, FrameJudgement, FrameMeasures, MeshMeasures};
pub use outcome::SessionEnd;
pub use pad::{Fusion, PadError, PadOutputKind, PadScore, pad_crop_rect};
pub use rule::RuleCheck;
pub use session::{Event, FrameResult, Prompt, Session};
pub use session_decision::{SessionVerdict, coarsen, decide_session};
