//! When calls are due: a schedule of rates, or recorded times. Known before the run, so that no
//! answer of the server can delay a call.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::Exp1;

/// A part of a schedule in which the rate changes linearly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// Length of the part, above zero.
    pub duration: Duration,
    /// Rate at the start, in calls a second.
    pub from: f64,
    /// Rate at the end, in calls a second.
    pub to: f64,
}

impl Segment {
    /// Returns the expected number of calls.
    fn calls(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.duration.as_secs_f64()
    }

    /// Returns the time in seconds at which `calls` calls are expected since the start.
    fn time_of(&self, calls: f64) -> f64 {
        // The root of from·t + (to − from)·t²/(2·duration) = calls, in the form that is exact for a
        // constant rate too.
        let slope = (self.to - self.from) / self.duration.as_secs_f64();
        let square = (self.from * self.from + 2.0 * slope * calls).max(0.0);
        let divisor = self.from + square.sqrt();
        if divisor > 0.0 { 2.0 * calls / divisor } else { 0.0 }
    }
}

/// The expected times of the calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Rates, one part after the other.
    Rates(Vec<Segment>),
    /// Recorded times since the start, ascending.
    Trace(Vec<Duration>),
}

impl Schedule {
    /// Returns a constant rate, in calls a second.
    pub fn constant(rate: f64, duration: Duration) -> Self {
        Self::Rates(vec![Segment { duration, from: rate, to: rate }])
    }

    /// Returns a rate that changes linearly over the whole duration.
    pub fn ramp(from: f64, to: f64, duration: Duration) -> Self {
        Self::Rates(vec![Segment { duration, from, to }])
    }

    /// Returns a rate that changes by `step` every `step_duration` until it is `end`, and stays
    /// there.
    pub fn steps(start: f64, step: f64, end: f64, step_duration: Duration, all: Duration) -> Self {
        let mut segments = Vec::new();
        let mut left = all;
        let mut rate = start;
        while !left.is_zero() {
            let is_last = rate == end || step == 0.0;
            let duration = if is_last { left } else { step_duration.min(left) };
            segments.push(Segment { duration, from: rate, to: rate });
            left = left.saturating_sub(duration);
            rate = if step > 0.0 { (rate + step).min(end) } else { (rate + step).max(end) };
        }
        Self::Rates(segments)
    }

    /// Returns the time from the start to the end of the last part or the last recorded call.
    pub fn duration(&self) -> Duration {
        match self {
            Self::Rates(segments) => segments.iter().map(|segment| segment.duration).sum(),
            Self::Trace(times) => times.last().copied().unwrap_or_default(),
        }
    }

    /// Returns the schedule up to its expected time of `calls` calls.
    pub fn first_calls(self, calls: u64) -> Self {
        match self {
            Self::Rates(segments) => Self::Rates(first_calls(segments, calls as f64)),
            Self::Trace(mut times) => {
                times.truncate(usize::try_from(calls).unwrap_or(usize::MAX));
                Self::Trace(times)
            }
        }
    }

    /// Returns the expected number of calls.
    pub fn calls(&self) -> f64 {
        match self {
            Self::Rates(segments) => segments.iter().map(Segment::calls).sum(),
            Self::Trace(times) => times.len() as f64,
        }
    }

    /// Returns the highest rate, in calls a second; for a trace its mean rate.
    pub fn rate_max(&self) -> f64 {
        match self {
            Self::Rates(segments) => {
                segments.iter().map(|segment| segment.from.max(segment.to)).fold(0.0, f64::max)
            }
            Self::Trace(times) => times.len() as f64 / self.duration().as_secs_f64().max(1e-9),
        }
    }
}

fn first_calls(segments: Vec<Segment>, mut calls: f64) -> Vec<Segment> {
    let mut first = Vec::new();
    for segment in segments {
        if segment.calls() < calls {
            calls -= segment.calls();
            first.push(segment);
            continue;
        }
        let seconds = segment.time_of(calls);
        let slope = (segment.to - segment.from) / segment.duration.as_secs_f64();
        let (duration, to) = (Duration::from_secs_f64(seconds), segment.from + slope * seconds);
        first.push(Segment { duration, to, ..segment });
        break;
    }
    first
}

/// The distances between calls of a schedule of rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Even distances.
    Constant,
    /// A Poisson process: the arrivals of many callers that do not know of each other.
    Poisson,
}

/// The times of the calls since the start, ascending.
#[derive(Debug)]
pub(super) struct Arrivals {
    schedule: Schedule,
    spacing: Spacing,
    random: SmallRng,
    /// Number of the part, or of the recorded time.
    index: usize,
    /// Start of the part, in seconds.
    started: f64,
    /// Expected calls from the start of the part to the next call.
    calls: f64,
}

impl Arrivals {
    /// Creates the arrivals of a schedule. `random` is used by [`Spacing::Poisson`] only.
    pub(super) fn new(schedule: Schedule, spacing: Spacing, mut random: SmallRng) -> Self {
        let calls = match spacing {
            Spacing::Constant => 0.0,
            Spacing::Poisson => random.sample(Exp1),
        };
        Self { schedule, spacing, random, index: 0, started: 0.0, calls }
    }

