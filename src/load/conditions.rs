//! Conditions on a run, such as `p99<150ms,error<0.1%`: service level objectives and thresholds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::LoadError;
use super::calls::CallKind;
use super::recorder::{KindRecord, Record, quantile_ms};
use super::run::RunResult;

/// What a condition is on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    /// A quantile of the latency of answered calls, in 0..=1.
    Quantile(f64),
    /// Their mean latency.
    Mean,
    /// The share of calls without an answer.
    Error,
    /// Answered calls a second.
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: String,
    /// `None`: all calls.
    kind: Option<CallKind>,
    quantity: Quantity,
    comparison: Comparison,
    /// Milliseconds, a share, or calls a second.
    limit: f64,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions(Vec<Condition>);

/// A condition with what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The condition, as it was given.
    pub condition: String,
    /// The measured value in the unit of the condition; `None` without an answered call.
    pub value: Option<f64>,
    /// Whether the condition holds. Without a value it does not.
    pub holds: bool,
}

impl Condition {
    fn measure(&self, result: &RunResult) -> Measured {
        let calls = self.record(&result.total);
        let value = match self.quantity {
            Quantity::Quantile(quantile) => quantile_of_all_ms(&calls, quantile),
            Quantity::Mean => {
                let mean = calls.latency.mean() / 1e6;
                (!calls.latency.is_empty()).then_some(mean)
            }
            Quantity::Error => {
                let all = calls.answered() + calls.failed();
                (all > 0).then(|| calls.failed() as f64 / all as f64)
            }
            Quantity::Rate => {
                let answered = self.record(&result.in_time).answered() as f64;
                Some(answered / result.sent_for.as_secs_f64())
            }
        };
        let holds = value.is_some_and(|value| match self.comparison {
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
        });
        Measured { condition: self.text.clone(), value: value.map(|v| self.shown(v)), holds }
    }

    /// Returns a value in the unit of the condition: per cent for shares.
    fn shown(&self, value: f64) -> f64 {
        if self.quantity == Quantity::Error { value * 100.0 } else { value }
    }

    fn record(&self, record: &Record) -> KindRecord {
        match self.kind {
            Some(kind) => record.kind(kind).cloned().unwrap_or_default(),
            None => record.all(),
        }
    }

    /// Returns whether the condition cannot hold any more, of `calls` calls that are planned.
    fn is_lost(&self, record: &Record, calls: f64) -> bool {
        if matches!(self.comparison, Comparison::Above | Comparison::AtLeast) {
            return false;
        }
        match self.quantity {
            Quantity::Quantile(quantile) => {
                let latency = self.record(record).latency;
                let limit = (self.limit * 1e6) as u64;
                let within = latency.count_between(0, limit);
                let beyond = latency.len() - within + self.record(record).failed();
                beyond as f64 > (1.0 - quantile) * calls + 1.0
            }
            Quantity::Error => self.record(record).failed() as f64 > self.limit * calls + 1.0,
            Quantity::Mean | Quantity::Rate => false,
        }
    }
}

/// Returns a quantile of the latency of all calls, in milliseconds. A failed call was never
/// answered, so its latency is infinite; `None` if that is the quantile's.
fn quantile_of_all_ms(calls: &KindRecord, quantile: f64) -> Option<f64> {
    let (answered, failed) = (calls.latency.len() as f64, calls.failed() as f64);
    let rank = quantile * (answered + failed);
    (rank <= answered).then(|| quantile_ms(&calls.latency, rank / answered)).flatten()
}

impl Conditions {
    /// Measures every condition.
    pub fn measure(&self, result: &RunResult) -> Vec<Measured> {
        self.0.iter().map(|condition| condition.measure(result)).collect()
    }

    /// Returns whether one condition cannot hold any more, of `calls` calls that are planned. A
    /// condition on one kind of call is lost late, since the share of its kind is not known.
    pub(super) fn are_lost(&self, record: &Record, calls: f64) -> bool {
        self.0.iter().any(|condition| condition.is_lost(record, calls))
    }

