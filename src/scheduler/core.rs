//! Decides which rows run next, from the lanes of one device group.
//!
//! The input is data and `now`, the output is a decision. There is no clock, channel or task here.
//! The shell asks once for each reserved slot, and names the slot's device.

use std::cmp::Reverse;

use tokio::time::Instant;

use super::lane::{CloseReason, DropReason, Lane, LaneFull, LaneSpec, QueuedRow};
use crate::device::DeviceSet;

/// What to do with a reserved slot.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Give the slot back: no row waits for this device.
    Idle,
    /// Keep the slot: rows wait for more rows. Ask again at this time, or when a row arrives.
    WaitUntil(Instant),
    /// Run this batch now.
    Launch(FormedBatch<T>),
}

/// A batch that is ready to be launched.
#[derive(Debug)]
pub(super) struct FormedBatch<T> {
    /// Index of the lane.
    pub(super) lane: usize,
    /// Batch size to run, at least the number of rows.
    pub(super) bucket: usize,
    /// At least one row, the oldest first.
    pub(super) rows: Vec<QueuedRow<T>>,
    /// Why the batch takes no further row.
    pub(super) closed: CloseReason,
}

/// A row that left its lane without being launched.
#[derive(Debug)]
pub(super) struct DroppedRow<T> {
    /// Index of the lane.
    pub(super) lane: usize,
    /// The row, which the shell must answer.
    pub(super) row: QueuedRow<T>,
    pub(super) reason: DropReason,
}

/// The result of [`Core::decide`].
#[derive(Debug)]
pub(super) struct SlotDecision<T> {
    /// Rows that were dropped before a batch was formed.
    pub(super) dropped: Vec<DroppedRow<T>>,
    /// What to do with the slot.
    pub(super) next: Next<T>,
}

/// All lanes that share a group of devices.
#[derive(Debug)]
pub(super) struct Core<T> {
    lanes: Vec<Lane<T>>,
}

impl<T> Core<T> {
    /// Makes one lane for each spec. A lane is named by its index.
    pub(super) fn new(specs: impl IntoIterator<Item = LaneSpec>) -> Self {
        Self { lanes: specs.into_iter().map(Lane::new).collect() }
    }

