//! The queue of one live model version, and which of its rows run together. Pure: `now` comes in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::device::Placement;

/// What a lane is, fixed when it is made.
#[derive(Debug, Clone)]
pub(super) struct LaneSpec {
    /// How far into a request the model runs; rows of later stages go first, because they are
    /// closest to freeing their ticket.
    pub(super) stage: u8,
    /// Batch sizes the device is warmed for; at least one, none zero.
    pub(super) buckets: Vec<usize>,
    /// Most rows that wait here.
    pub(super) rows_max: usize,
    /// Longest time the oldest row waits for company; zero launches as soon as a slot is free.
    pub(super) delay_max: Duration,
    /// The devices that run the model.
    pub(super) placement: Placement,
}

/// One waiting row. `T` is what the shell needs to run and answer it; the lane never looks inside.
#[derive(Debug)]
pub(super) struct QueuedRow<T> {
    /// The row and whom to answer.
    pub(super) item: T,
    /// When the row was handed in.
    pub(super) arrived: Instant,
    /// From this moment on the row is not launched.
    pub(super) deadline: Instant,
}

/// The lane already holds `rows_max` rows; the row comes back.
#[derive(Debug)]
pub(super) struct LaneFull<T>(pub(super) QueuedRow<T>);

/// Why a batch took no further row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CloseReason {
    /// The largest bucket is filled.
    Full,
    /// The lane never waits for company.
    Greedy,
    /// The oldest row has waited `delay_max`.
    Delay,
    /// Waiting longer would have cost a row its deadline.
    Deadline,
}

/// Why a row left the queue without being launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DropReason {
    /// Its deadline passed.
    Expired,
    /// Its call left before the launch.
    Cancelled,
    /// Every device that runs the model is out of service.
    NoDevice,
}

/// First in, first out; bounded by [`LaneSpec::rows_max`].
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

    pub(super) fn stage(&self) -> u8 {
        self.spec.stage
    }

    pub(super) fn placement(&self) -> Placement {
        self.spec.placement
    }

    /// When the oldest row was handed in; `None` for an empty lane.
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

    /// Takes out every row that must not be launched, and keeps the order of the others.
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

    /// The moment from which a batch of this lane may start, and why then; `None` when empty.
    ///
    /// A lane waits for company only while no row's deadline falls inside that wait.
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

    /// Takes the oldest rows that run together, and the bucket they run in.
    pub(super) fn take_batch(&mut self) -> (usize, Vec<QueuedRow<T>>) {
        let bucket = choose_bucket(&self.spec.buckets, self.rows.len());
        let count = bucket.min(self.rows.len());
        (bucket, self.rows.drain(..count).collect())
    }

    /// Takes out every row.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = QueuedRow<T>> {
        self.rows.drain(..)
    }

    fn largest_bucket(&self) -> usize {
        self.spec.buckets.iter().copied().max().expect("a lane has at least one bucket")
    }
}

/// The bucket for `waiting` rows: the next larger one when at least three quarters of it would be
/// filled, else the next smaller one, so that at most a quarter of a batch is padding.
///
/// Only when `waiting` is less than every bucket is the smallest bucket padded further.
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