    /// Returns whether a condition is missed by more than `lag_ms`, so that a generator without lag
    /// would have missed it too.
    pub(super) fn are_missed_beyond(&self, lag_ms: f64, result: &RunResult) -> bool {
        self.0.iter().any(|condition| {
            let is_latency = matches!(condition.quantity, Quantity::Quantile(_) | Quantity::Mean);
            let measured = condition.measure(result);
            let without_lag = measured.value.is_none_or(|value| value - lag_ms > condition.limit);
            !measured.holds && (!is_latency || without_lag)
        })
    }

    /// Returns the latency limit of the first condition on a quantile of all calls, in
    /// milliseconds.
    pub(super) fn latency_ms(&self) -> Option<f64> {
        let on_latency = |condition: &&Condition| {
            matches!(condition.quantity, Quantity::Quantile(_)) && condition.kind.is_none()
        };
        self.0.iter().find(on_latency).map(|condition| condition.limit)
    }

    /// Checks that every condition is on a call of the mix.
    ///
    /// # Errors
    /// The first condition that is not.
    pub fn check_kinds(&self, kinds: &[CallKind]) -> Result<(), LoadError> {
        for Condition { text, kind, .. } in &self.0 {
            if kind.is_some_and(|kind| !kinds.contains(&kind)) {
                return Err(LoadError::ConditionKind { condition: text.clone() });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|condition| &*condition.text).collect();
        f.write_str(&texts.join(","))
    }
}

impl FromStr for Conditions {
    type Err = LoadError;

    /// Reads conditions such as `p99<150ms,error<0.1%,verify.p50<=50ms,rate>=100`.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Condition {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let refused = || LoadError::Condition { condition: text.to_owned() };
        let at = text.find(['<', '>']).ok_or_else(refused)?;
        let (subject, rest) = text.split_at(at);
        let (comparison, limit) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Comparison::AtMost, &rest[2..]),
            [b'>', b'=', ..] => (Comparison::AtLeast, &rest[2..]),
            [b'<', ..] => (Comparison::Below, &rest[1..]),
            _ => (Comparison::Above, &rest[1..]),
        };
        let (kind, quantity) = match subject.trim().split_once('.') {
            // The point of p99.9 separates no kind.
            Some((kind, quantity)) if !kind.starts_with('p') => (Some(kind.parse()?), quantity),
            _ => (None, subject.trim()),
        };
        let quantity = read_quantity(quantity).ok_or_else(refused)?;
        let limit = read_limit(quantity, limit.trim()).ok_or_else(refused)?;
        let text = text.to_owned();
        Ok(Self { text, kind, quantity, comparison, limit })
    }
}

/// Reads `p50`, `p99.9`, `p999`, `max`, `mean`, `error` or `rate`.
fn read_quantity(text: &str) -> Option<Quantity> {
    match text {
        "max" | "p100" => return Some(Quantity::Quantile(1.0)),
        "mean" => return Some(Quantity::Mean),
        "error" => return Some(Quantity::Error),
        "rate" => return Some(Quantity::Rate),
        _ => {}
    }
    let digits = text.strip_prefix('p')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // p999 is p99.9, as it is usually written.
    let percent = match digits.split_at_checked(2) {
        Some((whole, tenths)) if !digits.contains('.') && !tenths.is_empty() => {
            format!("{whole}.{tenths}").parse::<f64>().ok()?
        }
        _ => digits.parse::<f64>().ok()?,
    };
    let is_percentile = is_number && percent > 0.0 && percent < 100.0;
    is_percentile.then_some(Quantity::Quantile(percent / 100.0))
}

fn read_limit(quantity: Quantity, text: &str) -> Option<f64> {
    let limit = match quantity {
        Quantity::Quantile(_) | Quantity::Mean => parse_duration(text).ok()?.as_secs_f64() * 1000.0,
        Quantity::Error => match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
            // Without the sign it is a share, and 1 would be every call.
            None => text.parse::<f64>().ok().filter(|share| *share < 1.0)?,
        },
        Quantity::Rate => text.trim_end_matches("/s").parse().ok()?,
    };
    (limit.is_finite() && limit >= 0.0).then_some(limit)
}

