//! Declares a device hung when its thread does not return from a task. A kernel that never ends
//! cannot be stopped, and every driver call that waits for it blocks forever.
//!
//! ```text
//! device's thread:  busy (opening, a load, a batch) … idle     writes the heartbeat
//! watchdog:         poll … poll: overdue twice → hung          reads it, on a thread of its own
//! ```
//!
//! A caller that waits for a batch also watches the device's health, and so gets the loss without
//! the thread. The thread stays blocked where it hangs. If it ever returns, it leaves its machine
//! alone and ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::health::StateReporter;

/// Time limits for the tasks of a device's thread.
#[derive(Debug, Clone)]
pub(super) struct Timeouts {
    /// Delay before each attempt to reopen a lost device. A driver resets a GPU within some
    /// seconds. A GPU that has not come back after two minutes needs a person or another machine.
    pub(super) reopen_delays: Vec<Duration>,
    /// From taking a batch to answering it, which takes milliseconds. 30 s are far more than any
    /// batch, a busy host or a driver reset needs.
    pub(super) batch: Duration,
    /// For opening at the start: loading libraries and translating kernels takes seconds.
    pub(super) open: Duration,
    /// For reopening, and for loading each model: as for opening, and every bucket is run.
    pub(super) load: Duration,
    /// Time between two polls of the heartbeat.
    pub(super) poll_interval: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            reopen_delays: (0..7).map(|attempt| Duration::from_secs(1 << attempt)).collect(),
            batch: Duration::from_secs(30),
            open: Duration::from_secs(300),
            load: Duration::from_secs(300),
            poll_interval: Duration::from_secs(1),
        }
    }
}

/// The current activity of a device's thread. The thread writes it, the watchdog polls it.
#[derive(Debug, Default)]
pub(super) struct Heartbeat(Mutex<Activity>);

#[derive(Debug, Default)]
enum Activity {
    /// The thread waits for work.
    #[default]
    Idle,
    Busy(Task),
    /// The device was declared hung. This state is final.
    Hung,
}

/// A task with a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    name: &'static str,
    started: Instant,
    limit: Duration,
}

impl Heartbeat {
    /// Reports that the thread has run the task `name` since `started`, and that the task may take
    /// `limit`.
    pub(super) fn set_busy(&self, name: &'static str, started: Instant, limit: Duration) {
        self.set(Activity::Busy(Task { name, started, limit }));
    }

    /// Reports that the thread waits for work, without a time limit.
    pub(super) fn set_idle(&self) {
        self.set(Activity::Idle);
    }

    /// Returns whether the device was declared hung. Then the thread must leave its machine alone
    /// and end.
    pub(super) fn has_hung(&self) -> bool {
        matches!(*self.0.lock(), Activity::Hung)
    }

    fn set(&self, next: Activity) {
        let mut activity = self.0.lock();
        if !matches!(*activity, Activity::Hung) {
            *activity = next;
        }
    }

    /// Returns the task that is overdue at two consecutive polls. `overdue` holds the overdue task
    /// of the previous poll. One poll is not enough: after a SIGSTOP of the process every task
    /// looks overdue once.
    fn poll(&self, now: Instant, overdue: &mut Option<Task>) -> Option<Task> {
        let last = overdue.take();
        let Activity::Busy(task) = *self.0.lock() else { return None };
        if now.saturating_duration_since(task.started) <= task.limit {
            return None;
        }
        *overdue = Some(task);
        last.filter(|last| *last == task)
    }

    /// Declares the device hung: from now on the thread must leave its machine alone.
    fn set_hung(&self) {
        self.set(Activity::Hung);
    }
}

impl Task {
    /// Returns the message for health and the log.
    fn overdue_message(&self) -> String {
        let Self { name, limit, .. } = self;
        format!("{name} has run for {limit:?} and cannot be stopped; restart the process")
    }
}

/// Polls the heartbeat of a device's thread.
pub(super) struct Watchdog {
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) reporter: StateReporter,
    pub(super) poll_interval: Duration,
    /// Closed when the thread ends.
    pub(super) thread_alive: Receiver<()>,
    pub(super) thread: JoinHandle<()>,
}

impl Watchdog {
    /// Polls until the thread has ended or hung.
    pub(super) fn watch(self) {
        let mut overdue = None;
        loop {
            let woken = self.thread_alive.recv_timeout(self.poll_interval);
            if let Err(RecvTimeoutError::Disconnected) = woken {
                // A panic of the thread was reported there.
                drop(self.thread.join());
                return;
            }
            if let Some(task) = self.heartbeat.poll(Instant::now(), &mut overdue) {
                // Report first, before the thread can see that it hung: work that it drops then is
                // answered with the loss.
                self.reporter.on_hung(task.overdue_message());
                self.heartbeat.set_hung();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_thread_has_hung_when_the_same_task_is_overdue_at_two_polls() {
        let heartbeat = Heartbeat::default();
        let start = Instant::now();
        let mut overdue = None;
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(heartbeat.poll(at(1000), &mut overdue), None, "it rests");
        heartbeat.set_busy("a batch", start, LIMIT);
        assert_eq!(heartbeat.poll(at(30), &mut overdue), None);
        assert_eq!(heartbeat.poll(at(31), &mut overdue), None, "the first poll");
        let task = heartbeat.poll(at(32), &mut overdue).unwrap();
        assert!(task.overdue_message().starts_with("a batch has run for 30s"), "{task:?}");
        heartbeat.set_hung();
        heartbeat.set_idle();
        assert!(heartbeat.has_hung(), "for good");
    }

    #[test]
    fn a_thread_that_goes_on_between_two_polls_has_not_hung() {
        let heartbeat = Heartbeat::default();
        let start = Instant::now();
        let mut overdue = None;
        let at = |seconds| start + Duration::from_secs(seconds);
        heartbeat.set_busy("a batch", start, LIMIT);
        assert_eq!(heartbeat.poll(at(99), &mut overdue), None);
        heartbeat.set_busy("a batch", at(1), LIMIT);
        assert_eq!(heartbeat.poll(at(100), &mut overdue), None, "another batch");
        heartbeat.set_idle();
        assert_eq!(heartbeat.poll(at(101), &mut overdue), None);
        heartbeat.set_busy("a batch", at(1), LIMIT);
        assert_eq!(
            heartbeat.poll(at(102), &mut overdue),
            None,
            "overdue, but not at the poll before"
        );
        assert!(!heartbeat.has_hung());
    }

    #[test]
    fn delays_before_reopening_grow_and_end() {
        let Timeouts { reopen_delays, .. } = Timeouts::default();
        assert!(reopen_delays.windows(2).all(|pair| pair[1] == pair[0] * 2));
        assert_eq!(reopen_delays.iter().sum::<Duration>(), Duration::from_secs(127));
    }
}
