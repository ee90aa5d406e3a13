//! The options that say when calls are sent.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use crate::load::{self, Schedule, Spacing, Traffic, parse_duration};

#[derive(Debug, clap::Args)]
pub(super) struct When {
    /// Calls a second. A session counts as one call.
    #[arg(short, long, alias = "rps", value_name = "N", default_value_t = 10.0)]
    pub(super) rate: f64,
    /// How long calls are sent, such as 30s or 2m.
    #[arg(short = 'z', long, default_value = "30s", value_parser = parse_duration)]
    duration: Duration,
    /// Send at most this many calls after warming up; with Poisson arrivals about so many.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    total: Option<u64>,
    /// Distances between calls.
    #[arg(long, value_enum, default_value_t = ArrivalSpacing::Constant)]
    arrivals: ArrivalSpacing,
    /// Rate over time: const; step, from --load-start in steps of --load-step to --load-end; line,
    /// from --load-start to --load-end over the whole duration.
    #[arg(long, value_enum, default_value_t = LoadSchedule::Const)]
    load_schedule: LoadSchedule,
    /// Calls a second at the start of step and line; the rate unless given.
    #[arg(long, value_name = "N")]
    load_start: Option<f64>,
    /// Calls a second at the end of step and line.
    #[arg(long, value_name = "N")]
    load_end: Option<f64>,
    /// Change of the rate at each step, in calls a second.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    load_step: Option<f64>,
    /// How long each step lasts.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    load_step_duration: Duration,
    /// Send at the times of this file instead: one line a call, in seconds since the start.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "rate", "duration", "load_schedule", "arrivals", "warm_up",
    ])]
    trace: Option<PathBuf>,
    /// Closed loop: this many callers that each wait for an answer before the next call. Latency
    /// then leaves out the calls that were not sent meanwhile.
    #[arg(short, long, value_name = "N", conflicts_with_all = [
        "rate", "trace", "load_schedule", "arrivals",
    ])]
    concurrency: Option<usize>,
    /// Send calls for this long before the ones that count.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(super) warm_up: Duration,
    /// Fixes what is sent when; the ids of sessions are always new.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalSpacing {
    Constant,
    Poisson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoadSchedule {
    Const,
    Step,
    Line,
}

/// Returns when the calls of a run are sent.
pub(super) fn traffic(when: &When) -> anyhow::Result<Traffic> {
    if let Some(concurrency) = when.concurrency {
        let (duration, calls_max) = (when.duration, when.total);
        return Ok(Traffic::Closed { concurrency, duration, calls_max });
    }
    let spacing = match when.arrivals {
        ArrivalSpacing::Constant => Spacing::Constant,
        ArrivalSpacing::Poisson => Spacing::Poisson,
    };
    let schedule = match &when.trace {
        Some(path) => load::read_trace(path)?,
        None => schedule(when)?,
    };
    let schedule = match when.total {
        Some(total) => schedule.first_calls(total),
        None => schedule,
    };
    Ok(Traffic::Open { schedule, spacing })
}

fn schedule(when: &When) -> anyhow::Result<Schedule> {
    let start = when.load_start.unwrap_or(when.rate);
    let end = || when.load_end.context("--load-schedule step and line need --load-end");
    match when.load_schedule {
        LoadSchedule::Const => {
            let given = when.load_start.or(when.load_end).or(when.load_step);
            ensure!(
                given.is_none(),
                "--load-start, --load-end and --load-step need --load-schedule"
            );
            Ok(Schedule::constant(when.rate, when.duration))
        }
        LoadSchedule::Line => Ok(Schedule::ramp(start, end()?, when.duration)),
        LoadSchedule::Step => {
            let (end, step) =
                (end()?, when.load_step.context("--load-schedule step needs --load-step")?);
            if step == 0.0 || (end - start) * step < 0.0 {
                bail!("steps of {step} do not lead from {start} to {end} calls a second");
            }
            let steps = when.duration.as_secs_f64() / when.load_step_duration.as_secs_f64();
            ensure!(steps <= 100_000.0, "--load-step-duration makes more than 100000 steps");
            Ok(Schedule::steps(start, step, end, when.load_step_duration, when.duration))
        }
    }
}
