//! The task that waits for rows, for slots of the devices and for results. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::answer::{RowAnswer, RowError};
use super::core::{Core, DroppedRow, FormedBatch, Next};
use super::lane::{DropReason, LaneSpec, QueuedRow};
use super::stats::LaneStats;
use super::tickets::Ticket;
use crate::device::{Batch, BatchOutcome, DeviceError, DeviceGroup, DeviceSet, LoadedModel, Slot};
use crate::image::RgbImage;

/// A row with its ticket, on its way to a lane.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: usize,
    pub(super) arrived: Instant,
    pub(super) row: RgbImage,
    pub(super) caller: RowCaller,
    /// A place of the lane, released when the row leaves the lane.
    pub(super) place: OwnedSemaphorePermit,
}

/// The caller of a row: its reply channel, and the ticket that is held until the row is answered.
#[derive(Debug)]
pub(super) struct RowCaller {
    pub(super) ticket: Arc<Ticket>,
    pub(super) reply: oneshot::Sender<Result<RowAnswer, RowError>>,
}

/// The model that a lane runs, and the metrics of the lane. The rows are in the [`Core`].
pub(super) struct LaneModel {
    pub(super) model: Arc<LoadedModel>,
    pub(super) stats: LaneStats,
}

/// A reserved slot, and the time until which its batch waits for more rows.
struct ReservedSlot<'group> {
    slot: Slot<'group>,
    wait_until: Option<Instant>,
}

/// A batch that has left its device. It has no outcome if the thread of the device has ended.
struct FinishedBatch {
    lane: usize,
    rows: Vec<InFlightRow>,
    outcome: Option<BatchOutcome>,
}

/// A row that was launched and not answered yet.
struct InFlightRow {
    caller: RowCaller,
    queue_time: Duration,
}

/// The state of the task, except the reserved slots, which borrow the group.
pub(super) struct Shell {
    core: Core<Job>,
    lanes: Vec<LaneModel>,
    in_service: DeviceSet,
    /// Batches of different devices finish in any order.
    in_flight: FuturesUnordered<BoxFuture<'static, FinishedBatch>>,
}

/// Runs until every sender of `jobs` is dropped and every row is answered.
pub(super) async fn run(group: Arc<DeviceGroup>, mut shell: Shell, mut jobs: mpsc::Receiver<Job>) {
    // At most one slot of each device.
    let mut reserved: Vec<ReservedSlot<'_>> = Vec::new();
    let mut health = group.health();
    shell.set_in_service(health.borrow_and_update().in_service());
    let mut is_open = true;
    while is_open || shell.has_work() {
        let wanted =
            shell.core.wanted().intersection(shell.in_service).difference(devices_of(&reserved));
        // The order matters. Results come first, to free their callers. Then all pending jobs are
        // taken in, at most one for each place, so that a batch is formed from all that arrived.
        tokio::select! {
            biased;
            Some(finished) = shell.in_flight.next(), if shell.has_in_flight() => {
                shell.answer(finished);
            }
            job = jobs.recv(), if is_open => match job {
                Some(job) => {
                    shell.push(job);
                    reserved.iter_mut().for_each(|slot| slot.wait_until = None);
                }
                None => is_open = false,
            },
            Ok(()) = health.changed() => {
                shell.set_in_service(health.borrow_and_update().in_service());
                reserved.retain(|reserved| shell.in_service.contains(reserved.slot.device()));
            }
            due = first_due(&reserved), if !reserved.is_empty() => {
                let ReservedSlot { slot, .. } = reserved.swap_remove(due);
                reserved.extend(shell.form_batch(slot));
            }
            // An error means that the devices went out of service: then `health` has changed too.
            Ok(slot) = group.reserve(wanted), if !wanted.is_empty() => {
                reserved.push(ReservedSlot { slot, wait_until: None });
            }
        }
    }
}

