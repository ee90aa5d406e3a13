//! Liveness: is the person in front of the camera real and present?
//!
//! PAD (presentation attack detection) reads the score of a network from one photograph. The active
//! part checks that the person performs prompted actions in one unbroken stream.
//!
//! [`Session`] is the active part, without I/O. [`Session::admit`] accepts a frame by its metadata,
//! [`Session::observe`] evaluates its measures, [`Session::add_judgement`] takes the results of the
//! embedder and the PAD networks, [`Session::outcome`] collects the result, and [`decide_session`]
//! decides.
//!
//! | file | what it holds |
//! |---|---|
//! | `session`, `action` | the steps of a session, and the actions it asks for |
//! | `admission` | checks before a frame is decoded: size, order, clock, rate |
//! | `measures` | what the networks measured on a frame: the input of the rules |
//! | `track`, `continuity` | one face, plausible motion, one person, no repeated picture |
//! | `guidance` | what the customer should change in the picture |
//! | `pose`, `planarity`, `reading`, `baseline` | turn, nod and depth, and the neutral levels |
//! | `gesture` | whether an action was performed |
//! | `judged_frames` | which frames the embedder and the PAD networks judge |
//! | `outcome`, `rule`, `session_decision` | the end, the checked values, the verdict |
//! | `limits` | every limit of a session, with its source |
//! | `pad` | the crop and the score of a PAD network |

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
