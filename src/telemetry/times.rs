//! The times of one call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::labels::Stage;

/// The time of one call in each stage, summed over its pictures. Pictures pass through a stage in
/// parallel, so the sum of the stages may exceed the time of the call.
#[derive(Debug, Default)]
pub struct CallTimes {
    stages_us: [AtomicU64; Stage::ALL.len()],
    queue_us: AtomicU64,
}

impl CallTimes {
    /// Adds the time of one picture in `stage`.
    pub fn add_stage(&self, stage: Stage, time: Duration) {
        add(&self.stages_us[stage as usize], time);
    }

    /// Adds the time that one picture waited for a place or for a batch.
    pub fn add_wait(&self, time: Duration) {
        add(&self.queue_us, time);
    }

    /// Returns the milliseconds in `stage`, or `None` if the call never reached it.
    pub(super) fn stage_ms(&self, stage: Stage) -> Option<f64> {
        ms(&self.stages_us[stage as usize])
    }

    /// Returns the milliseconds of waiting, or `None` if nothing waited.
    pub(super) fn queue_ms(&self) -> Option<f64> {
        ms(&self.queue_us)
    }
}

/// Adds whole microseconds, and at least one, so that a stage that ran is never `None`.
fn add(sum_us: &AtomicU64, time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    // Relaxed: the sums are read once, after the call has ended, and order no other memory.
    sum_us.fetch_add(us, Ordering::Relaxed);
}

fn ms(sum_us: &AtomicU64) -> Option<f64> {
    let us = sum_us.load(Ordering::Relaxed);
    (us > 0).then_some(us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_and_those_that_did_not_happen_are_left_out() {
        let times = CallTimes::default();
        times.add_stage(Stage::Decode, Duration::from_micros(1500));
        times.add_stage(Stage::Decode, Duration::from_micros(250));
        times.add_stage(Stage::Align, Duration::ZERO);
        times.add_wait(Duration::from_millis(2));
        assert_eq!(times.stage_ms(Stage::Decode), Some(1.75));
        assert_eq!(times.stage_ms(Stage::Align), Some(0.001));
        assert_eq!(times.stage_ms(Stage::Embed), None);
        assert_eq!(times.queue_ms(), Some(2.0));
    }

    #[test]
    fn every_stage_has_a_sum_of_its_own() {
        let times = CallTimes::default();
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(times.stage_ms(stage), None, "{stage:?}");
            times.add_stage(stage, Duration::from_millis(1 + place as u64));
            assert_eq!(times.stage_ms(stage), Some(1.0 + place as f64));
        }
    }
}