fn devices_of(reserved: &[ReservedSlot<'_>]) -> DeviceSet {
    DeviceSet::of(reserved.iter().map(|reserved| reserved.slot.device()))
}

/// Waits until the batch of a slot is due and returns the index of the slot.
///
/// # Panics
/// If `reserved` is empty.
async fn first_due(reserved: &[ReservedSlot<'_>]) -> usize {
    let first = reserved.iter().enumerate().min_by_key(|(_, slot)| slot.wait_until);
    let (first, slot) = first.expect("a slot is reserved");
    if let Some(at) = slot.wait_until {
        sleep_until(at).await;
    }
    first
}

impl Shell {
    /// Makes a shell with empty lanes. A lane is named by its index.
    pub(super) fn new(lanes: Vec<(LaneSpec, LaneModel)>) -> Self {
        let (specs, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        let (in_service, in_flight) = (DeviceSet::of([]), FuturesUnordered::new());
        Self { core: Core::new(specs), lanes, in_service, in_flight }
    }

    fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn has_work(&self) -> bool {
        !self.core.is_empty() || self.has_in_flight()
    }

    /// Stores which devices are in service, and refuses the rows that none of them can run.
    fn set_in_service(&mut self, in_service: DeviceSet) {
        self.in_service = in_service;
        self.refuse_unplaceable();
    }

    /// Refuses the rows that no device in service can run.
    fn refuse_unplaceable(&mut self) {
        for dropped in self.core.drop_unplaceable(self.in_service) {
            let lane = dropped.lane;
            self.refuse(dropped);
            self.count_waiting(lane);
        }
    }

    fn push(&mut self, job: Job) {
        let lane = job.lane;
        let deadline = job.caller.ticket.deadline();
        let row = QueuedRow { arrived: job.arrived, deadline, item: job };
        self.core.push(lane, row).expect("a job holds one of its lane's places");
        self.count_waiting(lane);
        self.refuse_unplaceable();
    }

    /// Launches a batch in the slot, gives the slot back, or returns it while rows wait for more.
    fn form_batch<'group>(&mut self, slot: Slot<'group>) -> Option<ReservedSlot<'group>> {
        let now = Instant::now();
        let decision = self.core.decide(now, slot.device(), |job| job.caller.reply.is_closed());
        for dropped in decision.dropped {
            self.refuse(dropped);
        }
        let reserved = match decision.next {
            Next::Idle => None,
            Next::WaitUntil(at) => Some(ReservedSlot { slot, wait_until: Some(at) }),
            Next::Launch(formed) => {
                self.launch(slot, formed, now);
                None
            }
        };
        (0..self.lanes.len()).for_each(|lane| self.count_waiting(lane));
        reserved
    }

    fn refuse(&self, dropped: DroppedRow<Job>) {
        self.lanes[dropped.lane].stats.row_dropped(dropped.reason);
        match dropped.reason {
            DropReason::Expired => dropped.row.item.caller.answer(Err(RowError::Expired)),
            DropReason::Cancelled => {}
            DropReason::NoDevice => {
                let error = RowError::Device(DeviceError::OutOfService);
                dropped.row.item.caller.answer(Err(error));
            }
        }
    }

    fn launch(&mut self, slot: Slot<'_>, formed: FormedBatch<Job>, now: Instant) {
        let FormedBatch { lane, bucket, rows, closed } = formed;
        let live = &self.lanes[lane];
        live.stats.batch_launched(rows.len(), bucket, closed);
        let mut images = Vec::with_capacity(rows.len());
        let mut in_flight = Vec::with_capacity(rows.len());
        for QueuedRow { item: job, arrived, .. } in rows {
            let queue_time = now.saturating_duration_since(arrived);
            live.stats.row_waited(queue_time);
            drop(job.place);
            images.push(job.row);
            in_flight.push(InFlightRow { caller: job.caller, queue_time });
        }
        let batch = Batch { model: Arc::clone(&live.model), rows: images, bucket };
        let outcome = slot.launch(batch);
        let finished =
            async move { FinishedBatch { lane, rows: in_flight, outcome: outcome.await.ok() } };
        self.in_flight.push(Box::pin(finished));
    }

    fn answer(&self, finished: FinishedBatch) {
        let FinishedBatch { lane, rows, outcome } = finished;
        let stats = &self.lanes[lane].stats;
        // Without an outcome the thread has ended. Dropping the rows closes the reply channels.
        let Some(outcome) = outcome else { return };
        stats.batch_ran(outcome.run_time, outcome.panics);
        for (row, result) in rows.into_iter().zip(outcome.results) {
            if result.is_err() {
                stats.row_failed();
            }
            let (queue_time, run_time) = (row.queue_time, outcome.run_time);
            let answer = result.map(|output| RowAnswer { output, queue_time, run_time });
            row.caller.answer(answer.map_err(RowError::Device));
        }
    }

    fn count_waiting(&self, lane: usize) {
        self.lanes[lane].stats.set_waiting(self.core.waiting(lane));
    }
}

impl RowCaller {
    fn answer(self, answer: Result<RowAnswer, RowError>) {
        // The caller may have left, which closes the channel.
        drop(self.reply.send(answer));
    }
}
