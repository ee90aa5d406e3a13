//! The search for saturation: the highest rate at which a server meets its objective.
//!
//! The rate doubles until the objective is missed, then the search bisects. A trial may start
//! with a time of warming up, and ends early once the objective cannot be met any more. It also
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
    /// The objective was met, and calls in flight and latency grew, or answers fell behind.
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
    /// The last run at the found rate that met the objective.
    pub run: RunResult,
}

/// Repetitions of the found rate. Most of them must pass.
const REPEATS: usize = 3;

/// Answers per due call below which a rate is not sustained.
const ACHIEVED_MIN: f64 = 0.98;

/// Retries of a trial whose generator was late.
const INVALID_RETRIES: usize = 2;

/// Growth from the first to the last third of a trial that counts as a growing backlog.
const BACKLOG_GROWTH_MIN: f64 = 1.5;

/// Most trials of a search.
const TRIALS_MAX: usize = 200;

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
    let good = find_rate(search, &mut |rate, is_repeat| trials.attempt(rate, is_repeat))?;
    Ok(Saturation { rate: good.rate, trials: trials.ended, run: good.run })
}

/// A rate that met the objective, and the last trial that did.
struct Good<R> {
    rate: f64,
    run: R,
}

/// Makes a trial of a rate; the second argument says whether the rate was tried before.
type Attempt<'a, R> = dyn FnMut(f64, bool) -> Result<(TrialEnd, R), LoadError> + 'a;

/// Searches for the highest rate that is good.
fn find_rate<R>(search: &Search, attempt: &mut Attempt<'_, R>) -> Result<Good<R>, LoadError> {
    let rate = search.rate_from;
    let (TrialEnd::Passed, run) = judge_rate(rate, attempt)? else {
        return Err(LoadError::MissedAtStart { rate });
    };
    let mut good = Good { rate, run };
    let mut bad = double(search, &mut good, attempt)?;
    loop {
        bisect(search, &mut good, &mut bad, attempt)?;
        if repeats_pass(&mut good, attempt)? {
            return Ok(good);
        }
        // The rate passed by luck. What is below is searched again.
        bad = good.rate;
        good = find_below(search, bad, attempt)?;
    }
}

/// Doubles the rate until it is bad. Returns the first bad rate.
fn double<R>(
    search: &Search,
    good: &mut Good<R>,
    attempt: &mut Attempt<'_, R>,
) -> Result<f64, LoadError> {
    while good.rate < search.rate_max {
        let rate = (good.rate * 2.0).min(search.rate_max);
        match judge_rate(rate, attempt)? {
            (TrialEnd::Passed, run) => *good = Good { rate, run },
            (TrialEnd::Missed | TrialEnd::GrowingBacklog, _) => return Ok(rate),
        }
    }
    Err(LoadError::NeverSaturated { rate: good.rate })
}

fn bisect<R>(
    search: &Search,
    good: &mut Good<R>,
    bad: &mut f64,
    attempt: &mut Attempt<'_, R>,
) -> Result<(), LoadError> {
    while *bad - good.rate > good.rate * search.precision {
        let rate = f64::midpoint(good.rate, *bad);
        match judge_rate(rate, attempt)? {
            (TrialEnd::Passed, run) => *good = Good { rate, run },
            (TrialEnd::Missed | TrialEnd::GrowingBacklog, _) => *bad = rate,
        }
    }
    Ok(())
}

/// Goes down from a bad rate in steps of the precision, each twice as long as the one before, until
/// a rate is good.
fn find_below<R>(
    search: &Search,
    bad: f64,
    attempt: &mut Attempt<'_, R>,
) -> Result<Good<R>, LoadError> {
    let (mut rate, mut steps) = (bad, 1);
    while rate > search.rate_from {
        rate = (rate / (1.0 + search.precision).powi(steps)).max(search.rate_from);
        if let (TrialEnd::Passed, run) = judge_rate(rate, attempt)? {
            return Ok(Good { rate, run });
        }
        steps *= 2;
    }
    Err(LoadError::MissedAtStart { rate: search.rate_from })
}

