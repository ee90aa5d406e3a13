//! Menshen verifies faces: does the live photograph match the portrait of the identity document,
//! and is it of a live person?
//!
//! # The map
//!
//! Folders are layers. A file imports only from its own folder or from folders further down this
//! list; `tests/it/layers.rs` checks it.
//!
//! | folder | what it holds |
//! |---|---|
//! | [`cli`] | commands; the only place that prints |
//! | [`app`], [`shutdown`] | builds every layer bottom-up from the configuration, and takes them down in reverse |
//! | [`services`] | the gRPC edge: convert, admit, call the pipeline, convert back |
//! | [`pipeline`] | what a request does, one short function per call |
//! | [`scheduler`] | who runs next: tickets, lanes, batches |
//! | [`catalog`] | which model versions are live |
//! | [`device`] | one thread per device: opens it and runs batches on it |
//! | [`model`] | manifests and weights: what is on disk |
//! | [`engine`] | how any network runs: ONNX → graph → passes → executor |
//! | [`liveness`], [`face`], [`image`] | pure rules, nouns and pixels: no I/O, no clock, no task |
//! | [`trust`] | secrets |
//! | [`telemetry`], [`config`], [`proto`] | logs and metrics; validated settings; generated types |
//!
//! # One request
//!
//! ```text
//! bytes → layers → convert → Ticket → decode → rows → batch → device → rows → align → … → verdict → convert → bytes
//! ```

pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod device;
pub mod engine;
pub mod face;
pub mod image;
pub mod liveness;
pub mod model;
pub mod pipeline;
pub mod proto;
pub mod scheduler;
pub mod services;
pub mod shutdown;
pub mod telemetry;
pub mod trust;
