//! The load generator: sends calls to a server at the times of a plan and records how they end.
//!
//! **Open loop.** Calls are due at times that are known before the run. No answer delays a call,
//! and latency counts from the *intended* time of a call: a server that stops for a second shows a
//! second, in every call that was due meanwhile. Generators that wait for an answer before they
//! send the next call leave those calls out (*coordinated omission*). The service time, from
//! sending to the answer, is kept beside the latency.
//!
//! **The generator judges itself.** The *lag* is the time from the intended time of a call to its
//! sending. It is part of the latency of a unary call, and a run whose lag is too large is invalid.
//!
//! ```text
//! schedule → pacer (a thread) → worker (a thread, connections) → server
//!                                    ↓
//!                   record → every second: window → report, histogram log, plot
//! ```
//!
//! The folder knows the API only by its messages, as every client does.

mod arrivals;
mod calls;
mod conditions;
mod error;
mod film;
mod grpc;
mod hdr;
mod pacer;
mod pictures;
mod plan;
mod plot;
mod priority;
mod recorder;
mod report;
mod requests;
mod run;
mod saturation;
mod scrape;
mod session;
mod threads;
mod worker;

pub use arrivals::{Schedule, Segment, Spacing};
pub use calls::{CallKind, Mix, Outcome};
pub use conditions::{Condition, Conditions, Measured, parse_duration};
pub use error::LoadError;
pub use film::Film;
pub use hdr::{write_hgrm, write_hlog};
pub use pictures::Pictures;
pub use plan::{Plan, Traffic, read_trace};
pub use recorder::{FrameRecord, KindRecord, Record, quantile_ms};
pub use report::{QUANTILES, REPORT_SCHEMA, as_json, draw_plot, sorted_outcomes};
pub use requests::Stores;
pub use run::{ClientCpu, Flow, Progress, RunResult, Window, run};
pub use saturation::{Saturation, Search, Trial, TrialEnd, find_saturation};
pub use scrape::{ServerMean, ServerView};
