//! The task that waits: for rows, for a slot of the device, for results. It decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::core::{Core, Dropped, Formed, Next};
use super::handle::{Answer, RowError};
use super::lane::{DropReason, LaneSpec, Queued};
use super::stats::LaneStats;
use super::tickets::Ticket;
use crate::device::{Batch, BatchOutcome, Device, DeviceError, LoadedModel, Slot};
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

/// What the task listens to besides its device.
pub(super) struct Inlets {
    pub(super) jobs: mpsc::Receiver<Job>,
    /// Turns true, or closes, when no further row is to be taken.
    pub(super) is_draining: watch::Receiver<bool>,
    /// Closes when the task has ended.
    pub(super) ended: watch::Sender<()>,
}

/// A reserved slot, and until when its batch waits for company.
struct Held<'device> {
    slot: Slot<'device>,
    wait_until: Option<Instant>,
}

/// A batch on the device.
struct Flight {
    lane: usize,
    rows: Vec<Launched>,
    outcome: oneshot::Receiver<BatchOutcome>,
}

/// A row on the device.
struct Launched {
    caller: Caller,
    queue_time: Duration,
}

/// Everything the task holds.
pub(super) struct Shell {
    core: Core<Job>,
    lanes: Vec<LiveLane>,
    /// A device runs batches in the order of their launch, so the front ends first.
    in_flight: VecDeque<Flight>,
}

/// Runs until nobody can hand in rows any more and every row has been answered.
pub(super) async fn run(device: Arc<Device>, mut shell: Shell, mut inlets: Inlets) {
    let mut held: Option<Held<'_>> = None;
    let mut is_draining = false;
    let mut is_open = true;
    while is_open || shell.has_work() {
        // In this order: free callers first; then take in all there is, which the lanes' places
        // bound, so that a batch is formed from everything that has arrived.
        tokio::select! {
            biased;
            outcome = shell.outcome(), if shell.is_flying() => shell.answer(outcome),
            job = inlets.jobs.recv(), if is_open => match job {
                Some(job) => {
                    shell.push(job);
                    held = held.map(|Held { slot, .. }| Held { slot, wait_until: None });
                }
                None => is_open = false,
            },
            _ = inlets.is_draining.wait_for(|draining| *draining), if !is_draining => {
                is_draining = true;
                inlets.jobs.close();
            }
            reserved = device.reserve(), if held.is_none() && shell.is_waiting() => match reserved {
                Ok(slot) => held = Some(Held { slot, wait_until: None }),
                // The device is gone; dropping the rows tells their callers.
                Err(_) => break,
            },
            () = wait_until(&held), if held.is_some() => {
                held = held.and_then(|Held { slot, .. }| shell.form(slot));
            }
        }
    }
    drop(inlets.ended);
}

async fn wait_until(held: &Option<Held<'_>>) {
    if let Some(at) = held.as_ref().and_then(|held| held.wait_until) {
        sleep_until(at).await;
    }
}

impl Shell {
    /// A shell over lanes without rows; a lane is named by its position.
    pub(super) fn new(lanes: Vec<(LaneSpec, LiveLane)>) -> Self {
        let (specs, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        Self { core: Core::new(specs), lanes, in_flight: VecDeque::new() }
    }

    fn is_waiting(&self) -> bool {
        !self.core.is_empty()
    }

    fn is_flying(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn has_work(&self) -> bool {
        self.is_waiting() || self.is_flying()
    }

    fn push(&mut self, job: Job) {
        let lane = job.lane;
        let deadline = job.caller.ticket.deadline();
        let row = Queued { arrived: job.arrived, deadline, item: job };
        self.core.push(lane, row).expect("a job holds one of its lane's places");
        self.count_waiting(lane);
    }

    /// Uses the slot now, gives it back, or keeps it while rows wait for company.
    fn form<'device>(&mut self, slot: Slot<'device>) -> Option<Held<'device>> {
        let now = Instant::now();
        let turn = self.core.next(now, |job| job.caller.reply.is_closed());
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
            DropReason::Abandoned => {}
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
        self.in_flight.push_back(Flight { lane, rows: launched, outcome: slot.launch(batch) });
    }

    /// The outcome of the front batch, which must exist.
    async fn outcome(&mut self) -> Result<BatchOutcome, DeviceError> {
        let front = self.in_flight.front_mut().expect("a batch is in flight");
        (&mut front.outcome).await.map_err(|_| DeviceError::Stopped)
    }

    fn answer(&mut self, outcome: Result<BatchOutcome, DeviceError>) {
        let Some(flight) = self.in_flight.pop_front() else { return };
        let stats = &self.lanes[flight.lane].stats;
        // Without an outcome the device is gone; dropping the rows tells their callers.
        let Ok(outcome) = outcome else { return };
        stats.ran(outcome.run_time, outcome.panics);
        let batch_rows = outcome.rows.len();
        for (launched, result) in flight.rows.into_iter().zip(outcome.rows) {
            if result.is_err() {
                stats.row_failed();
            }
            let (queue_time, run_time) = (launched.queue_time, outcome.run_time);
            let answer = result.map(|output| Answer { output, queue_time, run_time, batch_rows });
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
