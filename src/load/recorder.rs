//! What happened to the calls: histograms of their times, and counts of their outcomes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::calls::{CallKind, Outcome};
use super::session::SentFrame;

/// Significant decimal digits of every histogram: values are kept to 0.1 %.
const DIGITS: u8 = 3;

/// Returns an empty histogram of nanoseconds, which grows with its values.
pub(super) fn nanoseconds() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("3 is a valid number of digits")
}

/// Records a time.
fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    histogram.record(nanos).expect("a histogram grows with its values");
}

/// The calls of one kind.
#[derive(Debug, Clone)]
pub struct KindRecord {
    /// Times from the intended time to the answer, in nanoseconds. For a session: from the capture
    /// of the frame that decided it to its result. Answered calls only.
    pub latency: Histogram<u64>,
    /// Times from sending to the answer, in nanoseconds. For a session: from `CreateSession` to its
    /// result. Answered calls only.
    pub service: Histogram<u64>,
    /// Times from the intended time to sending, in nanoseconds.
    pub lag: Histogram<u64>,
    /// Number of calls by how they ended.
    pub outcomes: HashMap<Outcome, u64>,
}

impl Default for KindRecord {
    fn default() -> Self {
        Self {
            latency: nanoseconds(),
            service: nanoseconds(),
            lag: nanoseconds(),
            outcomes: HashMap::new(),
        }
    }
}

impl KindRecord {
    /// Returns the number of answered calls.
    pub fn answered(&self) -> u64 {
        self.count(Outcome::is_ok)
    }

    /// Returns the number of calls without an answer.
    pub fn failed(&self) -> u64 {
        self.count(|outcome| !outcome.is_ok())
    }

    fn count(&self, which: impl Fn(Outcome) -> bool) -> u64 {
        let matching = self.outcomes.iter().filter(|(outcome, _)| which(**outcome));
        matching.map(|(_, count)| count).sum()
    }

    /// Returns the time below which a share of the calls was answered, in milliseconds; `None`
    /// without an answer.
    pub fn latency_ms(&self, quantile: f64) -> Option<f64> {
        quantile_ms(&self.latency, quantile)
    }

    fn merge(&mut self, other: &Self) {
        for (into, from) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.lag, &other.lag),
        ] {
            into.add(from).expect("a histogram grows with its values");
        }
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
    }
}

/// Returns a quantile of a histogram of nanoseconds, in milliseconds; `None` if it is empty.
pub fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e6)
}

/// The camera frames of the sessions.
#[derive(Debug, Clone)]
pub struct FrameRecord {
    /// Frames given to the connection.
    pub sent: u64,
    /// Frames that the camera dropped, since the connection did not take them.
    pub dropped: u64,
    /// Frames that the server left out, by its own account.
    pub left_out: u64,
    /// Sessions whose film ended before the session.
    pub films_ended: u64,
    /// Times from a frame's intended time to sending, in nanoseconds.
    pub lag: Histogram<u64>,
}

impl Default for FrameRecord {
    fn default() -> Self {
        Self { sent: 0, dropped: 0, left_out: 0, films_ended: 0, lag: nanoseconds() }
    }
}

/// All calls of a window of time, or of a whole run.
#[derive(Debug, Clone, Default)]
pub struct Record {
    kinds: Vec<(CallKind, KindRecord)>,
    /// The frames of all sessions.
    pub frames: FrameRecord,
    /// Calls that were sent, or due and not sent.
    pub offered: u64,
}

/// The times of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallTimes {
    pub(super) sent: Instant,
    /// What the latency counts from: the intended time, but for sessions.
    pub(super) from: Instant,
    pub(super) ended: Instant,
}

impl Record {
    /// Returns the records by kind, in the order of [`CallKind::ALL`].
    pub fn kinds(&self) -> impl Iterator<Item = (CallKind, &KindRecord)> {
        self.kinds.iter().map(|(kind, record)| (*kind, record))
    }

    /// Returns the record of one kind; `None` if no such call has ended.
    pub fn kind(&self, kind: CallKind) -> Option<&KindRecord> {
        self.kinds().find(|(other, _)| *other == kind).map(|(_, record)| record)
    }

    /// Returns the calls of all kinds as one record.
    pub fn all(&self) -> KindRecord {
        let mut all = KindRecord::default();
        self.kinds().for_each(|(_, record)| all.merge(record));
        all
    }

    /// Returns the number of answered calls.
    pub fn answered(&self) -> u64 {
        self.kinds().map(|(_, record)| record.answered()).sum()
    }

    /// Returns the number of calls without an answer.
    pub fn failed(&self) -> u64 {
        self.kinds().map(|(_, record)| record.failed()).sum()
    }

