//! One call, from its headers to its end: id, span, and its final log line.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tracing::{Span, field};
use uuid::Uuid;

use super::labels::{Method, Outcome, Stage};
use super::metrics::Metrics;
use super::times::CallTimes;

/// Identifies one call: the `request_id` of log lines and the trailer `menshen-request-id`. The
/// server draws the id, so that no caller can choose what the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallId(Uuid);

impl CallId {
    fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns true if this id is in the sampled `fraction` (0..=1) of all ids.
    fn is_sampled(self, fraction: f64) -> bool {
        // The top two bits of the lower half are the UUID variant. The 53 bits below are random.
        let (_, random) = self.0.as_u64_pair();
        (((random << 2) >> 11) as f64) < fraction * (1_u64 << 53) as f64
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The level of the final log line of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The server did its part, whatever the answer.
    Info,
    /// The server refused the call or was late.
    Warn,
    /// The server has a fault.
    Error,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ending {
    /// The outcome, for metrics and log.
    pub outcome: Outcome,
    /// Name of the gRPC code, such as `INVALID_ARGUMENT`.
    pub code: &'static str,
    /// The level of the log line.
    pub severity: Severity,
    /// Why the server could not answer. Contains nothing that a caller sent.
    pub causes: Option<String>,
}

impl Ending {
    /// Returns true if sampling may leave out the log line: answers and cancelled calls are common.
    fn is_routine(&self) -> bool {
        match self.outcome {
            Outcome::Answered
            | Outcome::Pass
            | Outcome::Fail
            | Outcome::Review
            | Outcome::Retry
            | Outcome::Cancelled => true,
            Outcome::Invalid | Outcome::Overloaded | Outcome::Expired | Outcome::Failed => false,
        }
    }
}

/// Opens calls. Clones share the metrics.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The metrics that count and time every call.
    pub metrics: Metrics,
    /// The fraction (0..=1) of answered and cancelled calls that get a log line.
    pub sampled: f64,
}

impl Calls {
    /// Opens a call with a new id and a new span.
    pub fn open(&self, method: Method) -> Arc<Call> {
        self.metrics.call_opened();
        let id = CallId::random();
        Arc::new(Call {
            id,
            method,
            span: span(method, id),
            calls: self.clone(),
            opened: Instant::now(),
            begun: OnceLock::new(),
            times: OnceLock::new(),
            has_ended: AtomicBool::new(false),
        })
    }
}

/// Makes the span of a call. The span has these fields and no others. Its level is ERROR, so that a
/// filter that passes errors also passes the span, and every error keeps its id.
fn span(method: Method, id: CallId) -> Span {
    tracing::error_span!(
        parent: None,
        "call",
        method = method.name(),
        request_id = %id,
        outcome = field::Empty,
        total_ms = field::Empty,
        decode_ms = field::Empty,
        queue_ms = field::Empty,
        detect_ms = field::Empty,
        align_ms = field::Empty,
        embed_ms = field::Empty,
        liveness_ms = field::Empty,
        mesh_ms = field::Empty,
        eyes_ms = field::Empty,
    )
}

/// Returns the field of the span for a stage.
fn field_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Decode => "decode_ms",
        Stage::Detect => "detect_ms",
        Stage::Align => "align_ms",
        Stage::Embed => "embed_ms",
        Stage::Liveness => "liveness_ms",
        Stage::Mesh => "mesh_ms",
        Stage::Eyes => "eyes_ms",
    }
}

/// One call. Only the first [`Call::end`] counts and logs it.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    method: Method,
    span: Span,
    calls: Calls,
    opened: Instant,
    begun: OnceLock<Instant>,
    times: OnceLock<Arc<CallTimes>>,
    has_ended: AtomicBool,
}

impl Call {
    /// Returns the id of the call.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Returns the span that every log line of the call must be in.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Starts the time of the call, when its first message is complete. Returns the start; later
    /// calls of this method return the same start.
    pub fn begin(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// Sets the stage times that are logged when the call ends.
    pub fn attach_times(&self, times: &Arc<CallTimes>) {
        // A call has one ticket, so there is only one set of times.
        self.times.get_or_init(|| Arc::clone(times));
    }

    /// Counts and logs the call, unless the call has ended already.
    pub fn end(&self, ending: &Ending) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let total = self.begun.get().unwrap_or(&self.opened).elapsed();
        self.calls.metrics.call_ended(self.method, ending.outcome, total);
        self.span.record("outcome", ending.outcome.name());
        // Whole microseconds, as for the stages.
        self.span.record("total_ms", total.as_micros() as f64 / 1e3);
        if let Some(times) = self.times.get() {
            self.record_times(times);
        }
        if !ending.is_routine() || self.id.is_sampled(self.calls.sampled) {
            self.span.in_scope(|| log(ending));
        }
    }

    fn record_times(&self, times: &CallTimes) {
        if let Some(ms) = times.queue_ms() {
            self.span.record("queue_ms", ms);
        }
        for stage in Stage::ALL {
            if let Some(ms) = times.stage_ms(stage) {
                self.span.record(field_of(stage), ms);
            }
        }
    }
}

