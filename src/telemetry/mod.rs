//! Logs and metrics. Nothing here, label or field, comes from a caller.

mod logs;
mod metrics;

pub use logs::{LogError, init as init_logs};
pub use metrics::{Latency, Method, Metrics, Outcome, Stage, latency_histogram};
