//! How a single row runs: on all threads, or on one.
//!
//! Threads that share a row wait for each other after every step. With a free core for each they
//! are faster than one alone; when others use the cores, each wait lasts until the scheduler comes
//! round, and one alone is several times faster. Nothing says beforehand which it is, so the
//! times of the last runs do. The numbers of the row are the same either way.

use std::time::Duration;

/// Every so many runs the slower way is tried again: a sixteenth of them, should it be twice as
/// slow, costs six parts in a hundred.
const TRIED_EVERY: u32 = 16;

/// So many runs at the beginning take turns: the first ones also wait for memory to be touched.
const EARLY: u32 = 8;

/// Weight of the newest time in the average.
const NEWEST: f64 = 0.25;

/// Who runs a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Together,
    Alone,
}

/// What a row took lately, each way.
#[derive(Debug, Default)]
pub(super) struct Pace {
    together: f64,
    alone: f64,
    runs: u32,
}

impl Pace {
    /// How the next row is to run.
    pub(super) fn next(&mut self) -> Way {
        self.runs = self.runs.wrapping_add(1);
        let (faster, slower) = match self.faster() {
            Way::Together => (Way::Together, Way::Alone),
            Way::Alone => (Way::Alone, Way::Together),
        };
        let turn = if self.runs <= EARLY { 2 } else { TRIED_EVERY };
        if self.runs.is_multiple_of(turn) { slower } else { faster }
    }

    /// A row took this long. One try says what the slower way takes by now, however slow it was.
    pub(super) fn took(&mut self, way: Way, time: Duration) {
        let weight = if way == self.faster() && self.runs > EARLY { NEWEST } else { 1.0 };
        let average = match way {
            Way::Together => &mut self.together,
            Way::Alone => &mut self.alone,
        };
        *average += weight * (time.as_secs_f64() - *average);
    }

    fn faster(&self) -> Way {
        if self.together <= self.alone { Way::Together } else { Way::Alone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs rows that take as long as given; how many ran together.
    fn run(pace: &mut Pace, rows: u32, together: u64, alone: u64) -> u32 {
        let mut shared = 0;
        for _ in 0..rows {
            let way = pace.next();
            shared += u32::from(way == Way::Together);
            let time = if way == Way::Together { together } else { alone };
            pace.took(way, Duration::from_micros(time));
        }
        shared
    }

    #[test]
    fn both_ways_are_tried_and_the_faster_one_is_kept() {
        assert!(run(&mut Pace::default(), 160, 600, 1000) >= 140);
        let shared = run(&mut Pace::default(), 160, 4000, 1000);
        assert!((1..=20).contains(&shared), "{shared}");
    }

    #[test]
    fn when_the_cores_are_taken_and_free_again_the_way_changes() {
        let mut pace = Pace::default();
        run(&mut pace, 64, 600, 1000);
        assert!(run(&mut pace, 160, 8000, 1000) <= 24);
        assert!(run(&mut pace, 480, 600, 1000) >= 400);
    }

    #[test]
    fn a_cold_start_is_forgotten_at_the_next_try() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(), Way::Together);
        pace.took(Way::Together, Duration::from_secs(1));
        assert!(run(&mut pace, 40, 600, 1000) >= 30);
    }
}