/// Reads a duration such as `150ms`, `1.5s`, `2m` or `1h30m`, as other load generators do.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("'{text}' is no duration such as 150ms, 1.5s, 2m or 1h30m");
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let unit_at = rest.find(|c| !is_number(c)).ok_or_else(refused)?;
        let number: f64 = rest[..unit_at].parse().map_err(|_| refused())?;
        rest = &rest[unit_at..];
        let unit = &rest[..rest.find(is_number).unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        seconds += number
            * match unit {
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(refused()),
            };
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::calls::Outcome;
    use super::super::recorder::CallTimes;
    use super::*;

    /// Returns a record of Verify calls with these latencies, and some failed calls.
    fn record(latencies_ms: impl IntoIterator<Item = u64>, failed: usize) -> Record {
        let mut record = Record::default();
        let intended = Instant::now();
        let mut add = |outcome, ms| {
            let ended = intended + Duration::from_millis(ms);
            let times = CallTimes { sent: intended, from: intended, ended };
            record.add(CallKind::Verify, outcome, &times);
        };
        latencies_ms.into_iter().for_each(|ms| add(Outcome::Answered, ms));
        (0..failed).for_each(|_| add(Outcome::Status(tonic::Code::Unavailable), 1));
        record
    }

    fn result(total: Record) -> RunResult {
        let in_time = total.clone();
        RunResult { sent_for: Duration::from_secs(10), in_time, ..RunResult::of(total) }
    }

    fn holds(conditions: &str, total: Record) -> Vec<bool> {
        let conditions: Conditions = conditions.parse().unwrap();
        conditions.measure(&result(total)).iter().map(|measured| measured.holds).collect()
    }

    #[test]
    fn conditions_are_measured_in_their_units() {
        let record = || record(1..=99, 1);
        let all = "p50<51ms,p50<50ms,p98<100ms,max<=99.1ms,mean<0.051s,error<1%,error<=1%,\
                   rate>=9.9,rate>10,verify.p90<1s,detect.p90<1s";
        let want = [true, false, true, false, true, false, true, true, false, true, false];
        assert_eq!(holds(all, record()), want);
        let measured = "error<2%".parse::<Conditions>().unwrap().measure(&result(record()));
        assert_eq!(measured[0].value, Some(1.0));
    }

    #[test]
    fn a_failed_call_is_slower_than_every_answered_one() {
        assert_eq!(holds("p90<101ms,p91<1h", record([100; 90], 10)), [true, false]);
        assert_eq!(holds("p50<1h", record([], 3)), [false]);
    }

    #[test]
    fn percentiles_are_read_with_and_without_a_point() {
        for (text, want) in
            [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("p99.99", 0.9999), ("p9999", 0.9999)]
        {
            let Some(Quantity::Quantile(quantile)) = read_quantity(text) else { panic!("{text}") };
            assert!((quantile - want).abs() < 1e-12, "{text}: {quantile}");
        }
        assert!(["p", "p0", "p100.0", "pp", "p9x", "median"].map(read_quantity) == [None; 6]);
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_named() {
        for text in
            ["p99", "p99<", "p99<150", "error<x%", "error<1", "p99=1ms", "rate>-1", "p99<1ms,"]
        {
            let error = text.parse::<Conditions>().expect_err(text).to_string();
            assert!(error.contains("is no condition"), "{text}: {error}");
        }
        let error = "verfy.p99<1ms".parse::<Conditions>().unwrap_err().to_string();
        assert!(error.contains("verfy"), "{error}");
    }

    /// Of 1,000 planned calls, 10 may be slower than p99's limit.
    #[test]
    fn a_condition_is_lost_once_too_many_calls_broke_it() {
        let conditions: Conditions = "p99<50ms,error<1%".parse().unwrap();
        assert!(!conditions.are_lost(&record([60; 6], 5), 1_000.0));
        assert!(conditions.are_lost(&record([60; 12], 0), 1_000.0));
        assert!(conditions.are_lost(&record([60; 6], 6), 1_000.0));
        assert!(conditions.are_lost(&record([], 12), 1_000.0));
        assert!(!conditions.are_lost(&record([40; 500], 0), 1_000.0));
    }

    #[test]
    fn durations_are_read_as_other_generators_write_them() {
        for (text, want_ms) in
            [("150ms", 150.0), ("1.5s", 1500.0), ("1m30s", 90_000.0), ("500us", 0.5), ("2h", 7.2e6)]
        {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64() * 1000.0, want_ms, "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.2.3s", "1d", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