/// Makes up to three trials of a rate: it is good if the first passes, or two of the three.
fn judge_rate<R>(rate: f64, attempt: &mut Attempt<'_, R>) -> Result<(TrialEnd, R), LoadError> {
    let first = attempt(rate, false)?;
    if first.0 == TrialEnd::Passed {
        return Ok(first);
    }
    let second = attempt(rate, true)?;
    if second.0 != TrialEnd::Passed {
        return Ok(second);
    }
    attempt(rate, true)
}

fn repeats_pass<R>(good: &mut Good<R>, attempt: &mut Attempt<'_, R>) -> Result<bool, LoadError> {
    let mut passed = 0;
    for _ in 0..REPEATS {
        if let (TrialEnd::Passed, run) = attempt(good.rate, true)? {
            passed += 1;
            good.run = run;
        }
    }
    Ok(passed * 2 > REPEATS)
}

/// Makes and judges the trials of a search.
struct Trials<'a> {
    plan: &'a Plan,
    search: &'a Search,
    observe: &'a mut dyn FnMut(usize, f64, &Progress<'_>),
    report: &'a mut dyn FnMut(&Trial),
    ended: Vec<Trial>,
}

impl Trials<'_> {
    /// Makes a trial, again if the generator was late.
    fn attempt(&mut self, rate: f64, is_repeat: bool) -> Result<(TrialEnd, RunResult), LoadError> {
        if self.ended.len() >= TRIALS_MAX {
            return Err(LoadError::TooManyTrials { trials: TRIALS_MAX, rate });
        }
        let mut retries = 0;
        loop {
            let result = self.run_trial(rate)?;
            let objective = self.search.objective.measure(&result);
            let end = self.judge(&result, &objective);
            if retries < INVALID_RETRIES && self.is_doubtful(end, &result) {
                retries += 1;
                continue;
            }
            if end != TrialEnd::Passed && self.is_doubtful(end, &result) {
                return Err(LoadError::GeneratorLate { rate, reason: result.problems.join("; ") });
            }
            let trial = Trial {
                rate,
                achieved: result.in_time.answered() as f64 / result.sent_for.as_secs_f64(),
                objective,
                end,
                p99_ms: result.total.all().latency_ms(0.99),
                is_repeat,
            };
            (self.report)(&trial);
            self.ended.push(trial);
            return Ok((end, result));
        }
    }

    fn run_trial(&mut self, rate: f64) -> Result<RunResult, LoadError> {
        let schedule = Schedule::constant(rate, self.search.trial_duration);
        let calls = schedule.calls();
        let mut plan = self.plan.clone();
        // Trials of one rate differ in what is left to chance.
        plan.seed = plan.seed.wrapping_add(self.ended.len() as u64);
        if let Traffic::Open { schedule: of_trial, .. } = &mut plan.traffic {
            *of_trial = schedule;
        }
        let (number, objective) = (self.ended.len() + 1, &self.search.objective);
        run(&plan, &mut |progress| {
            (self.observe)(number, rate, progress);
            if objective.are_lost(progress.total, calls) { Flow::Stop } else { Flow::Continue }
        })
    }

    /// Returns whether the generator was late, and a timely one may have seen another end. A late
    /// pass is made again, since a server may like the calls of a late generator: they come in
    /// batches.
    fn is_doubtful(&self, end: TrialEnd, result: &RunResult) -> bool {
        let lags = result.total.kinds().filter_map(|(_, kind)| quantile_ms(&kind.lag, 0.99));
        let lag_ms = lags.fold(0.0, f64::max);
        let is_clear_miss =
            end == TrialEnd::Missed && self.search.objective.are_missed_beyond(lag_ms, result);
        !result.problems.is_empty() && !is_clear_miss
    }

    fn judge(&self, result: &RunResult, objective: &[Measured]) -> TrialEnd {
        if objective.iter().any(|measured| !measured.holds) {
            return TrialEnd::Missed;
        }
        let sending = self.search.trial_duration + Duration::from_millis(500);
        let windows: Vec<&Window> =
            result.windows.iter().filter(|window| window.ended <= sending).collect();
        // A session lasts longer than a window, so its answers are those of other sessions.
        let has_sessions = self.plan.mix.kinds().any(|kind| kind == CallKind::Session);
        if is_backlog_growing(&windows) || (!has_sessions && falls_behind(&windows)) {
            return TrialEnd::GrowingBacklog;
        }
        TrialEnd::Passed
    }
}

