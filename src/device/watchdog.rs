//! Reports a device as hung when its thread does not come back: a kernel that never ends cannot be stopped,
//! and every call of the driver that waits for it waits for ever.
//!
//! ```text
//! device's thread:  begin (opening, a load, a batch) … rest    writes the pulse
//! watchdog:         look … look: late twice → hung             reads it, on a thread of its own
//! ```
//!
//! Who waits for a batch follows the device's health and answers itself. The thread stays where it
//! hangs; should it come back after all, it leaves its machine alone and ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::health::StateReporter;

/// How long a device is waited for.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Before each attempt to reopen a lost device. A driver resets a GPU within some seconds; what
    /// has not come back after two minutes needs a person or another machine.
    pub(super) pauses: Vec<Duration>,
    /// From taking a batch up to answering it, which takes milliseconds; 30 s are far more than any
    /// batch, a busy host or a driver that is reset needs.
    pub(super) batch: Duration,
    /// For opening at the start: libraries are loaded and kernels translated, which takes seconds.
    pub(super) open: Duration,
    /// For reopening, and for each model: as above, and every batch size is run.
    pub(super) load: Duration,
    /// Between two looks at the thread.
    pub(super) look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            pauses: (0..7).map(|attempt| Duration::from_secs(1 << attempt)).collect(),
            batch: Duration::from_secs(30),
            open: Duration::from_secs(300),
            load: Duration::from_secs(300),
            look: Duration::from_secs(1),
        }
    }
}

/// What a device's thread is at.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Nothing that must end.
    #[default]
    Resting,
    At(Task),
    /// Nobody waits for the thread any more. It stays so.
    Hung,
}

/// Something that ends in time or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    what: &'static str,
    since: Instant,
    limit: Duration,
}

impl Pulse {
    /// From here on the thread is at `what`, begun at `since`.
    pub(super) fn begin(&self, what: &'static str, since: Instant, limit: Duration) {
        self.set(State::At(Task { what, since, limit }));
    }

    /// The thread waits for work, which may take any time.
    pub(super) fn rest(&self) {
        self.set(State::Resting);
    }

    /// Whether the thread must leave its machine alone and end.
    pub(super) fn has_hung(&self) -> bool {
        matches!(*self.0.lock(), State::Hung)
    }

    fn set(&self, next: State) {
        let mut state = self.0.lock();
        if !matches!(*state, State::Hung) {
            *state = next;
        }
    }

    /// What the thread is late with and was late with at the look before, `late`: a process that
    /// was stopped for a while is late with everything when it goes on.
    fn look(&self, now: Instant, late: &mut Option<Task>) -> Option<Task> {
        let before = late.take();
        let State::At(task) = *self.0.lock() else { return None };
        if now.saturating_duration_since(task.since) <= task.limit {
            return None;
        }
        *late = Some(task);
        before.filter(|before| *before == task)
    }

    /// From now on the thread must leave its machine alone.
    fn set_hung(&self) {
        self.set(State::Hung);
    }
}

impl Task {
    /// For health and its log.
    fn why(&self) -> String {
        let Self { what, limit, .. } = self;
        let way_out = "the process must be started again";
        format!("{what} has run for {limit:?} and cannot be stopped; {way_out}")
    }
}

/// Who looks at a device's thread.
pub(super) struct Watchdog {
    pub(super) pulse: Arc<Pulse>,
    pub(super) reporter: StateReporter,
    pub(super) look: Duration,
    /// Closes when the thread ends.
    pub(super) ended: Receiver<()>,
    pub(super) thread: JoinHandle<()>,
}

impl Watchdog {
    /// Returns when the thread has ended or hung.
    pub(super) fn watch(self) {
        let mut late = None;
        loop {
            if let Err(RecvTimeoutError::Disconnected) = self.ended.recv_timeout(self.look) {
                // A panic of its own has been reported there.
                drop(self.thread.join());
                return;
            }
            if let Some(task) = self.pulse.look(Instant::now(), &mut late) {
                // Before the thread can see it: what it drops then is answered with the loss.
                self.reporter.on_hung(task.why());
                self.pulse.set_hung();
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
    fn a_thread_has_hung_when_it_is_late_with_the_same_task_at_two_looks() {
        let (pulse, start, mut late) = (Pulse::default(), Instant::now(), None);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pulse.look(at(1000), &mut late), None, "it rests");
        pulse.begin("a batch", start, LIMIT);
        assert_eq!(pulse.look(at(30), &mut late), None);
        assert_eq!(pulse.look(at(31), &mut late), None, "the first look");
        let task = pulse.look(at(32), &mut late).unwrap();
        assert!(task.why().starts_with("a batch has run for 30s"), "{}", task.why());
        pulse.set_hung();
        pulse.rest();
        assert!(pulse.has_hung(), "for good");
    }

    #[test]
    fn a_thread_that_goes_on_between_two_looks_has_not_hung() {
        let (pulse, start, mut late) = (Pulse::default(), Instant::now(), None);
        let at = |seconds| start + Duration::from_secs(seconds);
        pulse.begin("a batch", start, LIMIT);
        assert_eq!(pulse.look(at(99), &mut late), None);
        pulse.begin("a batch", at(1), LIMIT);
        assert_eq!(pulse.look(at(100), &mut late), None, "another batch");
        pulse.rest();
        assert_eq!(pulse.look(at(101), &mut late), None);
        pulse.begin("a batch", at(1), LIMIT);
        assert_eq!(pulse.look(at(102), &mut late), None, "late, but it was not at the look before");
        assert!(!pulse.has_hung());
    }

    #[test]
    fn pauses_before_reopening_grow_and_end() {
        let Patience { pauses, .. } = Patience::default();
        assert!(pauses.windows(2).all(|pair| pair[1] == pair[0] * 2));
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_secs(127));
    }
}
