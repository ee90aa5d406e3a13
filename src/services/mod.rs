//! The edge: converts, admits, calls the pipeline, converts back.

mod convert;
mod door;
mod events;
mod face;
mod http;
mod layers;
mod liveness;
mod status;

pub use door::{Door, Readiness};
pub use face::FaceServer;
pub use http::{Probes, router as http_router};
pub use layers::{DeadlineLayer, IntakeLayer, MessageLimits};
pub use liveness::LivenessServer;
