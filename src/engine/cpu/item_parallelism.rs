//! How a single row runs: on all threads, or on one.
//!
//! Threads that share a row wait for each other after every step. With a free core for each they
//! are faster than one alone; when others use the cores, each wait lasts until the scheduler comes
//! round, and one alone is several times faster. Nothing says beforehand which it is, so the
//! times of the last runs do. The numbers of the row are the same either way.

use std::time::Duration;

/// Every so many runs the slower way is tried again: a sixteenth of them, should it be twice as
/// slow, costs six parts in a hundred.
const RETRY_EVERY_RUNS: u32 = 16;

/// So many runs at the beginning take turns: the first ones also wait for memory to be touched.
const EARLY_RUNS: u32 = 8;

/// Weight of the newest time in the average.
const NEWEST_WEIGHT: f64 = 0.25;

/// Who runs a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AllThreads,
    OneThread,
}

/// What a row took lately, each way.
#[derive(Debug, Default)]
pub(super) struct ItemParallelism {
    all_threads_s: f64,
    one_thread_s: f64,
    runs: u32,
}

impl ItemParallelism {
    /// How the next row is to run.
    pub(super) fn choose(&mut self) -> Mode {
        self.runs = self.runs.wrapping_add(1);
        let (faster, slower) = match self.faster() {
            Mode::AllThreads => (Mode::AllThreads, Mode::OneThread),
            Mode::OneThread => (Mode::OneThread, Mode::AllThreads),
        };
        let every = if self.runs <= EARLY_RUNS { 2 } else { RETRY_EVERY_RUNS };
        if self.runs.is_multiple_of(every) { slower } else { faster }
    }

    /// A row took this long. One try says what the slower way takes by now, however slow it was.
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

    /// Runs rows that take as long as given; how many ran together.
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
