//! What every request passes through before tonic sees it.

mod deadline;
mod intake;

pub use deadline::{Deadline, DeadlineLayer};
pub use intake::{Held, IntakeLayer, MessageLimits, Room};
