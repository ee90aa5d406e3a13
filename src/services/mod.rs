//! The edge: converts, admits, calls the pipeline, converts back.
//!
//! ```text
//! layers: call, deadline, limits on messages → convert: fields → door: ticket → pipeline → convert
//! ```
//!
//! [`FaceServer`] answers one message with one; [`LivenessServer`] also a stream with a stream: it
//! reads frames while others are judged, leaves out the oldest when it is behind, and waits only
//! so long for a client that does not read its events.

mod convert;
mod door;
mod events;
mod face;
mod http;
mod layers;
mod liveness;
mod settings;
mod status;

#[cfg(fuzzing)]
pub use convert::read_as_every_request;
pub use door::{Door, Readiness};
pub use face::FaceServer;
pub use http::{Probes, ServingState, router as http_router};
pub use layers::{CallLayer, DeadlineLayer, IntakeLayer, MessageLimits, REQUEST_ID};
pub use liveness::LivenessServer;
pub use settings::{SESSION_ENVELOPE_BYTES_MAX, ServerSettings};
