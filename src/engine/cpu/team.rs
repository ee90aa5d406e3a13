//! The threads that run networks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// A fixed number of threads, the caller's included, that do the same job together.
pub struct ThreadTeam {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// One job at a time.
    run_lock: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// A job has come, or the team is to stop.
    job_or_stop: Condvar,
    /// A thread has done its part.
    all_finished: Condvar,
}

struct State {
    /// Counts jobs, so that a thread knows which it has done.
    job_number: usize,
    job: Option<Job>,
    unfinished: usize,
    panicked: bool,
    stopping: bool,
}

/// The caller's closure, which it keeps alive until every thread has finished.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure may be called from any thread, and lives while it is here.
unsafe impl Send for Job {}

impl ThreadTeam {
    /// A team of `threads`, at least one: the caller's and those started here.
    ///
    /// # Errors
    /// When the operating system starts no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let state =
            State { job_number: 0, job: None, unfinished: 0, panicked: false, stopping: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            job_or_stop: Condvar::new(),
            all_finished: Condvar::new(),
        });
        let mut team = Self { shared, threads: Vec::new(), run_lock: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            let thread = std::thread::Builder::new().name(format!("network-{index}"));
            team.threads.push(thread.spawn(move || shared.run_jobs(index))?);
        }
        Ok(team)
    }

    /// Threads, the caller's included.
    pub fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` with 0, 1, … on as many threads, and returns when all have returned.
    ///
    /// # Panics
    /// When one of them panicked.
    pub(super) fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return job(0);
        }
        let run_lock = self.run_lock.lock();
        {
            let mut state = self.shared.state.lock();
            // SAFETY: only the lifetime changes; the closure is not used after this function,
            // which waits for every thread, also when its own part panics.
            let job: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(job) };
            state.job_number += 1;
            state.job = Some(Job(job));
            state.unfinished = self.threads.len();
            state.panicked = false;
            self.shared.job_or_stop.notify_all();
        }
        let own_result = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut state = self.shared.state.lock();
        while state.unfinished > 0 {
            self.shared.all_finished.wait(&mut state);
        }
        state.job = None;
        let others_panicked = state.panicked;
        drop(state);
        drop(run_lock);
        if let Err(panic) = own_result {
            std::panic::resume_unwind(panic);
        }
        assert!(!others_panicked, "another thread of the team panicked");
    }
}

impl Drop for ThreadTeam {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.job_or_stop.notify_all();
        for thread in self.threads.drain(..) {
            // Jobs' panics are caught on the thread.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for ThreadTeam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadTeam").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Shared {
    fn run_jobs(&self, index: usize) {
        let mut last_done = 0;
        while let Some((job_number, Job(job))) = self.wait_for_job(last_done) {
            last_done = job_number;
            // SAFETY: the caller waits until this thread has finished.
            let panicked = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index) })).is_err();
            let mut state = self.state.lock();
            state.panicked |= panicked;
            state.unfinished -= 1;
            if state.unfinished == 0 {
                self.all_finished.notify_one();
            }
        }
    }

    /// Waits for a job after number `done`; `None` when the team stops.
    fn wait_for_job(&self, last_done: usize) -> Option<(usize, Job)> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            match state.job {
                Some(job) if state.job_number != last_done => return Some((state.job_number, job)),
                _ => self.job_or_stop.wait(&mut state),
            }
        }
    }
}

/// Keeps the threads of a job in step.
pub(super) struct Barrier {
    threads: usize,
    waiting: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

/// Looks at a barrier before the thread offers its core to others: a few microseconds, as long as
/// the parts of a step usually differ. Under outside load the core goes to whom this one waits for.
const SPINS_BEFORE_YIELD: u32 = 2000;

impl Barrier {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            waiting: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Returns when all threads have come here.
    ///
    /// # Panics
    /// When another thread has panicked, and will never come.
    pub(super) fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.waiting.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.waiting.store(0, Ordering::Release);
            self.round.store(round + 1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread panicked");
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Breaks the barrier when the thread that holds this panics.
    pub(super) fn break_on_panic(&self) -> BarrierGuard<'_> {
        BarrierGuard(self)
    }
}

/// See [`Barrier::guard`].
pub(super) struct BarrierGuard<'a>(&'a Barrier);

impl Drop for BarrierGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_gets_its_number_once_in_every_job() {
        let team = ThreadTeam::new(3).unwrap();
        for _ in 0..100 {
            let seen: [AtomicUsize; 3] = Default::default();
            team.run(&|index| {
                seen[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_of_one_thread_reaches_the_caller_and_the_team_lives_on() {
        let team = ThreadTeam::new(2).unwrap();
        for culprit in [0, 1] {
            let barrier = Barrier::new(2);
            let job = |index: usize| {
                let _guard = barrier.break_on_panic();
                assert_ne!(index, culprit);
                barrier.wait();
            };
            assert!(catch_unwind(AssertUnwindSafe(|| team.run(&job))).is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }

    #[test]
    fn no_thread_passes_a_barrier_before_all_have_come() {
        let team = ThreadTeam::new(2).unwrap();
        let (barrier, steps) = (Barrier::new(2), AtomicUsize::new(0));
        team.run(&|_| {
            for round in 1..=1000 {
                steps.fetch_add(1, Ordering::Relaxed);
                barrier.wait();
                assert_eq!(steps.load(Ordering::Relaxed), 2 * round);
                barrier.wait();
            }
        });
    }
}