/// Writes the final log line. The span around it has everything else.
fn log(ending: &Ending) {
    let Ending { code, severity, causes, outcome: _ } = ending;
    let causes = causes.as_deref();
    match severity {
        Severity::Info => tracing::info!(code, causes, "call ended"),
        Severity::Warn => tracing::warn!(code, causes, "call ended"),
        Severity::Error => tracing::error!(code, causes, "call ended"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::{LogFormat, LogSettings, subscriber};

    /// The written log lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const ANSWERED: Ending =
        Ending { outcome: Outcome::Answered, code: "OK", severity: Severity::Info, causes: None };

    fn calls(sampled: f64) -> (Calls, Registry) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        (Calls { metrics, sampled }, registry)
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    /// Returns the lines that `work` logs with `filter`, parsed as JSON.
    fn logged(filter: &str, work: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Lines::default();
        let writer = {
            let lines = lines.clone();
            move || lines.clone()
        };
        let settings = LogSettings {
            format: LogFormat::Json,
            filter: filter.to_owned(),
            ..Default::default()
        };
        tracing::subscriber::with_default(subscriber(&settings, writer).unwrap(), work);
        let lines = lines.0.lock();
        let text = std::str::from_utf8(&lines).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_gives_one_line_with_its_id_its_end_and_the_stages_that_happened() {
        let (calls, _registry) = calls(1.0);
        let id = std::cell::Cell::new(None);
        let lines = logged("info", || {
            let call = calls.open(Method::Detect);
            id.set(Some(call.id()));
            let times = Arc::new(CallTimes::default());
            call.attach_times(&times);
            times.add_stage(Stage::Decode, Duration::from_micros(1500));
            call.end(&ANSWERED);
            call.end(&Ending { outcome: Outcome::Cancelled, ..ANSWERED });
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["code"], "OK");
        let want = serde_json::json!({
            "name": "call",
            "method": "detect",
            "request_id": id.get().unwrap().to_string(),
            "outcome": "answered",
            "total_ms": 0.0,
            "decode_ms": 1.5,
        });
        assert_eq!(line["span"], want);
    }

    #[test]
    fn answers_are_sampled_by_their_ids_and_whatever_else_ends_a_call_is_always_logged() {
        let (calls, _registry) = calls(0.0);
        for outcome in [Outcome::Answered, Outcome::Pass, Outcome::Cancelled] {
            let end = || calls.open(Method::Verify).end(&Ending { outcome, ..ANSWERED });
            assert_eq!(logged("info", end).len(), 0, "{outcome:?}");
        }
        for (outcome, severity, level) in [
            (Outcome::Invalid, Severity::Info, "INFO"),
            (Outcome::Overloaded, Severity::Warn, "WARN"),
            (Outcome::Expired, Severity::Warn, "WARN"),
            (Outcome::Failed, Severity::Error, "ERROR"),
        ] {
            let ending = Ending { outcome, severity, ..ANSWERED };
            let lines = logged("info", || calls.open(Method::Verify).end(&ending));
            assert_eq!(lines.len(), 1, "{outcome:?}");
            assert_eq!(lines[0]["level"], level);
        }
    }

    #[test]
    fn a_fraction_of_the_ids_is_sampled_and_always_the_same_ones() {
        let id = |random: u64| CallId(Uuid::from_u64_pair(0, random));
        let highest = id((0b10 << 62) | (u64::MAX >> 2));
        let lowest = id(0b10 << 62);
        assert!(highest.is_sampled(1.0) && !highest.is_sampled(0.999_999));
        assert!(lowest.is_sampled(0.000_001) && !lowest.is_sampled(0.0));
        let ids: Vec<CallId> = (0..4000).map(|_| CallId::random()).collect();
        let sampled = |fraction| ids.iter().filter(|id| id.is_sampled(fraction)).count();
        // Five standard deviations of 4000 draws at a probability of 1/4 are 137.
        assert!((863..=1137).contains(&sampled(0.25)), "{}", sampled(0.25));
        assert_eq!(sampled(0.25), sampled(0.25));
    }

    #[test]
    fn errors_keep_their_ids_when_the_filter_lets_only_errors_through() {
        let (calls, _registry) = calls(1.0);
        let lines = logged("error", || {
            let call = calls.open(Method::Run);
            call.span().in_scope(|| tracing::error!("a fault on the way"));
            call.end(&ANSWERED);
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["span"]["method"], "run");
        assert!(lines[0]["span"]["request_id"].is_string());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_flight_is_counted_until_it_ends_and_timed_from_its_message() {
        let (calls, registry) = calls(1.0);
        let call = calls.open(Method::Embed);
        assert!(text(&registry).contains("menshen_requests_in_flight 1\n"));
        tokio::time::advance(Duration::from_secs(7)).await;
        call.begin();
        tokio::time::advance(Duration::from_secs(2)).await;
        call.end(&ANSWERED);
        call.end(&ANSWERED);
        let text = text(&registry);
        for line in [
            "menshen_requests_in_flight 0\n",
            "menshen_requests_total{method=\"embed\",outcome=\"answered\"} 1\n",
            "menshen_request_seconds_sum{method=\"embed\"} 2.0\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
