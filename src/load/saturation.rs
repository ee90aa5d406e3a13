//! The search for saturation: the highest rate at which a server meets its objective.
//!
//! The rate doubles until the objective is missed, then the search bisects. Each trial starts with
//! a time of warming up, and ends early once the objective cannot be met any more. A trial also
//! fails if its backlog grows: then a longer trial would miss the objective.
//!
//! A machine that stops for a moment makes a trial miss its objective. A missed trial is therefore
//! made again, and the rate is bad if two of three trials miss. A rate may also pass by luck: the
//! found rate is tried three times more, and if most of these trials fail, the search goes on
//! below.

use std::time::Duration;

use super::LoadError;
use super::arrivals::Schedule;
use super::calls::CallKind;
use super::conditions::{Conditions, Measured};
use super::plan::{Plan, Traffic};
use super::recorder::quantile_ms;
use super::run::{Flow, Progress, RunResult, Window, run};

/// How to search.
#[derive(Debug, Clone)]
pub struct Search {
    /// What must hold.
    pub objective: Conditions,
    /// Rate of the first trial, in calls a second.
    pub rate_from: f64,
    /// Highest rate that is tried.
    pub rate_max: f64,
    /// Time in which the calls of a trial count.
    pub trial_duration: Duration,
    /// The rates of the last good and the first bad trial differ by at most this share.
    pub precision: f64,
}

/// Why a trial ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialEnd {
    /// The objective was met and the backlog did not grow.
    Passed,
    /// The objective was missed.
    Missed,
    /// The objective was met, and calls in flight and latency grew all the time.
    GrowingBacklog,
}

/// One trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Calls a second that were due.
    pub rate: f64,
    /// Answers a second.
    pub achieved: f64,
    /// The objective, measured.
    pub objective: Vec<Measured>,
    /// How it ended.
    pub end: TrialEnd,
    /// p99 of the latency in milliseconds; `None` without an answer.
    pub p99_ms: Option<f64>,
    /// Whether it repeats the rate of an earlier one.
    pub is_repeat: bool,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Saturation {
    /// The highest rate that met the objective, in calls a second.
    pub rate: f64,
    /// The trials, in order.
    pub trials: Vec<Trial>,
    /// The last run at the found rate.
    pub run: RunResult,
}

/// Repetitions of the found rate. Most of them must pass.
const REPEATS: usize = 3;

/// Answers per due call below which a rate is not sustained.
const ACHIEVED_MIN: f64 = 0.98;

/// Runs whose generator was late are made again so often.
const INVALID_RETRIES: usize = 2;

/// Growth from the first to the last third of a trial that counts as a growing backlog.
const BACKLOG_GROWTH_MIN: f64 = 1.5;

/// Searches for saturation. Calls `observe` every second with the number of the trial, from 1, and
/// its rate, and `report` after each trial.
///
/// # Errors
/// As [`run`]; the objective is missed at the first rate, or met at the highest; the generator is
/// late again and again.
pub fn find_saturation(
    plan: &Plan,
    search: &Search,
    observe: &mut dyn FnMut(usize, f64, &Progress<'_>),
    report: &mut dyn FnMut(&Trial),
) -> Result<Saturation, LoadError> {
    let mut trials = Trials { plan, search, observe, report, ended: Vec::new() };
    let mut good = trials.first()?;
    let mut bad = trials.double(&mut good)?;
    loop {
        trials.bisect(&mut good, &mut bad)?;
        if trials.repeats_pass(&mut good)? {
            return Ok(Saturation { rate: good.rate, trials: trials.ended, run: good.run });
        }
        // The rate passed once by luck. What is below is searched again.
        bad = good.rate;
        good = trials.find_below(bad)?;
    }
}

/// A rate that met the objective.
struct Good {
    rate: f64,
    run: RunResult,
}

struct Trials<'a> {
    plan: &'a Plan,
    search: &'a Search,
    observe: &'a mut dyn FnMut(usize, f64, &Progress<'_>),
    report: &'a mut dyn FnMut(&Trial),
    ended: Vec<Trial>,
}

