//! The result of a run as JSON and as a picture.

use std::time::UNIX_EPOCH;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::calls::{CallKind, Outcome};
use super::conditions::{Conditions, Measured};
use super::plan::{Plan, Traffic};
use super::plot::{PercentileCurve, PlotData, SecondSample, TrialSample, draw_svg};
use super::recorder::KindRecord;
use super::run::{RunResult, Window};
use super::saturation::{Saturation, TrialEnd};
use super::scrape::{ServerMean, ServerView};

/// The JSON schema (draft 2020-12) of [`as_json`].
pub const REPORT_SCHEMA: &str = include_str!("report.schema.json");

/// The quantiles of every report, with their names.
pub const QUANTILES: [(&str, f64); 8] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
    ("max", 1.0),
];

/// Returns a run as JSON, as [`REPORT_SCHEMA`] describes it.
pub fn as_json(
    plan: &Plan,
    result: &RunResult,
    thresholds: &[Measured],
    saturation: Option<(&Conditions, &Saturation)>,
) -> Value {
    let RunResult { total, cpu, .. } = result;
    let all = total.all();
    let (answered, failed) = (total.answered(), total.failed());
    let seconds = result.sent_for.as_secs_f64();
    let started = result.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let calls_sent = result.calls_sent.max(1) as f64;
    json!({
        "format": "menshen-load/1",
        "version": env!("CARGO_PKG_VERSION"),
        "plan": plan_json(plan),
        "started_unix_ms": u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        "sent_for_s": seconds,
        "elapsed_s": result.elapsed.as_secs_f64(),
        "valid": result.problems.is_empty(),
        "problems": result.problems,
        "calls": { "offered": total.offered, "answered": answered, "failed": failed },
        "offered_per_s": total.offered as f64 / seconds,
        "answered_per_s": result.in_time.answered() as f64 / seconds,
        "error_share": failed as f64 / (answered + failed).max(1) as f64,
        "in_flight_peak": result.in_flight_peak,
        "latency_ms": times_json(&all.latency),
        "service_ms": times_json(&all.service),
        "lag_ms": times_json(&all.lag),
        "kinds": total.kinds().map(|(kind, of)| kind_json(kind, of)).collect::<Vec<_>>(),
        "frames": plan.has_sessions().then(|| json!({
            "sent": total.frames.sent,
            "dropped": total.frames.dropped,
            "left_out": total.frames.left_out,
            "films_ended": total.frames.films_ended,
            "lag_ms": times_json(&total.frames.lag),
        })),
        "client_cpu": {
            "pacer_s": cpu.pacer.as_secs_f64(),
            "workers_s": cpu.workers.as_secs_f64(),
            "is_real_time": cpu.is_real_time,
            "us_per_call": (cpu.pacer + cpu.workers).as_secs_f64() * 1e6 / calls_sent,
        },
        "server": result.server.as_ref().map(server_json),
        "windows": result.windows.iter().map(window_json).collect::<Vec<_>>(),
        "thresholds": thresholds.iter().map(measured_json).collect::<Vec<_>>(),
        "saturation": saturation.map(|(objective, found)| saturation_json(objective, found)),
    })
}

fn plan_json(plan: &Plan) -> Value {
    let (concurrency, spacing) = match &plan.traffic {
        Traffic::Open { spacing, .. } => (None, Some(format!("{spacing:?}").to_lowercase())),
        Traffic::Closed { concurrency, .. } => (Some(*concurrency), None),
    };
    json!({
        "server": plan.server,
        "mix": plan.mix.to_string(),
        "loop": if concurrency.is_some() { "closed" } else { "open" },
        "arrivals": spacing,
        "concurrency": concurrency,
        "duration_s": plan.traffic.duration().as_secs_f64(),
        "warm_up_s": plan.warm_up().as_secs_f64(),
        "timeout_s": plan.timeout.as_secs_f64(),
        "connections": plan.connections,
        "threads": plan.threads,
        "source_addresses": plan.source_addresses,
        "stores": plan.stores.count,
        "store_skew": plan.stores.skew,
        "seed": plan.seed,
    })
}

fn times_json(histogram: &Histogram<u64>) -> Value {
    let mut times = serde_json::Map::new();
    let is_empty = histogram.is_empty();
    let ms = |value: f64| if is_empty { Value::Null } else { json!(value / 1e6) };
    times.insert("count".to_owned(), json!(histogram.len()));
    times.insert("mean".to_owned(), ms(histogram.mean()));
    times.insert("stdev".to_owned(), ms(histogram.stdev()));
    times.insert("min".to_owned(), ms(histogram.min() as f64));
    for (name, quantile) in QUANTILES {
        times.insert(name.to_owned(), ms(histogram.value_at_quantile(quantile) as f64));
    }
    Value::Object(times)
}

/// Returns the outcomes of a kind, the most frequent first.
pub fn sorted_outcomes(record: &KindRecord) -> Vec<(Outcome, u64)> {
    let mut outcomes: Vec<_> = record.outcomes.iter().map(|(of, count)| (*of, *count)).collect();
    outcomes.sort_by_key(|(outcome, count)| {
        (!outcome.is_ok(), std::cmp::Reverse(*count), outcome.status(), outcome.decision())
    });
    outcomes
}

