//! The queue of one live model version, and the choice of the rows that run together. Pure: the
//! time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::device::DeviceSet;

/// The fixed properties of a lane.
#[derive(Debug, Clone)]
pub(super) struct LaneSpec {
    /// Rows of a higher priority go first. Models that run later in a request have a higher one,
    /// because their requests are closest to releasing the ticket.
    pub(super) priority: u8,
    /// Batch sizes the devices are warmed for: at least one, and none is zero.
    pub(super) buckets: Vec<usize>,
    /// Most rows that wait in the lane.
    pub(super) rows_max: usize,
    /// Longest time the oldest row waits for more rows. With zero a batch starts as soon as a slot
    /// is free.
    pub(super) delay_max: Duration,
    /// The devices that run the model.
    pub(super) placement: DeviceSet,
}

/// One waiting row. `T` is what the shell needs to run and answer the row; the lane does not use
/// it.
#[derive(Debug)]
pub(super) struct QueuedRow<T> {
    /// The row and its reply channel.
    pub(super) item: T,
    /// When the row was submitted.
    pub(super) arrived: Instant,
    /// The row is not launched at or after this time.
    pub(super) deadline: Instant,
}

/// The lane already holds `rows_max` rows. Returns the row.
#[derive(Debug)]
pub(super) struct LaneFull<T>(pub(super) QueuedRow<T>);

/// Why a batch takes no further row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CloseReason {
    /// The rows fill the largest bucket.
    Full,
    /// `delay_max` is zero, so the lane never waits for more rows.
    Greedy,
    /// The oldest row has waited `delay_max`.
    Delay,
    /// The deadline of a row passes within `delay_max`.
    Deadline,
}

/// Why a row left the lane without being launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DropReason {
    /// The deadline passed.
    Expired,
    /// The caller left before the launch.
    Cancelled,
    /// Every device that runs the model is out of service.
    NoDevice,
}

/// A queue in order of arrival, bounded by [`LaneSpec::rows_max`].
#[derive(Debug)]
pub(super) struct Lane<T> {
    spec: LaneSpec,
    rows: VecDeque<QueuedRow<T>>,
}

impl<T> Lane<T> {
    pub(super) fn new(spec: LaneSpec) -> Self {
        debug_assert!(!spec.buckets.is_empty() && !spec.buckets.contains(&0));
        Self { spec, rows: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn priority(&self) -> u8 {
        self.spec.priority
    }

    pub(super) fn placement(&self) -> DeviceSet {
        self.spec.placement
    }

    /// Returns when the oldest row was submitted, or `None` if the lane is empty.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.rows.front().map(|row| row.arrived)
    }

    pub(super) fn push(&mut self, row: QueuedRow<T>) -> Result<(), LaneFull<T>> {
        if self.rows.len() >= self.spec.rows_max {
            return Err(LaneFull(row));
        }
        self.rows.push_back(row);
        Ok(())
    }

    /// Removes and returns the expired and the cancelled rows. The others keep their order.
    pub(super) fn drop_stale(
        &mut self,
        now: Instant,
        is_cancelled: impl Fn(&T) -> bool,
    ) -> Vec<(QueuedRow<T>, DropReason)> {
        let mut dropped = Vec::new();
        for _ in 0..self.rows.len() {
            let Some(row) = self.rows.pop_front() else { break };
            if row.deadline <= now {
                dropped.push((row, DropReason::Expired));
            } else if is_cancelled(&row.item) {
                dropped.push((row, DropReason::Cancelled));
            } else {
                self.rows.push_back(row);
            }
        }
        dropped
    }

    /// Returns the time from which a batch of this lane may start, and the reason, or `None` if the
    /// lane is empty. A batch that need not wait may start from the arrival of its oldest row.
    ///
    /// A lane waits for more rows only if no row's deadline falls within the wait.
    pub(super) fn closes_at(&self) -> Option<(Instant, CloseReason)> {
        let oldest = self.oldest()?;
        if self.rows.len() >= self.largest_bucket() {
            return Some((oldest, CloseReason::Full));
        }
        if self.spec.delay_max.is_zero() {
            return Some((oldest, CloseReason::Greedy));
        }
        let delay_ends = oldest + self.spec.delay_max;
        if self.rows.iter().any(|row| row.deadline <= delay_ends) {
            return Some((oldest, CloseReason::Deadline));
        }
        Some((delay_ends, CloseReason::Delay))
    }

    /// Removes the oldest rows that run together. Returns their bucket and the rows.
    pub(super) fn take_batch(&mut self) -> (usize, Vec<QueuedRow<T>>) {
        let bucket = choose_bucket(&self.spec.buckets, self.rows.len());
        let count = bucket.min(self.rows.len());
        (bucket, self.rows.drain(..count).collect())
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = QueuedRow<T>> {
        self.rows.drain(..)
    }

    fn largest_bucket(&self) -> usize {
        self.spec.buckets.iter().copied().max().expect("a lane has at least one bucket")
    }
}

/// Returns the bucket for `waiting` rows: the next larger one if the rows fill at least three
/// quarters of it, else the next smaller one. So at most a quarter of a batch is padding.
///
/// Exception: fewer rows than the smallest bucket run in the smallest bucket, with any padding.
pub(super) fn choose_bucket(buckets: &[usize], waiting: usize) -> usize {
    let above = buckets.iter().copied().filter(|bucket| *bucket >= waiting).min();
    let below = buckets.iter().copied().filter(|bucket| *bucket <= waiting).max();
    match (below, above) {
        (Some(_), Some(above)) if waiting * 4 >= above * 3 => above,
        (Some(below), _) => below,
        (None, above) => above.expect("a lane has at least one bucket"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bucket_is_padded_by_a_quarter_at_most() {
        let cases = [(1, 1), (2, 1), (3, 4), (4, 4), (5, 4), (6, 8), (7, 8), (8, 8), (20, 8)];
        for (waiting, bucket) in cases {
            assert_eq!(choose_bucket(&[1, 4, 8], waiting), bucket, "{waiting} waiting");
        }
    }

    #[test]
    fn fewer_rows_than_the_smallest_bucket_pad_the_smallest_bucket() {
        assert_eq!(choose_bucket(&[4, 8], 1), 4);
    }

    proptest! {
        #[test]
        fn the_order_of_the_buckets_does_not_matter_and_the_choice_is_one_of_them(
            mut buckets in prop::collection::vec(1_usize..64, 1..6),
            waiting in 1_usize..200,
        ) {
            let chosen = choose_bucket(&buckets, waiting);
            prop_assert!(buckets.contains(&chosen));
            let smallest = buckets.iter().copied().min().unwrap();
            prop_assert!(chosen <= waiting || chosen * 3 <= waiting * 4 || chosen == smallest);
            buckets.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(choose_bucket(&buckets, waiting), chosen);
        }
    }
}
