//! The task that waits: for rows, for slots of the devices, for results. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::answer::{Answer, RowError};
use super::core::{Core, Dropped, Formed, Next};
use super::lane::{DropReason, LaneSpec, Queued};
use super::stats::LaneStats;
use super::tickets::Ticket;
use crate::device::{Batch, BatchOutcome, Device, DeviceError, LoadedModel, Placement, Slot};
use crate::image::RgbImage;

/// A row with its ticket, on its way to a lane.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: usize,
    pub(super) arrived: Instant,
    pub(super) row: RgbImage,
    pub(super) caller: Caller,
    /// One of the lane's places, free again when the row leaves the lane.
    pub(super) place: OwnedSemaphorePermit,
}

/// Who waits for a row, and the ticket that stays taken until it is answered.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) ticket: Arc<Ticket>,
    pub(super) reply: oneshot::Sender<Result<Answer, RowError>>,
}

/// A live model and its counters.
pub(super) struct LiveLane {
    pub(super) model: Arc<LoadedModel>,
    pub(super) stats: LaneStats,
}

/// A reserved slot, and until when its batch waits for company.
struct Held<'device> {
    slot: Slot<'device>,
    wait_until: Option<Instant>,
}

/// A batch that has left its device; without an outcome when the device's thread has ended.
struct Landed {
    lane: usize,
    rows: Vec<Launched>,
    outcome: Option<BatchOutcome>,
}

/// A row on the device.
struct Launched {
    caller: Caller,
    queue_time: Duration,
}

/// Everything the task holds but slots.
pub(super) struct Shell {
    core: Core<Job>,
    lanes: Vec<LiveLane>,
    /// The devices in service.
    up: Placement,
    /// Batches of different devices end in any order.
    in_flight: FuturesUnordered<BoxFuture<'static, Landed>>,
}

/// Runs until nobody can hand in rows any more and every row has been answered.
pub(super) async fn run(device: Arc<Device>, mut shell: Shell, mut jobs: mpsc::Receiver<Job>) {
    // One slot of a device at most.
    let mut held: Vec<Held<'_>> = Vec::new();
    let mut health = device.health();
    shell.set_up(health.borrow_and_update().up());
    let mut is_open = true;
    while is_open || shell.has_work() {
        let wanted = shell.core.wanted().both(shell.up).without(devices(&held));
        // In this order: free callers first; then take in all there is, which the lanes' places
        // bound, so that a batch is formed from everything that has arrived.
        tokio::select! {
            biased;
            Some(landed) = shell.in_flight.next(), if shell.is_flying() => shell.answer(landed),
            job = jobs.recv(), if is_open => match job {
                Some(job) => {
                    shell.push(job);
                    held.iter_mut().for_each(|held| held.wait_until = None);
                }
                None => is_open = false,
            },
            Ok(()) = health.changed() => {
                shell.set_up(health.borrow_and_update().up());
                held.retain(|held| shell.up.contains(held.slot.device()));
            }
            due = first_due(&held), if !held.is_empty() => {
                let Held { slot, .. } = held.swap_remove(due);
                held.extend(shell.form(slot));
            }
            // An error says that a device went out; then its health has changed.
            Ok(slot) = device.reserve(wanted), if !wanted.is_empty() => {
                held.push(Held { slot, wait_until: None });
            }
        }
    }
}

