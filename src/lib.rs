//! Menshen verifies faces: does the live photograph match the portrait of the identity document,
//! and does it show a live person?
//!
//! # The map
//!
//! Folders are layers. A file imports only from its own folder or from folders further down this
//! list; `tests/it/layers.rs` checks it.
//!
//! | folder | what it holds |
//! |---|---|
//! | [`cli`] | commands; the only place that prints |
//! | [`load`] | the load generator: a client that sends calls at planned times |
//! | [`app`], [`shutdown`] | builds every layer bottom-up, and takes them down in reverse |
//! | [`config`] | settings of all layers, overlaid and checked together |
//! | [`services`] | the gRPC edge: convert, admit, call the pipeline, convert back |
//! | [`pipeline`] | what a request does, one short function per call |
//! | [`scheduler`] | who runs next: tickets, lanes, batches |
//! | [`catalog`] | which model versions are live |
//! | [`device`] | devices, one thread each: opens them, runs batches, recovers a lost one |
//! | [`model`] | manifests and weights: what is on disk |
//! | [`liveness`], [`face`], [`image`] | pure rules, nouns and pixels: no I/O, no clock, no task |
//! | [`trust`] | secrets, keys, session tokens, the store of used sessions |
//! | [`telemetry`] | logs and metrics |
//! | [`setting`], [`proto`] | how settings are checked and written; generated types |
//! | [`engine`] (crate) | how any network runs: ONNX → graph → passes → executor |
//! | [`menshen_evaluation`] (crate) | error rates, bounds and plots of biometrics |
//! | [`menshen_puppet`] (crate) | renders people before a camera, for load and for tests |
//!
//! The crates in `src/` (`engine/`, `evaluation/` and `puppet/`) do not know the server, and an
//! edit above them does not compile them again. Settings live with the layer they set: a serde
//! struct with defaults and a range check, parsed into the types of that layer.
//!
//! # One request
//!
//! ```text
//! bytes → layers → convert → Ticket → decode → rows → batch → device
//!       → rows → align → … → verdict → convert → bytes
//! ```
//!
//! A session does the same once for each frame, between a sealed token and a result:
//!
//! ```text
//! Start → token → Ticket → portrait → (frame → admit → measure → observe → judge → events)*
//!       → verdict → stored → result
//! ```
//!
//! Threads: tokio workers for I/O, one CPU pool ([`scheduler::CpuPool`]) for decoding and aligning,
//! one thread per device, which on the CPU runs the networks with a team of threads
//! ([`engine::cpu::ThreadTeam`]) and on a GPU is watched by another. One scheduler task feeds all
//! devices: it reserves a slot of a device, then forms a batch from the rows of a lane
//! that is placed on the device. A GPU starts the next launched batch before it finishes the oldest
//! one.
//!
//! # What always holds
//!
//! - **A graph describes one item of a batch.** The importer removes the batch axis, and running
//!   adds it in front. The answer of a row therefore depends on the row alone: not on its
//!   neighbours, its position or the bucket.
//! - **A model is live** when its hash and licence are right and its golden holds on every device
//!   that will run it. Until all models are live, health says NOT_SERVING.
//! - **A lost device** goes out of service before it answers its batches with the loss. It returns
//!   only after it is reopened and its models have loaded again with the same hashes and goldens. A
//!   device that never answers is not used again, and nothing waits for it.
//! - **A model without a device in service** sets health to NOT_SERVING. Requests that need the
//!   model are refused at once as UNAVAILABLE, and no customer fails for it.
//! - **A model runs where it is placed**: on those devices and no others.
//! - **Admit once.** A row needs the [`scheduler::Ticket`] of its request. After admission a
//!   request fails for time or a fault, never for load. The exception is a session, which is long:
//!   it also ends if the server cannot keep up with its frames, or if the budget of arriving bytes
//!   is used up. A waiting row whose caller has left is dropped and never launched.
//! - **Fail closed.** No calibration entry, no usable picture, no liveness: no PASS. There is no
//!   silent fallback from one device to another.
//! - **A liveness session can be run only once**, on one of all replicas that share a store, for
//!   the shop, device, transaction and portrait it was created for. The matched face is one of the
//!   judged frames. The result is stored before it is sent.
//! - **A badly performed gesture is an answer**, a fault of the server is a status: a server that
//!   skipped too many frames does not ask the customer to try again.
//! - **A poor photograph is an answer**, a malformed request is a status. Only
//!   `services/status.rs` names gRPC codes. The code, the outcome in the metrics and the level in
//!   the log all follow from [`pipeline::Error::kind`].
//! - **A call has an id**, which the server draws. The id is in the trailers of the answer and in
//!   the span of every log line of the call. Each call ends with exactly one log line, unless
//!   sampling leaves that line out. The span has a fixed list of fields, and none holds what a
//!   caller sent.
//! - **Pixels and embeddings** live in [`trust::Secret`]: never printed, wiped when dropped.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | call | one request, or one stream of requests |
//! | ticket | the right to use the server: granted once for each call, given back on drop |
//! | row | one input of one network |
//! | lane | the queue of one live model version |
//! | batch | rows of one lane that run together |
//! | bucket | a batch size that the device is warmed for; a batch is padded up to it |
//! | slot | a place for one batch on a device, reserved before the batch is formed |
//! | measured frame | run through the detector, and through the mesh and iris networks if needed |
//! | judged frame | also run through the embedder and the networks of passive liveness |
//! | thinned frame | left out: the stream was too fast, or the server was behind |
//! | PAD, passive liveness | presentation attack detection, by networks, on one picture |
//! | claims; to claim | the sealed content of a session token; to record that a session is used |
//! | store | the shop, in fields of the API; the store of used sessions is the *replay store* |
//!
//! # Where to look
//!
//! | for | read |
//! |---|---|
//! | the main job | [`pipeline::Pipeline::verify`] |
//! | a liveness session, and its rules | [`pipeline::RunningSession`], [`liveness::Session`] |
//! | the decision, and its threshold | [`face::verify_decision`], [`face::calibration`] |
//! | batching | `scheduler/core.rs` |
//! | the networks | [`engine`] |
//! | error rates of matching and of liveness | [`menshen_evaluation`] |
//! | throughput and latency of a server | [`load::run`] |
//!
//! `README.md` is one page for all users. Folders with readers of their own have a README of their
//! own: `proto/`, `models/`, `deploy/`, `benches/`, `tests/cuda/`, `src/engine/`, `src/liveness/`
//! and `src/evaluation/`.

pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod device;
pub mod face;
pub mod image;
pub mod liveness;
pub mod load;
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
