//! The plan of a run: what is sent, when, and how.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::LoadError;
use super::arrivals::{Schedule, Segment, Spacing};
use super::calls::{CallKind, Mix};
use super::film::Film;
use super::pictures::Pictures;
use super::requests::Stores;

/// When calls are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Traffic {
    /// At the times of a schedule, whatever the server does.
    Open {
        /// The rates, or the recorded times.
        schedule: Schedule,
        /// The distances between calls of a schedule of rates.
        spacing: Spacing,
    },
    /// By callers that each wait for an answer before they send the next call.
    Closed {
        /// Number of callers.
        concurrency: usize,
        /// How long they send.
        duration: Duration,
        /// Most calls that they send, warming up included.
        calls_max: Option<u64>,
    },
}

impl Traffic {
    /// Returns how long calls are sent.
    pub fn duration(&self) -> Duration {
        match self {
            Self::Open { schedule, .. } => schedule.duration(),
            Self::Closed { duration, .. } => *duration,
        }
    }

    /// Returns the expected number of calls; `None` for a closed loop, whose answers decide it.
    pub fn calls(&self) -> Option<f64> {
        match self {
            Self::Open { schedule, .. } => Some(schedule.calls()),
            Self::Closed { .. } => None,
        }
    }
}

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Address of the server's gRPC listener.
    pub server: String,
    /// Address of its HTTP listener, whose metrics are read before and after the run.
    pub metrics: Option<String>,
    /// What is sent.
    pub mix: Mix,
    /// When it is sent.
    pub traffic: Traffic,
    /// Time before the traffic in which calls are sent at its first rate and not recorded.
    pub warm_up: Duration,
    /// Deadline of a unary call, from its intended time.
    pub timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Number of connections, at least 1.
    pub connections: usize,
    /// Number of worker threads, from 1 to the number of connections.
    pub threads: usize,
    /// Number of source addresses of the connections, from 127.0.1.1 on; 0 leaves the choice to
    /// the kernel.
    pub source_addresses: u8,
    /// The shops.
    pub stores: Stores,
    /// The pictures of unary calls.
    pub pictures: Pictures,
    /// What the camera of sessions sees; required if the mix has sessions.
    pub film: Option<Arc<Film>>,
    /// Metadata of every call.
    pub metadata: MetadataMap,
    /// Most bytes of all calls in flight. Calls beyond fail without being sent.
    pub in_flight_bytes_max: u64,
    /// Fixes all random choices.
    pub seed: u64,
}

