//! The threads that run networks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// A fixed number of threads, including the caller's, that run one job together.
pub struct ThreadTeam {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held during a job: the team runs one job at a time.
    run_lock: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a new job is set or the team stops.
    job_or_stop: Condvar,
    /// Signalled when the last thread has finished the job.
    all_finished: Condvar,
}

struct State {
    /// Number of jobs so far. A thread compares it with the last job it ran.
    job_number: usize,
    job: Option<Job>,
    unfinished: usize,
    panicked: bool,
    stopping: bool,
}

/// A pointer to the caller's closure. The caller keeps the closure alive until every thread has
/// finished.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure may be called from any thread, and it lives as long as this pointer is used.
unsafe impl Send for Job {}

impl ThreadTeam {
    /// Starts a team of `threads` threads. The caller's thread is one of them, so `threads - 1` are
    /// started here; 0 counts as 1.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
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

    /// Returns the number of threads, including the caller's.
    pub fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` with 0, 1, … once on each thread, and returns when all calls have returned.
    ///
    /// # Panics
    /// If `job` panicked on any thread.
    pub(super) fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return job(0);
        }
        let run_lock = self.run_lock.lock();
        {
            let mut state = self.shared.state.lock();
            // SAFETY: only the lifetime changes. This function waits for every thread, also when
            // its own call panics, so the closure is not used after the function returns.
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
            // A panic of a job was caught on the thread, so `join` has nothing to report.
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
            // SAFETY: the caller keeps the closure alive until this thread has finished.
            let panicked = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index) })).is_err();
            let mut state = self.state.lock();
            state.panicked |= panicked;
            state.unfinished -= 1;
            if state.unfinished == 0 {
                self.all_finished.notify_one();
            }
        }
    }

    /// Waits for a job after job number `last_done`. Returns `None` when the team stops.
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

/// Makes the threads of a job wait for each other between steps.
pub(super) struct Barrier {
    threads: usize,
    waiting: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

/// Number of checks of a barrier before a thread yields its core. They take a few microseconds,
/// which is the usual difference between the shares of a step. Under outside load, the yielded core
/// goes to the thread this one waits for.
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

    /// Returns when all threads have called it.
    ///
    /// # Panics
    /// If another thread has panicked and will never call it.
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

    /// Returns a guard that breaks the barrier when its thread panics.
    pub(super) fn break_on_panic(&self) -> BarrierGuard<'_> {
        BarrierGuard(self)
    }
}

/// Breaks the barrier when its thread panics; see [`Barrier::break_on_panic`].
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