fn kind_json(kind: CallKind, record: &KindRecord) -> Value {
    let outcomes: Vec<Value> = sorted_outcomes(record)
        .into_iter()
        .map(|(outcome, count)| {
            json!({
                "status": outcome.status(),
                "decision": Some(outcome.decision()).filter(|decision| !decision.is_empty()),
                "count": count,
            })
        })
        .collect();
    json!({
        "call": kind.name(),
        "outcomes": outcomes,
        "latency_ms": times_json(&record.latency),
        "service_ms": times_json(&record.service),
        "lag_ms": times_json(&record.lag),
    })
}

fn means_json(means: &[ServerMean]) -> Value {
    let mean = |of: &ServerMean| json!({ "name": of.name, "count": of.count, "mean": of.mean });
    means.iter().map(mean).collect()
}

fn server_json(server: &ServerView) -> Value {
    json!({
        "stages_ms": means_json(&server.stages_ms),
        "queue_ms": means_json(&server.queue_ms),
        "batch_rows": means_json(&server.batch_rows),
        "batch_ms": means_json(&server.batch_ms),
        "refused": server.refused,
        "rows_dropped": server.rows_dropped,
    })
}

fn window_json(window: &Window) -> Value {
    json!({
        "ended_s": window.ended.as_secs_f64(),
        "offered": window.offered,
        "answered": window.answered,
        "failed": window.failed,
        "in_flight": window.in_flight,
        "p50_ms": window.p50_ms,
        "p99_ms": window.p99_ms,
        "max_ms": window.max_ms,
    })
}

fn measured_json(measured: &Measured) -> Value {
    json!({
        "condition": measured.condition,
        "value": measured.value,
        "holds": measured.holds,
    })
}

fn saturation_json(objective: &Conditions, found: &Saturation) -> Value {
    let trials: Vec<Value> = found
        .trials
        .iter()
        .map(|trial| {
            json!({
                "rate": trial.rate,
                "achieved_per_s": trial.achieved,
                "p99_ms": trial.p99_ms,
                "end": end_name(trial.end),
                "is_repeat": trial.is_repeat,
                "objective": trial.objective.iter().map(measured_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "objective": objective.to_string(), "rate": found.rate, "trials": trials })
}

fn end_name(end: TrialEnd) -> &'static str {
    match end {
        TrialEnd::Passed => "passed",
        TrialEnd::Missed => "missed",
        TrialEnd::GrowingBacklog => "growing_backlog",
    }
}

/// Draws a run as an SVG document.
pub fn draw_plot(
    plan: &Plan,
    result: &RunResult,
    saturation: Option<(&Conditions, &Saturation)>,
) -> String {
    let is_closed = matches!(plan.traffic, Traffic::Closed { .. });
    let trials = saturation.map_or(&[][..], |(_, found)| &found.trials);
    let (answered, failed) = (result.total.answered(), result.total.failed());
    draw_svg(&PlotData {
        title: title(plan, result, saturation.is_some()),
        subtitle: format!(
            "{} · {answered} answered, {failed} failed · menshen {}",
            if is_closed {
                "closed loop: a slow answer delays the next call"
            } else {
                "open loop: latency from the intended time"
            },
            env!("CARGO_PKG_VERSION"),
        ),
        curves: result.total.kinds().filter_map(|(kind, of)| curve(kind, of)).collect(),
        seconds: result.windows.iter().map(second).collect(),
        trials: trials
            .iter()
            .map(|trial| TrialSample {
                rate: trial.rate,
                achieved: trial.achieved,
                p99_ms: trial.p99_ms,
                passed: trial.end == TrialEnd::Passed,
            })
            .collect(),
        slo_ms: saturation.and_then(|(objective, _)| objective.latency_ms()),
        saturation: saturation.map(|(_, found)| found.rate),
    })
}

fn title(plan: &Plan, result: &RunResult, is_search: bool) -> String {
    let duration = result.sent_for.as_secs_f64();
    let rate = result.total.offered as f64 / duration;
    let seconds = format!("{duration:.0} s");
    match plan.traffic {
        Traffic::Closed { concurrency, .. } => {
            format!("{}: {concurrency} callers, {seconds}", plan.mix)
        }
        Traffic::Open { .. } if is_search => {
            format!("{}: saturation at {rate:.1} a second, {seconds}", plan.mix)
        }
        Traffic::Open { .. } => format!("{}: {rate:.1} a second, {seconds}", plan.mix),
    }
}

/// Steps of a percentile curve in each half of the distance to 100 %.
const CURVE_TICKS_PER_HALF: u32 = 8;

fn curve(kind: CallKind, record: &KindRecord) -> Option<PercentileCurve> {
    let steps = record.latency.iter_quantiles(CURVE_TICKS_PER_HALF);
    let mut points: Vec<[f64; 2]> = steps
        .map(|step| [step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1e6])
        .collect();
    // The legend names this quantile, and no step meets it.
    let above = points.partition_point(|[quantile, _]| *quantile < 0.99);
    points.insert(above, [0.99, record.latency_ms(0.99)?]);
    Some(PercentileCurve { name: kind.name().to_owned(), points })
}

fn second(window: &Window) -> SecondSample {
    SecondSample {
        second: window.ended.as_secs_f64(),
        answered: window.answered as f64,
        failed: window.failed as f64,
        offered: window.offered as f64,
        p50_ms: window.p50_ms,
        p99_ms: window.p99_ms,
        max_ms: window.max_ms,
    }
}
