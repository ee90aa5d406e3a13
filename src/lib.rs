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
//! | [`app`], [`shutdown`], [`config`] | settings of all layers, overlaid and checked together; builds every layer bottom-up, takes them down in reverse |
//! | [`services`] | the gRPC edge: convert, admit, call the pipeline, convert back |
//! | [`pipeline`] | what a request does, one short function per call |
//! | [`scheduler`] | who runs next: tickets, lanes, batches |
//! | [`catalog`] | which model versions are live |
//! | [`device`] | a group of devices, one thread each: opens it, runs batches on it, brings it back |
//! | [`model`] | manifests and weights: what is on disk |
//! | [`liveness`], [`face`], [`image`] | pure rules, nouns and pixels: no I/O, no clock, no task |
//! | [`trust`] | secrets, keys, session tokens, the store of used sessions |
//! | [`telemetry`], [`setting`], [`proto`] | logs and metrics; how settings are checked and written; generated types |
//! | [`engine`] (crate `menshen-engine`) | how any network runs: ONNX → graph → passes → executor |
//! | [`menshen_evaluation`] (folder `evaluation/`) | error rates, bounds and plots of biometrics |
//!
//! The crates in `src/` know nothing of the server. An edit above them does not compile them again.
//! Settings live with the layer they set: a serde struct with its defaults and its range check,
//! parsed into that layer's own types.
//!
//! # One request
//!
//! ```text
//! bytes → layers → convert → Ticket → decode → rows → batch → device → rows → align → … → verdict → convert → bytes
//! ```
//!
//! A session is the same once for each frame, between a sealed token and a result:
//!
//! ```text
//! Start → token → Ticket → portrait → (frame → admit → measure → observe → judge → events)* → verdict → kept → result
//! ```
//!
//! Threads: tokio workers for I/O, one CPU pool ([`scheduler::CpuPool`]) for decoding and aligning,
//! one thread per device, which on the CPU runs the networks with a team of threads
//! ([`engine::cpu::ThreadTeam`]) and on a GPU is watched by another. One scheduler task feeds all
//! devices of the group: a slot of a device is reserved, then a batch is formed of the lanes placed
//! there. A device starts what has been launched before it finishes the oldest batch, as far as its
//! machine can.
//!
//! # What always holds
//!
//! - **A graph describes one row.** The importer takes the batch axis out, running puts it in front,
//!   so a row's answer depends on the row alone: not on neighbours, place or bucket.
//! - **A model is live** when its hash and licence are right and its golden holds on the device that
//!   will run it. Until all are, health says NOT_SERVING.
//! - **A device that is lost** answers what it holds with the loss and is out of service, before
//!   anybody hears of it, until it is reopened and its models have loaded again with the same hashes
//!   and goldens. While a live model has no device in service, health says NOT_SERVING and requests
//!   that need it are refused at once, as UNAVAILABLE; no customer fails for it. A device that
//!   never answers is gone, and nobody waits for it.
//! - **A model runs where it is placed**: on those devices and no others.
//! - **Admit once.** A row needs its request's [`scheduler::Ticket`]; after admission a request fails
//!   for time or a fault, never for load; a session, which is long, may also end because the server
//!   cannot keep up with its frames. Whatever nobody waits for any more is dropped before it is
//!   launched.
//! - **Fail closed.** No calibration row, no usable picture, no liveness: no PASS. There is no silent
//!   fallback from one device to another.
//! - **A liveness session serves once**, on one of all replicas that share a store, for the shop,
//!   device, transaction and portrait it was created for. The matched face is one of the judged
//!   frames. The result is kept before it is told.
//! - **A poor performance is an answer**, trouble of the service is a status: a server that had to
//!   leave frames out asks no customer to try harder.
//! - **A poor photograph is an answer**, a malformed request is a status; `services/status.rs` is the
//!   only place that names gRPC codes. Code, outcome in the metrics and level in the log all follow
//!   from [`pipeline::Error::kind`].
//! - **A call has an id**, drawn by the server. It is in the trailers of the answer and in the span
//!   of every line that is logged for the call, which ends with exactly one line. The span has a
//!   fixed list of fields, and nothing a caller sent is among them.
//! - **Pixels and embeddings** live in [`trust::Secret`]: never printed, wiped when dropped.
//!
//! # Where to look
//!
//! [`pipeline::Pipeline::verify`] is the main job, [`pipeline::LiveSession`] a liveness session.
//! [`face::verdict`] is the decision, [`face::calibration`] the threshold, [`liveness::Session`] the
//! rules of a session, [`menshen_evaluation`] how well attacks are told from people,
//! `scheduler/core.rs` the batching, [`engine`] the networks.

pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod device;
pub mod face;
pub mod image;
pub mod liveness;
pub mod model;
pub mod pipeline;
pub mod proto;
pub mod scheduler;
pub mod services;
pub mod setting;
pub mod shutdown;
pub mod telemetry;
pub mod trust;

pub use menshen_engine as engine;