    /// Adds a call that has ended.
    pub(super) fn add(&mut self, kind: CallKind, outcome: Outcome, times: &CallTimes) {
        let of_kind = self.kind_mut(kind);
        *of_kind.outcomes.entry(outcome).or_default() += 1;
        if outcome.is_ok() {
            for (histogram, from) in
                [(&mut of_kind.latency, times.from), (&mut of_kind.service, times.sent)]
            {
                record(histogram, times.ended.saturating_duration_since(from));
            }
        }
    }

    /// Adds a call that is sent at this moment.
    pub(super) fn add_sent(&mut self, kind: CallKind, lag: Duration) {
        self.offered += 1;
        record(&mut self.kind_mut(kind).lag, lag);
    }

    /// Adds a call that cannot be sent.
    pub(super) fn add_not_sent(&mut self, kind: CallKind) {
        self.offered += 1;
        *self.kind_mut(kind).outcomes.entry(Outcome::NotSent).or_default() += 1;
    }

    /// Adds a frame of a session.
    pub(super) fn add_frame(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::Sent { lag } => {
                self.frames.sent += 1;
                record(&mut self.frames.lag, lag);
            }
            SentFrame::Dropped => self.frames.dropped += 1,
            SentFrame::FilmEnded => self.frames.films_ended += 1,
        }
    }

    /// Removes all calls and keeps the memory of the histograms.
    pub(super) fn clear(&mut self) {
        for (_, KindRecord { latency, service, lag, outcomes }) in &mut self.kinds {
            latency.reset();
            service.reset();
            lag.reset();
            outcomes.clear();
        }
        let FrameRecord { sent, dropped, left_out, films_ended, lag } = &mut self.frames;
        for count in [sent, dropped, left_out, films_ended, &mut self.offered] {
            *count = 0;
        }
        lag.reset();
    }

    /// Adds the calls of another record.
    pub(super) fn merge(&mut self, other: &Self) {
        for (kind, record) in other.kinds() {
            self.kind_mut(kind).merge(record);
        }
        self.frames.sent += other.frames.sent;
        self.frames.dropped += other.frames.dropped;
        self.frames.left_out += other.frames.left_out;
        self.frames.films_ended += other.frames.films_ended;
        let lags = self.frames.lag.add(&other.frames.lag);
        lags.expect("a histogram grows with its values");
        self.offered += other.offered;
    }

    fn kind_mut(&mut self, kind: CallKind) -> &mut KindRecord {
        let at = self.kinds.partition_point(|(other, _)| *other < kind);
        if self.kinds.get(at).is_none_or(|(other, _)| *other != kind) {
            self.kinds.insert(at, (kind, KindRecord::default()));
        }
        &mut self.kinds[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;

    fn times(latency_ms: u64, service_ms: u64) -> CallTimes {
        let ended = Instant::now() + Duration::from_secs(60);
        let before = |ms| ended - Duration::from_millis(ms);
        CallTimes { sent: before(service_ms), from: before(latency_ms), ended }
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_service_time_from_sending() {
        let mut record = Record::default();
        for _ in 0..10 {
            record.add(CallKind::Health, Outcome::Answered, &times(800, 2));
        }
        let health = record.kind(CallKind::Health).unwrap();
        assert!((health.latency_ms(0.5).unwrap() - 800.0).abs() < 0.8);
        assert!((quantile_ms(&health.service, 0.5).unwrap() - 2.0).abs() < 0.002);
    }

    #[test]
    fn failed_calls_are_counted_and_have_no_latency() {
        let mut record = Record::default();
        let refused = Outcome::Status(tonic::Code::ResourceExhausted);
        record.add(CallKind::Verify, refused, &times(1, 1));
        record.add_not_sent(CallKind::Verify);
        record.add(CallKind::Verify, Outcome::Decided(v1::Decision::Pass), &times(1, 1));
        let verify = record.kind(CallKind::Verify).unwrap();
        assert_eq!((verify.answered(), verify.failed(), verify.latency.len()), (1, 2, 1));
    }

    #[test]
    fn merged_records_hold_all_calls() {
        let mut one = Record::default();
        one.add(CallKind::Session, Outcome::Answered, &times(5, 5));
        one.add_frame(SentFrame::Sent { lag: Duration::from_millis(1) });
        let mut other = Record::default();
        other.add(CallKind::Detect, Outcome::Answered, &times(900, 5));
        other.add_frame(SentFrame::Dropped);
        other.add_sent(CallKind::Detect, Duration::from_micros(3));
        one.merge(&other);
        let kinds: Vec<_> = one.kinds().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [CallKind::Detect, CallKind::Session]);
        assert_eq!((one.answered(), one.offered), (2, 1));
        assert_eq!((one.frames.sent, one.frames.dropped), (1, 1));
        assert_eq!(one.all().latency.len(), 2);
    }
}
