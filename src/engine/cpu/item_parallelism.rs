//! Chooses whether a single item runs on all threads or on one.
//!
//! Threads that share an item wait for each other after every step. With a free core for each
//! thread, all threads together are faster than one. When other work uses the cores, each wait
//! lasts until the scheduler runs the other thread again, and one thread is several times faster.
//! The load of the cores is not known beforehand, so the times of recent runs decide. The results
//! are the same bits in both modes.

use std::time::Duration;

/// The slower mode is tried again once in this many runs. If the slower mode takes twice as long,
/// these tries cost 6 % of the time.
const RETRY_EVERY_RUNS: u32 = 16;

/// During the first runs the modes alternate, because the first runs also wait for memory to be
/// touched.
const EARLY_RUNS: u32 = 8;

/// Weight of the newest time in the moving average.
const NEWEST_WEIGHT: f64 = 0.25;

/// The threads that run an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AllThreads,
    OneThread,
}

/// Recent times of one item in each mode, in seconds.
#[derive(Debug, Default)]
pub(super) struct ItemParallelism {
    all_threads_s: f64,
    one_thread_s: f64,
    runs: u32,
}

impl ItemParallelism {
    /// Returns the mode for the next item.
    pub(super) fn choose(&mut self) -> Mode {
        self.runs = self.runs.wrapping_add(1);
        let (faster, slower) = match self.faster() {
            Mode::AllThreads => (Mode::AllThreads, Mode::OneThread),
            Mode::OneThread => (Mode::OneThread, Mode::AllThreads),
        };
        let every = if self.runs <= EARLY_RUNS { 2 } else { RETRY_EVERY_RUNS };
        if self.runs.is_multiple_of(every) { slower } else { faster }
    }

    /// Records the time of an item. A single try replaces the slower mode's old time, however long
    /// that was.
    pub(super) fn record(&mut self, mode: Mode, time: Duration) {
        let weight =
            if mode == self.faster() && self.runs > EARLY_RUNS { NEWEST_WEIGHT } else { 1.0 };
        let average_s = match mode {
            Mode::AllThreads => &mut self.all_threads_s,
            Mode::OneThread => &mut self.one_thread_s,
        };
        *average_s += weight * (time.as_secs_f64() - *average_s);
    }

    fn faster(&self) -> Mode {
        if self.all_threads_s <= self.one_thread_s { Mode::AllThreads } else { Mode::OneThread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `items` items that take the given times, and returns how many ran on all threads.
    fn run(
        parallelism: &mut ItemParallelism,
        items: u32,
        all_threads_us: u64,
        one_thread_us: u64,
    ) -> u32 {
        let mut on_all_threads = 0;
        for _ in 0..items {
            let mode = parallelism.choose();
            on_all_threads += u32::from(mode == Mode::AllThreads);
            let time_us = if mode == Mode::AllThreads { all_threads_us } else { one_thread_us };
            parallelism.record(mode, Duration::from_micros(time_us));
        }
        on_all_threads
    }

    #[test]
    fn both_modes_are_tried_and_the_faster_one_is_kept() {
        assert!(run(&mut ItemParallelism::default(), 160, 600, 1000) >= 140);
        let on_all_threads = run(&mut ItemParallelism::default(), 160, 4000, 1000);
        assert!((1..=20).contains(&on_all_threads), "{on_all_threads}");
    }

    #[test]
    fn the_mode_changes_when_the_cores_become_busy_and_free_again() {
        let mut parallelism = ItemParallelism::default();
        run(&mut parallelism, 64, 600, 1000);
        assert!(run(&mut parallelism, 160, 8000, 1000) <= 24);
        assert!(run(&mut parallelism, 480, 600, 1000) >= 400);
    }

    #[test]
    fn a_cold_start_is_forgotten_at_the_next_try() {
        let mut parallelism = ItemParallelism::default();
        assert_eq!(parallelism.choose(), Mode::AllThreads);
        parallelism.record(Mode::AllThreads, Duration::from_secs(1));
        assert!(run(&mut parallelism, 40, 600, 1000) >= 30);
    }
}