/// Returns whether fewer calls were answered than were sent, in the last two thirds of a trial:
/// before, the first answers are still to come.
fn falls_behind(windows: &[&Window]) -> bool {
    let steady = &windows[windows.len() / 3..];
    let sum = |of: fn(&Window) -> u64| steady.iter().map(|window| of(window)).sum::<u64>() as f64;
    let (offered, ended) = (sum(|w| w.offered), sum(|w| w.answered + w.failed));
    // One call may be sent in the last window and answered in the next one.
    ended + 2.0 < offered * ACHIEVED_MIN
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
        let medians = windows.iter().filter_map(|window| window.p50_ms);
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
        Window::new(Duration::from_secs(1), &record, in_flight)
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

    #[test]
    fn answers_that_come_late_all_the_time_do_not_fall_behind() {
        let window = |offered, answered| {
            let mut window = window(0, 1);
            (window.offered, window.answered, window.failed) = (offered, answered, 0);
            window
        };
        let windows = |answered: [u64; 6]| answered.map(|answered| window(100, answered));
        // A latency of 0.7 s: the first second has few answers.
        let steady = windows([30, 100, 100, 100, 100, 100]);
        assert!(!falls_behind(&steady.iter().collect::<Vec<_>>()));
        let behind = windows([90; 6]);
        assert!(falls_behind(&behind.iter().collect::<Vec<_>>()));
    }

    fn search(rate_from: f64, rate_max: f64, precision: f64) -> Search {
        Search {
            objective: "p99<1s".parse().unwrap(),
            rate_from,
            rate_max,
            trial_duration: Duration::from_secs(1),
            precision,
        }
    }

    /// Searches on a server that sustains `capacity`, and calls `disturb` with the number of the
    /// trial, which may turn its end.
    fn found(search: &Search, capacity: f64, disturb: fn(usize, bool) -> bool) -> (f64, usize) {
        let mut trials = 0;
        let good = find_rate(search, &mut |rate, _| {
            trials += 1;
            let is_good = disturb(trials, rate <= capacity);
            Ok((if is_good { TrialEnd::Passed } else { TrialEnd::Missed }, ()))
        });
        (good.unwrap().rate, trials)
    }

    #[test]
    fn the_found_rate_is_the_capacity_to_the_precision() {
        for capacity in [10.0, 13.7, 99.0, 12_345.0] {
            for precision in [0.01, 0.1, 0.5] {
                let (rate, _) = found(&search(5.0, 1e5, precision), capacity, |_, good| good);
                let is_close = rate <= capacity && capacity < rate * (1.0 + precision);
                assert!(is_close, "{rate} of {capacity} at {precision}");
            }
        }
    }

    #[test]
    fn a_pause_of_the_machine_does_not_decide() {
        // Every fifth trial misses.
        let (rate, _) = found(&search(8.0, 1e5, 0.01), 20.0, |trial, good| good && trial % 5 != 0);
        assert!((19.8..=20.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_rate_that_passed_by_luck_is_not_found() {
        // The first trial above the capacity passes.
        let (rate, _) = found(&search(8.0, 1e5, 0.01), 20.0, |trial, good| good || trial == 3);
        assert!((19.8..=20.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_search_says_that_it_started_too_high_or_ended_too_early() {
        let always = |end| move |_: f64, _: bool| Ok((end, ()));
        let error = find_rate(&search(8.0, 64.0, 0.01), &mut always(TrialEnd::Missed)).err();
        assert!(matches!(error, Some(LoadError::MissedAtStart { rate: 8.0 })));
        let error = find_rate(&search(8.0, 50.0, 0.01), &mut always(TrialEnd::Passed)).err();
        assert!(matches!(error, Some(LoadError::NeverSaturated { rate: 50.0 })));
    }
}