    /// Adds a row at the end of a lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub(super) fn push(&mut self, lane: usize, row: QueuedRow<T>) -> Result<(), LaneFull<T>> {
        self.lanes[lane].push(row)
    }

    /// Returns the number of rows that wait in a lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub(super) fn waiting(&self, lane: usize) -> usize {
        self.lanes[lane].len()
    }

    /// Returns true if no row waits in any lane.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.len() == 0)
    }

    /// Returns the devices that can run at least one waiting row.
    pub(super) fn wanted(&self) -> DeviceSet {
        let waiting = self.lanes.iter().filter(|lane| lane.len() > 0);
        waiting.fold(DeviceSet::of([]), |wanted, lane| wanted.union(lane.placement()))
    }

    /// Removes and returns the rows that no device of `in_service` can run.
    pub(super) fn drop_unplaceable(&mut self, in_service: DeviceSet) -> Vec<DroppedRow<T>> {
        let mut dropped = Vec::new();
        for (lane, queue) in self.lanes.iter_mut().enumerate() {
            if queue.placement().intersection(in_service).is_empty() {
                let reason = DropReason::NoDevice;
                dropped.extend(queue.take_all().map(|row| DroppedRow { lane, row, reason }));
            }
        }
        dropped
    }

    /// Drops stale rows of all lanes, then decides what a free slot of `device` does at `now`.
    ///
    /// Only lanes placed on `device` count. Among them the highest priority goes first, and within
    /// a priority the lane with the oldest row.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        device: usize,
        is_cancelled: impl Fn(&T) -> bool,
    ) -> SlotDecision<T> {
        let dropped = self.drop_stale(now, is_cancelled);
        let next = match self.first_closed(now, device) {
            Some((lane, closed)) => {
                let (bucket, rows) = self.lanes[lane].take_batch();
                Next::Launch(FormedBatch { lane, bucket, rows, closed })
            }
            None => self.earliest_close(device).map_or(Next::Idle, Next::WaitUntil),
        };
        SlotDecision { dropped, next }
    }

    fn drop_stale(
        &mut self,
        now: Instant,
        is_cancelled: impl Fn(&T) -> bool,
    ) -> Vec<DroppedRow<T>> {
        let mut dropped = Vec::new();
        for (lane, queue) in self.lanes.iter_mut().enumerate() {
            let stale = queue.drop_stale(now, &is_cancelled).into_iter();
            dropped.extend(stale.map(|(row, reason)| DroppedRow { lane, row, reason }));
        }
        dropped
    }

    /// Returns the lane on `device` whose batch goes first among those that may start at `now`.
    fn first_closed(&self, now: Instant, device: usize) -> Option<(usize, CloseReason)> {
        let closed = self.placed_on(device).filter_map(|(index, lane)| {
            let (at, reason) = lane.closes_at()?;
            (at <= now).then_some((index, lane, reason))
        });
        let first = closed.min_by_key(|(_, lane, _)| (Reverse(lane.priority()), lane.oldest()));
        first.map(|(index, _, reason)| (index, reason))
    }

    /// Returns when the first batch on `device` may start, or `None` if no row waits for it.
    fn earliest_close(&self, device: usize) -> Option<Instant> {
        self.placed_on(device).filter_map(|(_, lane)| lane.closes_at()).map(|(at, _)| at).min()
    }

    fn placed_on(&self, device: usize) -> impl Iterator<Item = (usize, &Lane<T>)> {
        self.lanes.iter().enumerate().filter(move |(_, lane)| lane.placement().contains(device))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::device::fixture::all_devices;

    const MS: Duration = Duration::from_millis(1);

    fn spec(priority: u8, buckets: &[usize], rows_max: usize, delay_ms: u32) -> LaneSpec {
        let placement = all_devices();
        LaneSpec {
            priority,
            buckets: buckets.to_vec(),
            rows_max,
            delay_max: MS * delay_ms,
            placement,
        }
    }

    fn placed(spec: LaneSpec, devices: impl IntoIterator<Item = usize>) -> LaneSpec {
        LaneSpec { placement: DeviceSet::of(devices), ..spec }
    }

    fn row(item: u32, arrived: Instant, life_ms: u32) -> QueuedRow<u32> {
        QueuedRow { item, arrived, deadline: arrived + MS * life_ms }
    }

    fn launched(next: Next<u32>) -> (usize, usize, Vec<u32>, CloseReason) {
        let Next::Launch(formed) = next else { panic!("expected a launch, got {next:?}") };
        let items = formed.rows.iter().map(|row| row.item).collect();
        (formed.lane, formed.bucket, items, formed.closed)
    }

    #[test]
    fn later_stages_go_first_then_the_lane_with_the_oldest_row() {
        let t0 = Instant::now();
        let specs = [spec(0, &[1], 8, 0), spec(1, &[1], 8, 0), spec(1, &[1], 8, 0)];
        let mut core = Core::new(specs);
        core.push(0, row(10, t0, 1000)).unwrap();
        core.push(2, row(30, t0 + MS, 1000)).unwrap();
        core.push(1, row(20, t0 + MS * 2, 1000)).unwrap();
        let now = t0 + MS * 3;
        let order: Vec<_> =
            (0..3).map(|_| launched(core.decide(now, 0, |_| false).next).0).collect();
        assert_eq!(order, [2, 1, 0]);
        assert!(core.is_empty());
    }

    #[test]
    fn a_full_lane_gives_the_row_back() {
        let t0 = Instant::now();
        let mut core = Core::new([spec(0, &[4], 1, 0)]);
        core.push(0, row(1, t0, 10)).unwrap();
        let LaneFull(back) = core.push(0, row(2, t0, 10)).unwrap_err();
        assert_eq!(back.item, 2);
        assert_eq!(core.waiting(0), 1);
    }

    #[test]
    fn expired_and_cancelled_rows_are_taken_out_before_the_batch_is_formed() {
        let t0 = Instant::now();
        let mut core = Core::new([spec(0, &[1, 2], 8, 0)]);
        core.push(0, row(1, t0, 5)).unwrap();
        core.push(0, row(2, t0, 1000)).unwrap();
        core.push(0, row(3, t0, 1000)).unwrap();
        let decision = core.decide(t0 + MS * 5, 0, |item| *item == 2);
        let dropped: Vec<_> = decision.dropped.iter().map(|d| (d.row.item, d.reason)).collect();
        assert_eq!(dropped, [(1, DropReason::Expired), (2, DropReason::Cancelled)]);
        assert_eq!(launched(decision.next), (0, 1, vec![3], CloseReason::Greedy));
    }

    #[test]
    fn a_lane_waits_for_more_rows_no_longer_than_its_delay() {
        let t0 = Instant::now();
        let mut core = Core::new([spec(0, &[1, 2, 4], 8, 10)]);
        core.push(0, row(1, t0, 1000)).unwrap();
        core.push(0, row(2, t0 + MS * 4, 1000)).unwrap();
        let Next::WaitUntil(at) = core.decide(t0 + MS * 4, 0, |_| false).next else { panic!() };
        assert_eq!(at, t0 + MS * 10);
        let batch = launched(core.decide(at, 0, |_| false).next);
        assert_eq!(batch, (0, 2, vec![1, 2], CloseReason::Delay));
    }

    #[test]
    fn a_filled_bucket_ends_the_delay() {
        let t0 = Instant::now();
        let mut core = Core::new([spec(0, &[2], 8, 10)]);
        core.push(0, row(1, t0, 1000)).unwrap();
        core.push(0, row(2, t0, 1000)).unwrap();
        let batch = launched(core.decide(t0, 0, |_| false).next);
        assert_eq!(batch, (0, 2, vec![1, 2], CloseReason::Full));
    }

    #[test]
    fn a_deadline_inside_the_delay_ends_the_delay() {
        let t0 = Instant::now();
        let mut core = Core::new([spec(0, &[1, 4], 8, 10)]);
        core.push(0, row(1, t0, 10)).unwrap();
        assert_eq!(launched(core.decide(t0, 0, |_| false).next).3, CloseReason::Deadline);
    }

    #[test]
    fn a_slot_serves_the_lanes_placed_on_its_device() {
        let t0 = Instant::now();
        let mut core = Core::new([
            placed(spec(1, &[1], 8, 0), [0]),
            placed(spec(0, &[1], 8, 0), [1]),
            placed(spec(0, &[1, 4], 8, 10), [2]),
        ]);
        assert!(core.wanted().is_empty());
        (0..3).for_each(|lane| core.push(lane, row(0, t0, 1000)).unwrap());
        assert_eq!(core.wanted(), DeviceSet::of([0, 1, 2]));
        assert_eq!(launched(core.decide(t0, 1, |_| false).next).0, 1, "not the higher priority");
        assert!(matches!(core.decide(t0, 1, |_| false).next, Next::Idle));
        assert_eq!(core.wanted(), DeviceSet::of([0, 2]));
        let Next::WaitUntil(at) = core.decide(t0, 2, |_| false).next else { panic!() };
        assert_eq!(at, t0 + MS * 10);
    }

    #[test]
    fn rows_without_a_device_in_service_are_taken_out_and_others_stay() {
        let t0 = Instant::now();
        let (both, first) = (spec(0, &[1], 8, 0), spec(0, &[1], 8, 0));
        let mut core = Core::new([placed(both, [0, 1]), placed(first, [0])]);
        (0..2).for_each(|lane| core.push(lane, row(0, t0, 1000)).unwrap());
        assert!(core.drop_unplaceable(DeviceSet::of([0, 1])).is_empty());
        let dropped = core.drop_unplaceable(DeviceSet::of([1]));
        let lanes: Vec<_> = dropped.iter().map(|d| (d.lane, d.reason)).collect();
        assert_eq!(lanes, [(1, DropReason::NoDevice)]);
        assert_eq!((core.waiting(0), core.waiting(1)), (1, 0));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Push { lane: usize, life_ms: u32 },
        Advance { by_ms: u32 },
        SlotFree { device: usize },
        Cancel { nth: usize },
        InService { devices: Vec<usize> },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0_usize..3, 1_u32..40).prop_map(|(lane, life_ms)| Event::Push { lane, life_ms }),
            2 => (1_u32..8).prop_map(|by_ms| Event::Advance { by_ms }),
            2 => (0_usize..2).prop_map(|device| Event::SlotFree { device }),
            1 => (0_usize..64).prop_map(|nth| Event::Cancel { nth }),
            1 => prop::collection::vec(0_usize..2, 0..3)
                .prop_map(|devices| Event::InService { devices }),
        ];
        prop::collection::vec(event, 1..200)
    }

    /// A row as its owner knows it.
    #[derive(Debug, Clone, Copy)]
    struct KnownRow {
        item: u32,
        lane: usize,
        arrived: Instant,
        deadline: Instant,
    }

    /// The state that the owners of the rows know. Each decision of the core is checked against it.
    struct Oracle {
        specs: [LaneSpec; 3],
        core: Core<u32>,
        now: Instant,
        /// The oldest first.
        waiting: Vec<KnownRow>,
        cancelled: BTreeSet<u32>,
        pushed: u32,
        in_service: DeviceSet,
    }

    /// Lanes placed on two devices, or on every device if `placed_apart` is false.
    fn specs(placed_apart: bool) -> [LaneSpec; 3] {
        let specs = [spec(0, &[1, 4, 8], 10, 0), spec(1, &[1, 2, 4], 6, 5), spec(1, &[3], 5, 2)];
        let [both, first, second] = specs;
        if placed_apart {
            [placed(both, [0, 1]), placed(first, [0]), placed(second, [1])]
        } else {
            [both, first, second]
        }
    }

    impl Oracle {
        fn new(placed_apart: bool) -> Self {
            let specs = specs(placed_apart);
            Self {
                core: Core::new(specs.clone()),
                specs,
                now: Instant::now(),
                waiting: Vec::new(),
                cancelled: BTreeSet::new(),
                pushed: 0,
                in_service: DeviceSet::of([0, 1]),
            }
        }

        fn apply(&mut self, event: &Event) -> Result<(), TestCaseError> {
            match event {
                Event::Push { lane, life_ms } => self.push(*lane, *life_ms)?,
                Event::Advance { by_ms } => self.now += MS * *by_ms,
                Event::SlotFree { device } => drop(self.slot_free(*device)?),
                Event::InService { devices } => {
                    self.set_in_service(DeviceSet::of(devices.clone()))?;
                }
                Event::Cancel { nth } => {
                    self.cancelled.extend(self.waiting.get(*nth).map(|row| row.item));
                }
            }
            for (lane, spec) in self.specs.iter().enumerate() {
                prop_assert_eq!(self.core.waiting(lane), self.count_in(lane));
                prop_assert!(self.core.waiting(lane) <= spec.rows_max);
            }
            Ok(())
        }

        fn count_in(&self, lane: usize) -> usize {
            self.waiting.iter().filter(|row| row.lane == lane).count()
        }

        fn push(&mut self, lane: usize, life_ms: u32) -> Result<(), TestCaseError> {
            let has_room = self.count_in(lane) < self.specs[lane].rows_max;
            let new = row(self.pushed, self.now, life_ms);
            let QueuedRow { item, arrived, deadline } = new;
            let known = KnownRow { item, lane, arrived, deadline };
            prop_assert_eq!(self.core.push(lane, new).is_ok(), has_room);
            self.pushed += 1;
            self.waiting.extend(has_room.then_some(known));
            self.set_in_service(self.in_service)
        }

        /// Drops unplaceable rows, as the shell does after every change and every pushed row.
        fn set_in_service(&mut self, in_service: DeviceSet) -> Result<(), TestCaseError> {
            self.in_service = in_service;
            let dropped = self.core.drop_unplaceable(in_service);
            self.check_dropped(&dropped)?;
            let can_run = |row: &KnownRow| {
                !self.specs[row.lane].placement.intersection(in_service).is_empty()
            };
            prop_assert!(self.waiting.iter().all(can_run), "a row waits for no device");
            Ok(())
        }

        /// Checks one decision. Returns true if a batch was launched.
        fn slot_free(&mut self, device: usize) -> Result<bool, TestCaseError> {
            if !self.in_service.contains(device) {
                return Ok(false);
            }
            let decision = self.core.decide(self.now, device, |item| self.cancelled.contains(item));
            self.check_dropped(&decision.dropped)?;
            match decision.next {
                Next::Idle => prop_assert!(self.placed_on(device).is_empty()),
                Next::WaitUntil(at) => self.check_wait(at, device)?,
                Next::Launch(formed) => {
                    self.check_launch(formed, device)?;
                    return Ok(true);
                }
            }
            Ok(false)
        }

        fn placed_on(&self, device: usize) -> Vec<KnownRow> {
            let is_placed = |row: &&KnownRow| self.specs[row.lane].placement.contains(device);
            self.waiting.iter().filter(is_placed).copied().collect()
        }

        fn check_dropped(&mut self, dropped: &[DroppedRow<u32>]) -> Result<(), TestCaseError> {
            for dropped in dropped {
                let known = self.remove(dropped.lane, dropped.row.item)?;
                match dropped.reason {
                    DropReason::Expired => prop_assert!(known.deadline <= self.now),
                    DropReason::Cancelled => {
                        prop_assert!(self.cancelled.contains(&dropped.row.item));
                    }
                    DropReason::NoDevice => {
                        let placement = self.specs[known.lane].placement;
                        prop_assert!(placement.intersection(self.in_service).is_empty());
                    }
                }
            }
            Ok(())
        }

        fn remove(&mut self, lane: usize, item: u32) -> Result<KnownRow, TestCaseError> {
            let found = self.waiting.iter().position(|row| (row.item, row.lane) == (item, lane));
            prop_assert!(found.is_some(), "row {} was answered twice or never pushed", item);
            Ok(self.waiting.remove(found.unwrap()))
        }

        fn check_wait(&self, at: Instant, device: usize) -> Result<(), TestCaseError> {
            prop_assert!(at > self.now);
            prop_assert!(!self.placed_on(device).is_empty());
            for row in &self.placed_on(device) {
                prop_assert!(row.deadline > at, "waiting would cost a row its deadline");
                let delay_max = self.specs[row.lane].delay_max;
                prop_assert!(at <= row.arrived + delay_max, "waited too long");
            }
            Ok(())
        }

        fn check_launch(
            &mut self,
            formed: FormedBatch<u32>,
            device: usize,
        ) -> Result<(), TestCaseError> {
            let spec = self.specs[formed.lane].clone();
            prop_assert!(spec.placement.contains(device), "launched where the model is not");
            prop_assert!(spec.buckets.contains(&formed.bucket));
            prop_assert!(!formed.rows.is_empty() && formed.rows.len() <= formed.bucket);
            for row in &formed.rows {
                let first_in_lane = self.waiting.iter().find(|known| known.lane == formed.lane);
                prop_assert_eq!(first_in_lane.map(|known| known.item), Some(row.item), "not FIFO");
                let known = self.remove(formed.lane, row.item)?;
                prop_assert!(known.deadline > self.now, "an expired row was launched");
                prop_assert!(!self.cancelled.contains(&row.item), "a cancelled row was launched");
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn every_row_is_launched_or_dropped_once_in_order_in_time_and_where_its_model_is(
            events in events(),
            placed_apart in any::<bool>(),
        ) {
            let mut oracle = Oracle::new(placed_apart);
            for event in &events {
                oracle.apply(event)?;
            }
            // From here on every slot is free: all remaining rows must leave the core.
            oracle.set_in_service(DeviceSet::of([0, 1]))?;
            for _ in 0..1000 {
                if oracle.waiting.is_empty() {
                    break;
                }
                if !oracle.slot_free(0)? && !oracle.slot_free(1)? {
                    oracle.now += MS;
                }
            }
            prop_assert!(oracle.waiting.is_empty(), "rows were lost: {:?}", oracle.waiting);
            prop_assert!(oracle.core.is_empty());
        }

        #[test]
        fn with_every_lane_on_every_device_it_does_not_matter_whose_slot_is_free(
            events in events(),
            devices in prop::collection::vec(0_usize..64, 200),
        ) {
            let (mut one, mut many) = (Core::new(specs(false)), Core::new(specs(false)));
            let mut now = Instant::now();
            for (k, event) in events.iter().enumerate() {
                match event {
                    Event::Push { lane, life_ms } => {
                        let new = |core: &mut Core<u32>| core.push(*lane, row(0, now, *life_ms));
                        prop_assert_eq!(new(&mut one).is_ok(), new(&mut many).is_ok());
                    }
                    Event::Advance { by_ms } => now += MS * *by_ms,
                    Event::SlotFree { .. } => {
                        let (one, many) = (
                            one.decide(now, 0, |_| false),
                            many.decide(now, devices[k], |_| false),
                        );
                        prop_assert_eq!(format!("{one:?}"), format!("{many:?}"));
                    }
                    Event::Cancel { .. } | Event::InService { .. } => {}
                }
            }
        }
    }
}
