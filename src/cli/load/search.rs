//! The search for saturation, with a line for each trial.

use anyhow::Context;

use crate::cli::table::Table;
use crate::load::{
    Conditions, Plan, Saturation, Schedule, Search, Traffic, Trial, TrialEnd, find_saturation,
};

use super::print::{LiveLine, milliseconds};

#[derive(Debug, clap::Args)]
pub(super) struct SearchOptions {
    /// Find the highest rate at which --slo holds. Starts at --rate; --duration is the time of one
    /// trial.
    #[arg(long, requires = "slo", conflicts_with_all = [
        "concurrency", "trace", "load_schedule", "total",
    ])]
    pub(super) find_saturation: bool,
    /// What must hold, such as 'p99<150ms,error<0.1%'.
    #[arg(long, value_name = "CONDITIONS", requires = "find_saturation")]
    pub(super) slo: Option<Conditions>,
    /// Highest rate to try.
    #[arg(long, value_name = "N", default_value_t = 100_000.0, requires = "find_saturation")]
    rate_max: f64,
    /// Stop when the good and the bad rate differ by this share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = parse_precision)]
    rate_precision: f64,
}

fn parse_precision(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.001..=0.5).contains(&share) => Ok(share),
        _ => Err("must be from 0.001 to 0.5".to_owned()),
    }
}

/// Searches and prints a line for each trial on standard error.
pub(super) fn find(
    options: &SearchOptions,
    plan: &Plan,
    rate: f64,
) -> anyhow::Result<(Conditions, Saturation)> {
    let objective = options.slo.clone().context("--find-saturation needs --slo")?;
    let search = Search {
        objective: objective.clone(),
        rate_from: rate,
        rate_max: options.rate_max.max(rate),
        trial_duration: plan.traffic.duration(),
        precision: options.rate_precision,
    };
    let line = LiveLine::new(search.trial_duration);
    let found = find_saturation(
        plan,
        &search,
        &mut |number, rate, progress| line.show_trial(number, rate, progress),
        &mut |trial| line.print(&describe(trial)),
    );
    line.finish();
    Ok((objective, found?))
}

fn end_text(end: TrialEnd) -> &'static str {
    match end {
        TrialEnd::Passed => "holds",
        TrialEnd::Missed => "missed",
        TrialEnd::GrowingBacklog => "backlog grows",
    }
}

fn describe(trial: &Trial) -> String {
    let repeat = if trial.is_repeat { " again" } else { "" };
    format!(
        "{:9.1}/s{repeat}: p99 {} ms, {}",
        trial.rate,
        milliseconds(trial.p99_ms),
        end_text(trial.end)
    )
}

/// Returns the table of all trials.
pub(super) fn trial_lines(found: &Saturation) -> Vec<String> {
    let mut table = Table::new(&[">calls/s", ">answered/s", ">p99 ms", "objective", ""]);
    for trial in &found.trials {
        table.add_line(vec![
            format!("{:.1}", trial.rate),
            format!("{:.1}", trial.achieved),
            milliseconds(trial.p99_ms),
            end_text(trial.end).to_owned(),
            if trial.is_repeat { "repeated" } else { "" }.to_owned(),
        ]);
    }
    table.render()
}

/// Returns the traffic of the last run at the found rate.
pub(super) fn found_traffic(plan: &Plan, found: &Saturation) -> Traffic {
    match &plan.traffic {
        Traffic::Open { spacing, .. } => Traffic::Open {
            schedule: Schedule::constant(found.rate, plan.traffic.duration()),
            spacing: *spacing,
        },
        closed @ Traffic::Closed { .. } => closed.clone(),
    }
}
