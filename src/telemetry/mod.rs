//! Logs and metrics. No label and no field holds what a caller sent.

mod call;
mod causes;
mod labels;
mod logs;
mod metrics;
mod times;

pub use call::{Call, CallId, Calls, Ending, Severity};
pub use causes::causes;
pub use labels::{Method, Outcome, Stage};
pub use logs::{LogError, LogFormat, LogSettings, init as init_logs, subscriber};
pub use metrics::{LatencyFamily, Metrics, ModelLabels, latency_histogram};
pub use times::CallTimes;
