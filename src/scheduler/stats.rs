//! Metrics of the scheduler.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::lane::{CloseReason, DropReason};
use super::resource::Resource;
use crate::telemetry::{LatencyFamily, latency_histogram};

/// Upper bounds of the histogram of rows in a batch: the powers of 2, as most models' buckets are.
const ROWS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Counters, gauges and histograms of tickets and lanes. Clones share their values.
///
/// The label `lane` is the name of a live model, so its values are a closed set.
#[derive(Debug, Clone)]
pub struct SchedulerStats {
    tickets: Gauge,
    tickets_bytes: Gauge,
    tickets_refused: Family<RefusedLabels, Counter>,
    queue_rows: Family<LaneLabels, Gauge>,
    queue_wait: LatencyFamily<LaneLabels>,
    batches: Family<BatchLabels, Counter>,
    batch_rows: Family<LaneLabels, Histogram>,
    batch_padding_rows: Family<LaneLabels, Counter>,
    batch_run: LatencyFamily<LaneLabels>,
    rows_dropped: Family<DroppedLabels, Counter>,
    rows_failed: Family<LaneLabels, Counter>,
    network_panics: Family<LaneLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    what: Resource,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BatchLabels {
    lane: String,
    closed: CloseReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    lane: String,
    reason: DropReason,
}

impl Default for SchedulerStats {
    fn default() -> Self {
        Self {
            tickets: Gauge::default(),
            tickets_bytes: Gauge::default(),
            tickets_refused: Family::default(),
            queue_rows: Family::default(),
            queue_wait: Family::new_with_constructor(latency_histogram),
            batches: Family::default(),
            batch_rows: Family::new_with_constructor(rows),
            batch_padding_rows: Family::default(),
            batch_run: Family::new_with_constructor(latency_histogram),
            rows_dropped: Family::default(),
            rows_failed: Family::default(),
            network_panics: Family::default(),
        }
    }
}

fn rows() -> Histogram {
    Histogram::new(ROWS_BUCKETS)
}

impl SchedulerStats {
    /// Registers the metrics in `registry`, with the prefix `menshen_` in their names.
    pub fn register(registry: &mut Registry) -> Self {
        let stats = Self::default();
        let s = &stats;
        let r = registry.sub_registry_with_prefix("menshen");
        r.register("tickets", "Requests that hold a ticket", s.tickets.clone());
        r.register("tickets_bytes", "Bytes of requests with a ticket", s.tickets_bytes.clone());
        r.register("tickets_refused", "Requests refused a ticket", s.tickets_refused.clone());
        r.register("queue_rows", "Rows that wait for a batch", s.queue_rows.clone());
        r.register("queue_wait_seconds", "Time launched rows waited", s.queue_wait.clone());
        r.register("batches", "Batches by what closed them", s.batches.clone());
        r.register("batch_rows", "Rows of a batch, padding left out", s.batch_rows.clone());
        r.register("batch_padding_rows", "Rows run as padding", s.batch_padding_rows.clone());
        r.register("batch_run_seconds", "Time of a batch on the device", s.batch_run.clone());
        r.register("rows_dropped", "Rows dropped before launch", s.rows_dropped.clone());
        r.register("rows_failed", "Rows the device could not run", s.rows_failed.clone());
        r.register("network_panics", "Panics caught in a network", s.network_panics.clone());
        stats
    }

    pub(super) fn ticket_granted(&self, bytes: usize) {
        self.tickets.inc();
        self.tickets_bytes.inc_by(gauge_value(bytes));
    }

    pub(super) fn ticket_released(&self, bytes: usize) {
        self.tickets.dec();
        self.tickets_bytes.dec_by(gauge_value(bytes));
    }

    pub(super) fn ticket_refused(&self, what: Resource) {
        self.tickets_refused.get_or_create(&RefusedLabels { what }).inc();
    }

    /// Returns the metrics of one lane.
    pub(super) fn lane(&self, model: &str) -> LaneStats {
        LaneStats { stats: self.clone(), labels: LaneLabels { lane: model.to_owned() } }
    }
}

/// [`SchedulerStats`] with the label of one lane.
#[derive(Debug, Clone)]
pub(super) struct LaneStats {
    stats: SchedulerStats,
    labels: LaneLabels,
}

impl LaneStats {
    pub(super) fn set_waiting(&self, rows: usize) {
        self.stats.queue_rows.get_or_create(&self.labels).set(gauge_value(rows));
    }

    pub(super) fn row_dropped(&self, reason: DropReason) {
        let labels = DroppedLabels { lane: self.labels.lane.clone(), reason };
        self.stats.rows_dropped.get_or_create(&labels).inc();
    }

    pub(super) fn batch_launched(&self, rows: usize, bucket: usize, closed: CloseReason) {
        let labels = BatchLabels { lane: self.labels.lane.clone(), closed };
        self.stats.batches.get_or_create(&labels).inc();
        self.stats.batch_rows.get_or_create(&self.labels).observe(rows as f64);
        let padding = bucket.saturating_sub(rows) as u64;
        self.stats.batch_padding_rows.get_or_create(&self.labels).inc_by(padding);
    }

    pub(super) fn row_waited(&self, wait: Duration) {
        self.stats.queue_wait.get_or_create(&self.labels).observe(wait.as_secs_f64());
    }

    pub(super) fn batch_ran(&self, run: Duration, panics: usize) {
        self.stats.batch_run.get_or_create(&self.labels).observe(run.as_secs_f64());
        self.stats.network_panics.get_or_create(&self.labels).inc_by(panics as u64);
    }

    pub(super) fn row_failed(&self) {
        self.stats.rows_failed.get_or_create(&self.labels).inc();
    }
}

impl EncodeLabelValue for Resource {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
        };
        name.encode(encoder)
    }
}

impl EncodeLabelValue for CloseReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Full => "full",
            Self::Greedy => "greedy",
            Self::Delay => "delay",
            Self::Deadline => "deadline",
        };
        name.encode(encoder)
    }
}

impl EncodeLabelValue for DropReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::NoDevice => "no_device",
        };
        name.encode(encoder)
    }
}

/// Converts a count for a gauge, which is signed. No count of things in memory reaches the limit.
fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_are_exposed_under_their_names_with_closed_labels() {
        let mut registry = Registry::default();
        let stats = SchedulerStats::register(&mut registry);
        stats.ticket_granted(10);
        stats.ticket_refused(Resource::Bytes);
        let lane = stats.lane("yunet");
        lane.set_waiting(3);
        lane.batch_launched(3, 4, CloseReason::Greedy);
        lane.row_waited(Duration::from_millis(2));
        lane.batch_ran(Duration::from_millis(4), 1);
        lane.row_dropped(DropReason::Expired);
        lane.row_failed();

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "menshen_tickets 1\n",
            "menshen_tickets_bytes 10\n",
            "menshen_tickets_refused_total{what=\"bytes\"} 1\n",
            "menshen_queue_rows{lane=\"yunet\"} 3\n",
            "menshen_queue_wait_seconds_count{lane=\"yunet\"} 1\n",
            "menshen_batches_total{lane=\"yunet\",closed=\"greedy\"} 1\n",
            "menshen_batch_rows_sum{lane=\"yunet\"} 3.0\n",
            "menshen_batch_padding_rows_total{lane=\"yunet\"} 1\n",
            "menshen_batch_run_seconds_count{lane=\"yunet\"} 1\n",
            "menshen_rows_dropped_total{lane=\"yunet\",reason=\"expired\"} 1\n",
            "menshen_rows_failed_total{lane=\"yunet\"} 1\n",
            "menshen_network_panics_total{lane=\"yunet\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
