//! The pacer: an OS thread that sleeps until the next call is due and hands it to a worker.
//!
//! It sleeps by absolute times of the monotonic clock, so that one late wake-up does not shift the
//! calls after it. A timer of tokio has a resolution of a millisecond, which is too coarse.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::sync::oneshot;

use super::arrivals::Arrivals;

/// Longest sleep. A session asks for its next frame 100 ms ahead, and a run may be stopped.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Shortest sleep. Waking up costs some microseconds, so at more than 10,000 calls a second several
/// calls are sent at once, at most this late.
const SLEEP_MIN: Duration = Duration::from_micros(100);

/// Sleeps until instants.
#[derive(Debug)]
struct Sleeper {
    origin: Instant,
    /// The monotonic clock at `origin`.
    origin_clock: Timespec,
}

impl Sleeper {
    fn new() -> Self {
        // The kernel may delay a wake-up by the slack, which is 50 µs unless set. A kernel that
        // refuses to change it only wakes later, which the lag shows.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Self { origin: Instant::now(), origin_clock: clock_gettime(ClockId::Monotonic) }
    }

    fn sleep_until(&self, at: Instant) {
        let since = at.saturating_duration_since(self.origin);
        let nanos = self.origin_clock.tv_nsec + i64::from(since.subsec_nanos());
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let clock = Timespec {
            tv_sec: self.origin_clock.tv_sec.saturating_add(seconds + nanos / 1_000_000_000),
            tv_nsec: nanos % 1_000_000_000,
        };
        // A signal ends the sleep early. The caller then finds nothing due and sleeps again.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &clock);
    }
}

/// Lets a session wait for the time of its next frame.
#[derive(Debug, Clone)]
pub(super) struct FrameClock(Sender<Timer>);

#[derive(Debug)]
struct Timer {
    at: Instant,
    fired: oneshot::Sender<()>,
}

/// Compared by time only; the heap of timers has the earliest on top.
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl FrameClock {
    /// Creates a clock, and the timers that [`Pacer::run`] serves.
    pub(super) fn new() -> (Self, Timers) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (Self(sender), Timers { receiver, waiting: BinaryHeap::new(), is_closed: false })
    }

    /// Waits until `at`. Returns at once if the pacer has ended.
    pub(super) async fn sleep_until(&self, at: Instant) {
        let (fired, wait) = oneshot::channel();
        if self.0.send(Timer { at, fired }).is_ok() {
            let _ = wait.await;
        }
    }
}

/// The timers of all sessions.
#[derive(Debug)]
pub(super) struct Timers {
    receiver: Receiver<Timer>,
    waiting: BinaryHeap<Reverse<Timer>>,
    /// True once every [`FrameClock`] is dropped.
    is_closed: bool,
}

impl Timers {
    fn receive(&mut self) {
        loop {
            match self.receiver.try_recv() {
                Ok(timer) => self.waiting.push(Reverse(timer)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    /// Fires the timers that are due. Returns the time of the next one.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        self.receive();
        loop {
            let next = self.waiting.peek()?.0.at;
            if next > now {
                return Some(next);
            }
            if let Some(Reverse(timer)) = self.waiting.pop() {
                // A session that has ended waits no more.
                let _ = timer.fired.send(());
            }
        }
    }
}

/// Hands out calls and timers at their times.
#[derive(Debug)]
pub(super) struct Pacer {
    pub(super) start: Instant,
    pub(super) arrivals: Peekable<Arrivals>,
    pub(super) timers: Timers,
}

impl Pacer {
    /// Calls `send` with the intended time of each call when that time has come, or at once if it
    /// has passed. Calls end with the arrivals, or once `is_stopped` returns true. Then drops
    /// `send`, serves the timers until every clock is dropped, and returns.
    pub(super) fn run(mut self, is_stopped: impl Fn() -> bool, send: impl FnMut(Instant)) {
        let sleeper = Sleeper::new();
        self.send_calls(&sleeper, is_stopped, send);
        while !self.timers.is_closed {
            let now = Instant::now();
            let next = self.timers.fire(now);
            sleeper.sleep_until(next.map_or(now + SLEEP_MAX, |next| next.min(now + SLEEP_MAX)));
        }
    }

    fn send_calls(
        &mut self,
        sleeper: &Sleeper,
        is_stopped: impl Fn() -> bool,
        mut send: impl FnMut(Instant),
    ) {
        while let Some(call_at) = self.arrivals.peek().map(|offset| self.start + *offset) {
            if is_stopped() {
                return;
            }
            let now = Instant::now();
            let timer_at = self.timers.fire(now);
            if call_at <= now {
                self.arrivals.next();
                send(call_at);
                continue;
            }
            let next = timer_at.map_or(call_at, |timer_at| timer_at.min(call_at));
            sleeper.sleep_until(next.min(now + SLEEP_MAX).max(now + SLEEP_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::super::arrivals::{Schedule, Spacing};
    use super::*;

    fn pacer(rate: f64, duration: Duration, timers: Timers) -> Pacer {
        let schedule = Schedule::constant(rate, duration);
        let arrivals = Arrivals::new(schedule, Spacing::Constant, SmallRng::seed_from_u64(1));
        Pacer { start: Instant::now(), arrivals: arrivals.peekable(), timers }
    }

    #[test]
    fn every_call_is_sent_with_its_intended_time_and_never_early() {
        let (clock, timers) = FrameClock::new();
        drop(clock);
        let pacer = pacer(1_000.0, Duration::from_millis(100), timers);
        let (start, mut sent) = (pacer.start, Vec::new());
        pacer.run(|| false, |at| sent.push((at, Instant::now())));
        assert_eq!(sent.len(), 100);
        for (index, (at, now)) in (0..).zip(sent) {
            let offset = at - start;
            assert!(offset.abs_diff(Duration::from_millis(index)) < Duration::from_micros(1));
            assert!(now >= at, "call {index} was sent early");
        }
    }

    #[test]
    fn a_stopped_pacer_sends_no_more_calls_and_serves_timers_until_their_clock_is_dropped() {
        let (clock, timers) = FrameClock::new();
        let pacer = pacer(1.0, Duration::from_secs(3600), timers);
        let start = pacer.start;
        let waiting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let at = start + Duration::from_millis(30);
            runtime.block_on(clock.sleep_until(at));
            assert!(Instant::now() >= at);
        });
        let mut sent = 0;
        pacer.run(|| true, |_| sent += 1);
        waiting.join().unwrap();
        assert_eq!(sent, 0);
    }
}