    fn next_of_rates(&mut self) -> Option<Duration> {
        let Schedule::Rates(segments) = &self.schedule else { return None };
        while let Some(segment) = segments.get(self.index) {
            // A sum of rounded numbers may miss the end of the part by a hair.
            if self.calls < segment.calls() * (1.0 - 1e-12) {
                let at = self.started + segment.time_of(self.calls);
                self.calls += match self.spacing {
                    Spacing::Constant => 1.0,
                    Spacing::Poisson => self.random.sample::<f64, _>(Exp1),
                };
                return Some(Duration::from_secs_f64(at));
            }
            self.calls = (self.calls - segment.calls()).max(0.0);
            self.started += segment.duration.as_secs_f64();
            self.index += 1;
        }
        None
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let Schedule::Trace(times) = &self.schedule else { return self.next_of_rates() };
        let time = times.get(self.index).copied();
        self.index += 1;
        time
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn times(schedule: Schedule, spacing: Spacing) -> Vec<f64> {
        let random = SmallRng::seed_from_u64(7);
        Arrivals::new(schedule, spacing, random).map(|time| time.as_secs_f64()).collect()
    }

    fn between(times: &[f64], from: f64, to: f64) -> usize {
        times.iter().filter(|time| (from..to).contains(*time)).count()
    }

    const SECONDS_20: Duration = Duration::from_secs(20);

    #[test]
    fn a_constant_rate_has_even_distances() {
        let times = times(Schedule::constant(200.0, SECONDS_20), Spacing::Constant);
        assert_eq!(times.len(), 4_000);
        for (index, time) in times.iter().enumerate() {
            assert!((time - index as f64 / 200.0).abs() < 1e-8, "{index}: {time}");
        }
    }

    /// The number of arrivals has the mean 4,000 and the standard deviation 63; distances have
    /// their mean as their standard deviation.
    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let times = times(Schedule::constant(200.0, SECONDS_20), Spacing::Poisson);
        assert!((3_750..4_250).contains(&times.len()), "{}", times.len());
        let distances: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let squares = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>();
        let deviation = (squares / distances.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.1, "{deviation} {mean}");
        assert!(times.is_sorted());
    }

    #[test]
    fn a_ramp_has_as_many_calls_in_each_part_as_its_rate_says() {
        for (from, to) in [(0.0, 100.0), (100.0, 0.0), (10.0, 90.0)] {
            let times = times(Schedule::ramp(from, to, SECONDS_20), Spacing::Constant);
            assert_eq!(times.len(), 1_000, "{from} to {to}");
            let middle = f64::midpoint(from, f64::midpoint(from, to)) * 10.0;
            let first_half = between(&times, 0.0, 10.0) as f64;
            assert!((first_half - middle).abs() <= 1.0, "{from} to {to}: {first_half}");
            assert!(times.is_sorted());
        }
    }

    #[test]
    fn steps_end_at_their_last_rate_and_fill_the_duration() {
        let second = Duration::from_secs(1);
        let up = Schedule::steps(10.0, 20.0, 45.0, second, 5 * second);
        let ups = times(up.clone(), Spacing::Constant);
        let counts: Vec<usize> =
            (0..5).map(|at| between(&ups, f64::from(at), f64::from(at) + 1.0)).collect();
        assert_eq!(counts, [10, 30, 45, 45, 45]);
        assert_eq!((up.duration(), up.rate_max()), (5 * second, 45.0));
        let down = Schedule::steps(30.0, -20.0, 5.0, second, 3 * second);
        assert_eq!(times(down, Spacing::Constant).len(), 30 + 10 + 5);
    }

    #[test]
    fn the_first_calls_of_a_schedule_end_with_the_last_of_them() {
        let second = Duration::from_secs(1);
        let steps = Schedule::steps(10.0, 20.0, 50.0, second, 5 * second);
        for schedule in [steps, Schedule::ramp(0.0, 100.0, 2 * second)] {
            let all = times(schedule.clone(), Spacing::Constant);
            for calls in [1, 10, 11, 40, 100] {
                let first = times(schedule.clone().first_calls(calls), Spacing::Constant);
                assert_eq!(first.len() as u64, calls);
                assert!(first.iter().zip(&all).all(|(one, other)| (one - other).abs() < 1e-6));
            }
        }
        let trace = Schedule::Trace(vec![second, 2 * second]);
        assert_eq!(trace.first_calls(1), Schedule::Trace(vec![second]));
    }

    #[test]
    fn a_trace_is_replayed_as_it_is() {
        let trace = [0.0, 0.5, 0.5, 3.25].map(Duration::from_secs_f64).to_vec();
        let schedule = Schedule::Trace(trace);
        assert_eq!(schedule.duration(), Duration::from_secs_f64(3.25));
        assert_eq!(times(schedule, Spacing::Poisson), [0.0, 0.5, 0.5, 3.25]);
    }
}
