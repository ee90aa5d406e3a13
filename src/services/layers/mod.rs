//! The layers that every request passes before tonic handles it.

mod calls;
mod deadline;
mod intake;

pub use calls::{CallLayer, REQUEST_ID};
pub use deadline::{Deadline, DeadlineLayer};
pub use intake::{ByteLease, IntakeLayer, MessageLease, MessageLimits};
