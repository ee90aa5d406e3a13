//! Logs and metrics. Nothing here, label or field, comes from a caller.

mod causes;
mod logs;
mod metrics;

pub use causes::causes;
pub use logs::{LogError, LogFormat, LogSettings, init as init_logs};
pub use metrics::{
    CallGuard, Latency, Method, Metrics, ModelLabels, Outcome, Stage, latency_histogram,
};