impl Trials<'_> {
    fn first(&mut self) -> Result<Good, LoadError> {
        let rate = self.search.rate_from;
        match self.judge_rate(rate)? {
            (TrialEnd::Passed, run) => Ok(Good { rate, run }),
            (TrialEnd::Missed | TrialEnd::GrowingBacklog, _) => {
                Err(LoadError::MissedAtStart { rate })
            }
        }
    }

    /// Doubles the rate until the objective is missed. Returns the first bad rate.
    fn double(&mut self, good: &mut Good) -> Result<f64, LoadError> {
        while good.rate < self.search.rate_max {
            let rate = (good.rate * 2.0).min(self.search.rate_max);
            match self.judge_rate(rate)? {
                (TrialEnd::Passed, run) => *good = Good { rate, run },
                (TrialEnd::Missed | TrialEnd::GrowingBacklog, _) => return Ok(rate),
            }
        }
        Err(LoadError::NeverSaturated { rate: good.rate })
    }

    fn bisect(&mut self, good: &mut Good, bad: &mut f64) -> Result<(), LoadError> {
        while *bad - good.rate > good.rate * self.search.precision {
            let rate = f64::midpoint(good.rate, *bad);
            match self.judge_rate(rate)? {
                (TrialEnd::Passed, run) => *good = Good { rate, run },
                (TrialEnd::Missed | TrialEnd::GrowingBacklog, _) => *bad = rate,
            }
        }
        Ok(())
    }

    fn repeats_pass(&mut self, good: &mut Good) -> Result<bool, LoadError> {
        let mut passed = 0;
        for _ in 0..REPEATS {
            let (end, run) = self.attempt(good.rate, true)?;
            if end == TrialEnd::Passed {
                passed += 1;
                good.run = run;
            }
        }
        Ok(passed * 2 > REPEATS)
    }

    /// Goes down from a bad rate in steps of the precision, each twice as large as the one before,
    /// until the objective is met.
    fn find_below(&mut self, bad: f64) -> Result<Good, LoadError> {
        let mut step = self.search.precision;
        loop {
            let rate = bad * (1.0 - step);
            if rate < self.search.rate_from / 2.0 {
                return Err(LoadError::MissedAtStart { rate: self.search.rate_from });
            }
            if let (TrialEnd::Passed, run) = self.judge_rate(rate)? {
                return Ok(Good { rate, run });
            }
            step *= 2.0;
        }
    }

    /// Makes up to three trials of a rate: it is good if the first passes, or two of the three.
    fn judge_rate(&mut self, rate: f64) -> Result<(TrialEnd, RunResult), LoadError> {
        let first = self.attempt(rate, false)?;
        if first.0 == TrialEnd::Passed {
            return Ok(first);
        }
        let second = self.attempt(rate, true)?;
        if second.0 != TrialEnd::Passed {
            return Ok(second);
        }
        self.attempt(rate, true)
    }

    /// Makes a trial, again if the generator was late.
    fn attempt(&mut self, rate: f64, is_repeat: bool) -> Result<(TrialEnd, RunResult), LoadError> {
        let mut reason = String::new();
        for _ in 0..=INVALID_RETRIES {
            let result = self.run_trial(rate)?;
            let objective = self.measure(&result);
            let end = self.judge(&result, &objective);
            // A late generator makes latencies longer, never shorter, so a pass is a pass.
            if end == TrialEnd::Passed || !self.is_doubtful(&result) {
                let seconds = result.sent_for.as_secs_f64();
                let trial = Trial {
                    rate,
                    achieved: result.answered_in_time as f64 / seconds,
                    objective,
                    end,
                    p99_ms: result.total.all().latency_ms(0.99),
                    is_repeat,
                };
                (self.report)(&trial);
                self.ended.push(trial);
                return Ok((end, result));
            }
            reason = result.problems.join("; ");
        }
        Err(LoadError::GeneratorLate { rate, reason })
    }

    fn run_trial(&mut self, rate: f64) -> Result<RunResult, LoadError> {
        let schedule = Schedule::constant(rate, self.search.trial_duration);
        let calls = schedule.calls();
        let mut plan = self.plan.clone();
        if let Traffic::Open { schedule: of_trial, .. } = &mut plan.traffic {
            *of_trial = schedule;
        }
        let (number, objective) = (self.ended.len() + 1, &self.search.objective);
        run(&plan, &mut |progress| {
            (self.observe)(number, rate, progress);
            if objective.are_lost(progress.total, calls) { Flow::Stop } else { Flow::Continue }
        })
    }

    fn measure(&self, result: &RunResult) -> Vec<Measured> {
        let seconds = self.search.trial_duration.as_secs_f64();
        self.search.objective.measure(&result.total, seconds)
    }

    /// Returns whether the generator was late, and a timely one may have met the objective.
    fn is_doubtful(&self, result: &RunResult) -> bool {
        let lags = result.total.kinds().filter_map(|(_, kind)| quantile_ms(&kind.lag, 0.99));
        let lag_ms = lags.fold(0.0, f64::max);
        let seconds = self.search.trial_duration.as_secs_f64();
        let objective = &self.search.objective;
        !result.problems.is_empty() && !objective.are_missed_beyond(lag_ms, &result.total, seconds)
    }

    fn judge(&self, result: &RunResult, objective: &[Measured]) -> TrialEnd {
        if objective.iter().any(|measured| !measured.holds) {
            return TrialEnd::Missed;
        }
        let during = |window: &&Window| window.ended <= self.search.trial_duration;
        let windows: Vec<&Window> = result.windows.iter().filter(during).collect();
        if is_backlog_growing(&windows) || self.falls_behind(result) {
            return TrialEnd::GrowingBacklog;
        }
        TrialEnd::Passed
    }

    /// Returns whether fewer calls were answered than were due. A session lasts longer than a
    /// trial's margin, so its answers are not counted.
    fn falls_behind(&self, result: &RunResult) -> bool {
        let has_sessions = self.plan.mix.kinds().any(|kind| kind == CallKind::Session);
        let share = result.answered_in_time as f64 / result.total.offered.max(1) as f64;
        !has_sessions && share < ACHIEVED_MIN
    }
}

