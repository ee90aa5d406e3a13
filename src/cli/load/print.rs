//! The live line and the tables of a run.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::table::Table;
use crate::load::{
    KindRecord, Measured, Plan, Progress, QUANTILES, RunResult, Schedule, ServerMean, ServerView,
    Spacing, Traffic, quantile_ms, sorted_outcomes,
};

/// A line on standard error that shows a run while it lasts; hidden if standard error is no
/// terminal.
pub(super) struct LiveLine(ProgressBar);

impl LiveLine {
    pub(super) fn new(duration: Duration) -> Self {
        let bar = ProgressBar::new(duration.as_secs().max(1));
        if let Ok(style) = ProgressStyle::with_template("{prefix}{bar:20} {pos:>3}/{len} s  {msg}")
        {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn show(&self, progress: &Progress<'_>) {
        self.0.set_position(progress.elapsed.as_secs());
        let Some(window) = progress.window else {
            self.0.set_message("warming up");
            return;
        };
        self.0.set_message(format!(
            "{} answered, {} failed, {} in flight; last second: {} answered, p50 {} ms, p99 {} ms",
            progress.total.answered(),
            progress.total.failed(),
            progress.in_flight,
            window.answered,
            milliseconds(window.p50_ms),
            milliseconds(window.p99_ms),
        ));
    }

    pub(super) fn show_trial(&self, number: usize, rate: f64, progress: &Progress<'_>) {
        self.0.set_prefix(format!("trial {number}, {rate:.1}/s  "));
        self.show(progress);
    }

    /// Prints a line above the live line, on standard error: standard output may carry JSON.
    pub(super) fn print(&self, line: &str) {
        #[expect(clippy::print_stderr, reason = "progress goes to standard error")]
        self.0.suspend(|| eprintln!("{line}"));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Returns milliseconds with three significant digits; a dash for none.
pub(super) fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(ms) if ms < 1.0 => format!("{ms:.3}"),
        Some(ms) if ms < 10.0 => format!("{ms:.2}"),
        Some(ms) if ms < 100.0 => format!("{ms:.1}"),
        Some(ms) => format!("{ms:.0}"),
    }
}

pub(super) fn print_lines(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

pub(super) fn print_result(plan: &Plan, result: &RunResult, thresholds: &[Measured]) {
    println!("{}\n", heading(plan));
    print_lines(&outcome_lines(result));
    println!();
    print_lines(&time_lines(plan, result));
    println!();
    print_lines(&summary_lines(plan, result));
    if let Some(server) = &result.server {
        println!();
        print_lines(&server_lines(server));
    }
    if result.server.is_none() && plan.metrics.is_some() {
        println!("\nserver      its metrics could not be read around the run");
    }
    if !thresholds.is_empty() {
        println!();
        print_lines(&threshold_lines(thresholds));
    }
    for problem in &result.problems {
        println!("INVALID     {problem}");
    }
}

fn heading(plan: &Plan) -> String {
    let seconds = plan.traffic.duration().as_secs_f64();
    let traffic = match &plan.traffic {
        Traffic::Closed { concurrency, .. } => {
            format!("CLOSED LOOP of {concurrency} callers: latency hides the calls not sent")
        }
        Traffic::Open { schedule: Schedule::Trace(times), .. } => {
            format!("open loop, {} recorded times", times.len())
        }
        Traffic::Open { schedule: Schedule::Rates(segments), spacing } => {
            let ends = segments.first().zip(segments.last());
            let (from, to) = ends.map_or((0.0, 0.0), |(first, last)| (first.from, last.to));
            let spacing = match spacing {
                Spacing::Constant => "constant",
                Spacing::Poisson => "Poisson",
            };
            let rate = if from == to { format!("{from}") } else { format!("{from} to {to}") };
            format!("open loop, {rate} calls a second, {spacing}")
        }
    };
    format!("{} to {}: {traffic}, {seconds} s", plan.mix, plan.server)
}

fn outcome_lines(result: &RunResult) -> Vec<String> {
    let mut table = Table::new(&["call", "status", "decision", ">calls", ">share"]);
    for (kind, record) in result.total.kinds() {
        let all = (record.answered() + record.failed()).max(1) as f64;
        for (outcome, count) in sorted_outcomes(record) {
            table.add_line(vec![
                kind.to_string(),
                outcome.status().to_owned(),
                outcome.decision().to_owned(),
                count.to_string(),
                format!("{:.1} %", count as f64 / all * 100.0),
            ]);
        }
    }
    table.render()
}

fn time_lines(plan: &Plan, result: &RunResult) -> Vec<String> {
    let mut headings = vec!["ms".to_owned()];
    headings.extend(QUANTILES.map(|(name, quantile)| match name {
        "max" => ">max".to_owned(),
        _ => format!(">p{}", (quantile * 1e6).round() / 1e4),
    }));
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    let is_closed = matches!(plan.traffic, Traffic::Closed { .. });
    for (kind, KindRecord { latency, service, lag, .. }) in result.total.kinds() {
        let kind = kind.name();
        if is_closed {
            table.add_line(time_cells(format!("{kind} service time"), service));
            continue;
        }
        table.add_line(time_cells(format!("{kind} latency"), latency));
        table.add_line(time_cells(format!("{kind} service time"), service));
        table.add_line(time_cells(format!("{kind} lag"), lag));
    }
    if plan.has_sessions() {
        table.add_line(time_cells("frame lag".to_owned(), &result.total.frames.lag));
    }
    table.render()
}

/// Returns the cells of one line. A quantile of fewer calls than it needs is no measurement.
fn time_cells(name: String, histogram: &hdrhistogram::Histogram<u64>) -> Vec<String> {
    let cell = |(_, quantile): (&str, f64)| {
        let calls_beyond = histogram.len() as f64 * (1.0 - quantile);
        let is_measured = quantile == 1.0 || calls_beyond > 1.0 - 1e-9;
        milliseconds(quantile_ms(histogram, quantile).filter(|_| is_measured))
    };
    std::iter::once(name).chain(QUANTILES.map(cell)).collect()
}

fn summary_lines(plan: &Plan, result: &RunResult) -> Vec<String> {
    let seconds = result.sent_for.as_secs_f64();
    let (answered, failed) = (result.total.answered(), result.total.failed());
    let all = (answered + failed).max(1) as f64;
    let all_seconds = (result.elapsed + plan.warm_up()).as_secs_f64().max(1e-9);
    let (pacer, workers) = (result.cpu.pacer.as_secs_f64(), result.cpu.workers.as_secs_f64());
    let mut lines = vec![
        format!(
            "calls       {} due ({:.1}/s), {answered} answered ({:.1}/s in time), {failed} failed \
             ({:.2} %), at most {} in flight",
            result.total.offered,
            result.total.offered as f64 / seconds,
            result.in_time.answered() as f64 / seconds,
            failed as f64 / all * 100.0,
            result.in_flight_peak,
        ),
        format!(
            "generator   {:.3} cores (pacer {:.3}, workers {:.3}), {:.1} µs a call, {} priority",
            (pacer + workers) / all_seconds,
            pacer / all_seconds,
            workers / all_seconds,
            (pacer + workers) * 1e6 / result.calls_sent.max(1) as f64,
            if result.cpu.is_real_time { "real-time" } else { "normal" },
        ),
    ];
    if plan.has_sessions() {
        let frames = &result.total.frames;
        lines.push(format!(
            "frames      {} sent, {} dropped by the camera, {} left out by the server",
            frames.sent, frames.dropped, frames.left_out
        ));
    }
    lines
}

fn server_lines(server: &ServerView) -> Vec<String> {
    let mut lines = Vec::new();
    if !server.stages_ms.is_empty() {
        let mut stages = Table::new(&["server's stage", ">pictures", ">mean ms"]);
        for ServerMean { name, count, mean } in &server.stages_ms {
            let mean = milliseconds(Some(*mean));
            stages.add_line(vec![name.clone(), format!("{count:.0}"), mean]);
        }
        lines.extend(stages.render());
        lines.push(String::new());
    }
    if !server.batch_rows.is_empty() {
        let headings = ["server's model", ">batches", ">rows", ">row's wait ms", ">batch ms"];
        let mut models = Table::new(&headings);
        let mean_of = |means: &[ServerMean], name: &str| {
            let found = means.iter().find(|other| other.name == name);
            milliseconds(found.map(|other| other.mean))
        };
        for ServerMean { name, count, mean } in &server.batch_rows {
            models.add_line(vec![
                name.clone(),
                format!("{count:.0}"),
                format!("{mean:.2}"),
                mean_of(&server.queue_ms, name),
                mean_of(&server.batch_ms, name),
            ]);
        }
        lines.extend(models.render());
        lines.push(String::new());
    }
    lines.push(format!(
        "server      refused {:.0} calls, dropped {:.0} rows",
        server.refused, server.rows_dropped
    ));
    lines
}

fn threshold_lines(thresholds: &[Measured]) -> Vec<String> {
    let mut table = Table::new(&["threshold", ">measured", ""]);
    for Measured { condition, value, holds } in thresholds {
        let value = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let holds = if *holds { "✓" } else { "✗" };
        table.add_line(vec![condition.clone(), value, holds.to_owned()]);
    }
    table.render()
}
