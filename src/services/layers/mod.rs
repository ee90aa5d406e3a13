//! What every request passes through before tonic sees it.

mod calls;
mod deadline;
mod intake;

pub use calls::CallLayer;
pub use deadline::{Deadline, DeadlineLayer};
pub use intake::{Held, IntakeLayer, MessageLimits, Room};
