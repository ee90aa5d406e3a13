//! Settings of queues and batches.

use std::num::NonZeroUsize;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::setting::{RangeCheck, Violation};

/// Section `scheduler`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerSettings {
    /// Most rows in the queue of one model, at least 1. While the queue is full, requests wait for
    /// a place in it.
    pub lane_rows_max: usize,
    /// Longest time a batch that is not full waits for more rows, in milliseconds. With 0 a batch
    /// starts as soon as a device is free.
    pub delay_max_ms: u64,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        // A row of the detector has 640 × 640 pixels, which are 1.2 MB, so 256 rows are 315 MB.
        Self { lane_rows_max: 256, delay_max_ms: 0 }
    }
}

impl SchedulerSettings {
    /// Returns the most rows in the queue of one model.
    pub fn lane_rows_max(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.lane_rows_max).unwrap_or(NonZeroUsize::MIN)
    }

    /// Returns the longest time a batch that is not full waits for more rows.
    pub fn delay_max(&self) -> Duration {
        Duration::from_millis(self.delay_max_ms)
    }

    /// Returns every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("scheduler");
        check.at_least_one("lane_rows_max", self.lane_rows_max);
        check.violations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_place_is_reported() {
        assert_eq!(SchedulerSettings::default().violations(), []);
        let settings = SchedulerSettings { lane_rows_max: 0, ..SchedulerSettings::default() };
        assert_eq!(settings.violations()[0].key, "scheduler.lane_rows_max");
    }
}
