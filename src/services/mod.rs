//! The gRPC edge: converts requests, admits them, calls the pipeline and converts the answers.
//!
//! ```text
//! layers: call, deadline, message limits → convert → gateway: ticket → pipeline → convert
//! ```
//!
//! [`FaceServer`] answers one message with one message. [`LivenessServer`] also answers a stream
//! with a stream: it receives frames while earlier ones are measured, skips the oldest frames when
//! it is behind, and waits only a limited time for a client that does not read its events.

mod convert;
mod events;
mod face;
mod gateway;
mod http;
mod layers;
mod liveness;
mod settings;
mod status;

#[cfg(fuzzing)]
pub use convert::read_as_every_request;
pub use face::FaceServer;
pub use gateway::{Gateway, PipelineCell};
pub use http::{Probes, ServingState, router as http_router};
pub use layers::{CallLayer, DeadlineLayer, IntakeLayer, MessageLimits, REQUEST_ID};
pub use liveness::LivenessServer;
pub use settings::{SESSION_ENVELOPE_BYTES_MAX, ServerSettings};
