//! The edge: converts, admits, calls the pipeline, converts back.

mod convert;
mod face;
mod http;
mod layers;
mod status;

pub use face::{FaceServer, Readiness};
pub use http::{Probes, router as http_router};
pub use layers::{DeadlineLayer, IntakeLayer, MessageLimits};
