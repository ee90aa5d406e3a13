//! The metrics of calls, models and devices. The values of every label are a closed set.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{Method, Outcome, Stage};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: Method,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: Method,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: Stage,
}

/// Labels of a live model. Live models are few, and the values come from manifests, never from
/// callers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    /// The task.
    pub task: String,
    /// `name/version`.
    pub model: String,
    /// The precision of the network.
    pub precision: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    /// Name of the device, such as `cpu` or `cuda:0`.
    device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    /// Features of the build: `cuda` or `none`.
    features: &'static str,
}

const BUILD: BuildLabels = BuildLabels {
    version: env!("CARGO_PKG_VERSION"),
    features: if cfg!(feature = "cuda") { "cuda" } else { "none" },
};

/// Upper bounds of all latency histograms, in seconds. They reach from a small batch on a GPU to
/// the longest liveness session.
const LATENCY_SECONDS_BUCKETS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 25.0, 50.0, 100.0,
];

/// Latency histograms in seconds, one for each label set.
pub type LatencyFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// Makes an empty histogram with the bounds that all latencies share.
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_SECONDS_BUCKETS)
}

/// The metrics of calls, models and devices. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: LatencyFamily<MethodLabels>,
    stages: LatencyFamily<StageLabels>,
    place_wait: Histogram,
    in_flight: Gauge,
    panics: Counter,
    models: Family<ModelLabels, Gauge>,
    devices_up: Family<DeviceLabels, Gauge>,
    device_losses: Family<DeviceLabels, Counter>,
}

impl Metrics {
    /// Registers the metrics in `registry`, with the prefix `menshen_` in their names.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latency_histogram),
            stages: Family::new_with_constructor(latency_histogram),
            place_wait: latency_histogram(),
            in_flight: Gauge::default(),
            panics: Counter::default(),
            models: Family::default(),
            devices_up: Family::default(),
            device_losses: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("menshen");
        registry.register("build", "This program", Info::new(BUILD));
        registry.register("requests", "Calls by method and outcome", metrics.requests.clone());
        registry.register_with_unit(
            "request",
            "Time from the request message to its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register_with_unit(
            "stage",
            "Time of one picture in one stage; decode and align include the wait for a CPU thread",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register_with_unit(
            "place_wait",
            "Time a picture waited for one of the image.decoded_max places",
            Unit::Seconds,
            metrics.place_wait.clone(),
        );
        registry.register("requests_in_flight", "Calls being served", metrics.in_flight.clone());
        registry.register("model_live", "1 for each live model", metrics.models.clone());
        let up = "1 for a device in service, 0 for one that is lost";
        registry.register("device_up", up, metrics.devices_up.clone());
        let losses = "Times a device was lost";
        registry.register("device_losses", losses, metrics.device_losses.clone());
        registry.register("panics", "Panics on the CPU pool", metrics.panics.clone());
        metrics
    }

    /// Counts a call as in flight.
    pub(super) fn call_opened(&self) {
        self.in_flight.inc();
    }

    /// Counts the end of a call, and records its time.
    pub(super) fn call_ended(&self, method: Method, outcome: Outcome, total: Duration) {
        self.in_flight.dec();
        self.requests.get_or_create(&RequestLabels { method, outcome }).inc();
        self.seconds.get_or_create(&MethodLabels { method }).observe(total.as_secs_f64());
    }

    /// Records the time that one picture spent in `stage`.
    pub fn observe_stage(&self, stage: Stage, time: Duration) {
        self.stages.get_or_create(&StageLabels { stage }).observe(time.as_secs_f64());
    }

    /// Records the time that one picture waited for a place of `image.decoded_max`.
    pub fn observe_place_wait(&self, time: Duration) {
        self.place_wait.observe(time.as_secs_f64());
    }

    /// Shows a model as live.
    pub fn set_model_live(&self, model: &ModelLabels) {
        self.models.get_or_create(model).set(1);
    }

    /// Shows whether a device is in service, and adds `lost` to the count of its losses.
    pub fn update_device(&self, name: &str, is_up: bool, lost: u64) {
        let labels = DeviceLabels { device: name.to_owned() };
        self.devices_up.get_or_create(&labels).set(is_up.into());
        self.device_losses.get_or_create(&labels).inc_by(lost);
    }

    /// Counts a panic on the CPU pool.
    pub fn count_panic(&self) {
        self.panics.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn the_build_is_shown_with_its_version_and_features() {
        let mut registry = Registry::default();
        Metrics::register(&mut registry);
        let BuildLabels { version, features } = BUILD;
        let line =
            format!("menshen_build_info{{version=\"{version}\",features=\"{features}\"}} 1\n");
        let text = text(&registry);
        assert!(text.contains(&line), "{text}");
    }
}
