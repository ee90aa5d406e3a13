//! Logs and metrics. Nothing here, label or field, comes from a caller.

mod causes;
mod labels;
mod logs;
mod metrics;
mod times;

pub use causes::causes;
pub use labels::{Method, Outcome, Stage};
pub use logs::{LogError, init as init_logs};
pub use metrics::{CallGuard, Latency, Metrics, ModelLabels, latency_histogram};
pub use times::CallTimes;
