//! Is it a live person? Passive rules: what the network sees, and what its numbers mean. Active
//! rules: does the person do what is asked, in one unbroken stream?
//!
//! [`Session`] is the whole of the active part, one value in and one out: [`Session::admit`] takes
//! a frame by what is known before decoding, [`Session::observe`] what was measured about it,
//! [`Session::outcome`] what it all shows, and [`decide_session`] the decision.

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