fn devices(held: &[Held<'_>]) -> Placement {
    Placement::of(held.iter().map(|held| held.slot.device()))
}

/// Waits until the batch of one of the slots, of which there is at least one, is to be formed.
async fn first_due(held: &[Held<'_>]) -> usize {
    let first = held.iter().enumerate().min_by_key(|(_, held)| held.wait_until);
    let (first, held) = first.expect("a slot is held");
    if let Some(at) = held.wait_until {
        sleep_until(at).await;
    }
    first
}

impl Shell {
    /// A shell over lanes without rows; a lane is named by its position.
    pub(super) fn new(lanes: Vec<(LaneSpec, LiveLane)>) -> Self {
        let (specs, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        let (up, in_flight) = (Placement::of([]), FuturesUnordered::new());
        Self { core: Core::new(specs), lanes, up, in_flight }
    }

    fn is_flying(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn has_work(&self) -> bool {
        !self.core.is_empty() || self.is_flying()
    }

    /// Takes note of which devices are in service.
    fn set_up(&mut self, up: Placement) {
        self.up = up;
        self.strand();
    }

    /// Answers the rows that no device in service can run.
    fn strand(&mut self) {
        for dropped in self.core.strand(self.up) {
            let lane = dropped.lane;
            self.refuse(dropped);
            self.count_waiting(lane);
        }
    }

    fn push(&mut self, job: Job) {
        let lane = job.lane;
        let deadline = job.caller.ticket.deadline();
        let row = Queued { arrived: job.arrived, deadline, item: job };
        self.core.push(lane, row).expect("a job holds one of its lane's places");
        self.count_waiting(lane);
        self.strand();
    }

    /// Uses the slot now, gives it back, or keeps it while rows wait for company.
    fn form<'device>(&mut self, slot: Slot<'device>) -> Option<Held<'device>> {
        let now = Instant::now();
        let turn = self.core.next(now, slot.device(), |job| job.caller.reply.is_closed());
        for dropped in turn.dropped {
            self.refuse(dropped);
        }
        let held = match turn.next {
            Next::Idle => None,
            Next::WaitUntil(at) => Some(Held { slot, wait_until: Some(at) }),
            Next::Launch(formed) => {
                self.launch(slot, formed, now);
                None
            }
        };
        (0..self.lanes.len()).for_each(|lane| self.count_waiting(lane));
        held
    }

    fn refuse(&self, dropped: Dropped<Job>) {
        self.lanes[dropped.lane].stats.dropped(dropped.reason);
        match dropped.reason {
            DropReason::Expired => dropped.row.item.caller.answer(Err(RowError::Expired)),
            DropReason::Cancelled => {}
            DropReason::NoDevice => {
                let error = RowError::Device(DeviceError::OutOfService);
                dropped.row.item.caller.answer(Err(error));
            }
        }
    }

    fn launch(&mut self, slot: Slot<'_>, formed: Formed<Job>, now: Instant) {
        let Formed { lane, bucket, rows, closed } = formed;
        let live = &self.lanes[lane];
        live.stats.launched(rows.len(), bucket, closed);
        let mut images = Vec::with_capacity(rows.len());
        let mut launched = Vec::with_capacity(rows.len());
        for Queued { item: job, arrived, .. } in rows {
            let queue_time = now.saturating_duration_since(arrived);
            live.stats.waited(queue_time);
            drop(job.place);
            images.push(job.row);
            launched.push(Launched { caller: job.caller, queue_time });
        }
        let batch = Batch { model: Arc::clone(&live.model), rows: images, bucket };
        let outcome = slot.launch(batch);
        let landed = async move { Landed { lane, rows: launched, outcome: outcome.await.ok() } };
        self.in_flight.push(Box::pin(landed));
    }

    fn answer(&self, landed: Landed) {
        let Landed { lane, rows, outcome } = landed;
        let stats = &self.lanes[lane].stats;
        // Without an outcome the device is gone; dropping the rows tells their callers.
        let Some(outcome) = outcome else { return };
        stats.ran(outcome.run_time, outcome.panics);
        for (launched, result) in rows.into_iter().zip(outcome.rows) {
            if result.is_err() {
                stats.row_failed();
            }
            let (queue_time, run_time) = (launched.queue_time, outcome.run_time);
            let answer = result.map(|output| Answer { output, queue_time, run_time });
            launched.caller.answer(answer.map_err(RowError::Device));
        }
    }

    fn count_waiting(&self, lane: usize) {
        self.lanes[lane].stats.set_waiting(self.core.waiting(lane));
    }
}

impl Caller {
    fn answer(self, answer: Result<Answer, RowError>) {
        // Who asked may have left; then nobody wants the answer.
        drop(self.reply.send(answer));
    }
}