impl Plan {
    /// Checks the ranges that the types leave open.
    ///
    /// # Errors
    /// The first value out of range.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let range = |is_ok: bool, name, value: String, range| {
            if is_ok { Ok(()) } else { Err(LoadError::Range { name, value, range }) }
        };
        let duration = self.traffic.duration();
        range(
            duration > Duration::ZERO && duration <= DURATION_MAX,
            "duration",
            format!("{duration:?}"),
            "above 0 and at most 7 days",
        )?;
        range(
            self.warm_up <= DURATION_MAX,
            "warm-up",
            format!("{:?}", self.warm_up),
            "at most 7 days",
        )?;
        range(
            self.timeout > Duration::ZERO && self.timeout <= DURATION_MAX,
            "timeout",
            format!("{:?}", self.timeout),
            "above 0 and at most 7 days",
        )?;
        range(
            (1..=CONNECTIONS_MAX).contains(&self.connections),
            "connections",
            self.connections.to_string(),
            "from 1 to 10000",
        )?;
        range(
            (1..=self.connections).contains(&self.threads),
            "client-threads",
            self.threads.to_string(),
            "at least 1, and at most the number of connections",
        )?;
        range(
            (1..=STORES_MAX).contains(&self.stores.count),
            "stores",
            self.stores.count.to_string(),
            "from 1 to 1000000",
        )?;
        let skew = self.stores.skew;
        let is_skew = (0.0..=10.0).contains(&skew);
        range(is_skew, "store-skew", skew.to_string(), "from 0 to 10")?;
        self.check_traffic()
    }

    fn check_traffic(&self) -> Result<(), LoadError> {
        match &self.traffic {
            Traffic::Closed { concurrency, .. } if !(1..=CONCURRENCY_MAX).contains(concurrency) => {
                Err(LoadError::Range {
                    name: "concurrency",
                    value: concurrency.to_string(),
                    range: "from 1 to 100000",
                })
            }
            Traffic::Open { schedule: Schedule::Rates(segments), .. } => {
                let is_rate = |rate: f64| (0.0..=RATE_MAX).contains(&rate);
                let is_ok = |segment: &Segment| is_rate(segment.from) && is_rate(segment.to);
                let has_calls = segments.iter().any(|segment| segment.from + segment.to > 0.0);
                let wrong = segments.iter().find(|segment| !is_ok(segment));
                match wrong.or(segments.first().filter(|_| !has_calls)) {
                    None => Ok(()),
                    Some(segment) => Err(LoadError::Range {
                        name: "rate",
                        value: format!("{} to {}", segment.from, segment.to),
                        range: "above 0 and at most 1000000 calls a second",
                    }),
                }
            }
            Traffic::Closed { .. } | Traffic::Open { .. } => Ok(()),
        }
    }

    /// Returns the schedule with the time of warming up before it. A closed loop has none.
    pub(super) fn schedule_with_warm_up(&self) -> (Schedule, Spacing) {
        match &self.traffic {
            Traffic::Open { schedule: Schedule::Rates(segments), spacing }
                if !self.warm_up.is_zero() =>
            {
                let rate = segments.first().map_or(0.0, |first| first.from);
                let warm_up = Segment { duration: self.warm_up, from: rate, to: rate };
                (Schedule::Rates([&[warm_up], &segments[..]].concat()), *spacing)
            }
            Traffic::Open { schedule, spacing } => (schedule.clone(), *spacing),
            Traffic::Closed { .. } => (Schedule::Trace(Vec::new()), Spacing::Constant),
        }
    }

    /// Returns the time of warming up: none before a trace, whose times are those of calls.
    pub fn warm_up(&self) -> Duration {
        match self.traffic {
            Traffic::Open { schedule: Schedule::Trace(_), .. } => Duration::ZERO,
            Traffic::Open { .. } | Traffic::Closed { .. } => self.warm_up,
        }
    }

    /// Returns whether the mix has liveness sessions.
    pub fn has_sessions(&self) -> bool {
        self.mix.kinds().any(|kind| kind == CallKind::Session)
    }
}

const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const CONNECTIONS_MAX: usize = 10_000;
const CONCURRENCY_MAX: usize = 100_000;
const STORES_MAX: u32 = 1_000_000;
const RATE_MAX: f64 = 1e6;

/// Reads a trace: one line for each call with the seconds since the start, ascending. Empty lines
/// and those that start with `#` are left out.
///
/// # Errors
/// The file cannot be read; a line is no number, or is below the line before.
pub fn read_trace(path: &Path) -> Result<Schedule, LoadError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let mut times = Vec::new();
    let mut last = 0.0;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let time = line.parse().ok().filter(|time| (last..1e6).contains(time));
        let line = index + 1;
        last = time.ok_or_else(|| LoadError::Trace { path: path.to_owned(), line })?;
        times.push(Duration::from_secs_f64(last));
    }
    Ok(Schedule::Trace(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_and_a_wrong_line_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_trace(&path)
        };
        let times = [0.25, 0.25, 1.0].map(Duration::from_secs_f64).to_vec();
        assert_eq!(read("# seconds\n0.25\n0.25\n\n1\n").unwrap(), Schedule::Trace(times));
        for (text, line) in [("0\nx\n", 2), ("1\n0.5\n", 2), ("-1\n", 1), ("NaN\n", 1)] {
            let error = read(text).expect_err(text);
            assert!(matches!(error, LoadError::Trace { line: wrong, .. } if wrong == line));
        }
    }
}