/// Returns whether both the calls in flight and the median latency are larger in the last third of
/// a trial than in the first, and not only by a single call.
fn is_backlog_growing(windows: &[&Window]) -> bool {
    let third = windows.len() / 3;
    if third == 0 {
        return false;
    }
    let in_flight = |windows: &[&Window]| {
        windows.iter().map(|window| window.in_flight as f64).sum::<f64>() / windows.len() as f64
    };
    let median = |windows: &[&Window]| {
        let medians = windows.iter().filter_map(|window| window.record.all().latency_ms(0.5));
        let (sum, count) = medians.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    };
    let (first, last) = (&windows[..third], &windows[windows.len() - third..]);
    let has_more_calls = in_flight(last) > in_flight(first) * BACKLOG_GROWTH_MIN + 2.0;
    has_more_calls && median(last) > median(first) * BACKLOG_GROWTH_MIN
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::calls::Outcome;
    use super::super::recorder::{CallTimes, Record};
    use super::*;

    fn window(in_flight: u64, latency_ms: u64) -> Window {
        let mut record = Record::default();
        let intended = Instant::now();
        let ended = intended + Duration::from_millis(latency_ms);
        let times = CallTimes { sent: intended, from: intended, ended };
        record.add(CallKind::Verify, Outcome::Answered, &times);
        Window { ended: Duration::from_secs(1), record, in_flight }
    }

    fn is_growing(in_flight: [u64; 6], latency_ms: [u64; 6]) -> bool {
        let windows: Vec<Window> =
            in_flight.into_iter().zip(latency_ms).map(|(calls, ms)| window(calls, ms)).collect();
        is_backlog_growing(&windows.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_backlog_grows_only_if_calls_in_flight_and_latency_both_do() {
        let (steady, rising) = ([4; 6], [4, 6, 8, 10, 12, 14]);
        assert!(is_growing(rising, [50, 60, 70, 80, 90, 100]));
        assert!(!is_growing(steady, [50, 60, 70, 80, 90, 100]));
        assert!(!is_growing(rising, [50; 6]));
        assert!(!is_growing([0, 1, 0, 1, 2, 1], [50, 60, 70, 80, 90, 100]));
        assert!(!is_backlog_growing(&[]));
    }
}
