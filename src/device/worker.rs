//! The thread of one device: takes work, keeps its machine busy, and brings it back when it is
//! lost.
//!
//! ```text
//! inbox → start → running (as many as slots) → finish the oldest → answer
//!           └─ lost → recovering: answer everything → wait, reopen, load all models again
//!                     → in service, or failed
//! ```
//!
//! It tells its watchdog what it is at. Once that has given it up it touches its machine no more.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::health::StateReporter;
use super::loaded::{LoadTiming, ModelKey};
use super::machine::Machine;
use super::running::{RunningBatch, TakenBatch};
use super::watchdog::{Heartbeat, Timeouts};
use super::{Batch, BatchOutcome, DeviceError, LoadedModel, Loss, load};
use crate::model::{ModelError, Package};

/// Poll interval for the oldest batch while a slot is free: up to 50 µs of latency, traded against
/// wake-ups.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// What a device's thread is asked to do. The permit is the place it holds in the inbox.
pub(super) enum Work {
    /// Load a model, check it and warm it.
    Load {
        model: Arc<LoadedModel>,
        package: Arc<Package>,
        reply: oneshot::Sender<Result<LoadTiming, DeviceError>>,
        permit: OwnedSemaphorePermit,
    },
    /// Run a batch.
    Run { batch: Batch, reply: oneshot::Sender<BatchOutcome>, permit: OwnedSemaphorePermit },
    /// Free networks whose handles are gone.
    Sweep { permit: OwnedSemaphorePermit },
}

/// How work gets in. The group holds it; closing it ends the thread.
pub(super) struct Inbox {
    sender: SyncSender<Work>,
    /// The inbox's one place for [`Work::Sweep`].
    sweep_place: Arc<Semaphore>,
}

impl Inbox {
    /// Places in an inbox besides its slots.
    pub(super) const SWEEP_PLACES: usize = 1;

    pub(super) fn new(sender: SyncSender<Work>) -> Self {
        Self { sender, sweep_place: Arc::new(Semaphore::new(Self::SWEEP_PLACES)) }
    }

    /// Never waits, because whoever sends holds one of the inbox's places. Work for a thread that
    /// has ended is dropped, and with it its reply channel.
    pub(super) fn send(&self, work: Work) {
        drop(self.sender.try_send(work));
    }

    /// Says that a handle is gone. While a request waits in the inbox, its sweep covers this handle
    /// too.
    pub(super) fn request_sweep(&self) {
        if let Ok(permit) = Arc::clone(&self.sweep_place).try_acquire_owned() {
            self.send(Work::Sweep { permit });
        }
    }
}

/// Everything the thread holds.
pub(super) struct Worker {
    machine: Machine,
    inbox: Receiver<Work>,
    slots: usize,
    reporter: StateReporter,
    heartbeat: Arc<Heartbeat>,
    timeouts: Timeouts,
    /// Oldest first.
    running: VecDeque<RunningBatch>,
    loaded: Vec<LoadedEntry>,
}

/// A model whose network the machine holds.
struct LoadedEntry {
    key: ModelKey,
    model: Weak<LoadedModel>,
}

/// The device was lost, and health says so.
struct ReportedLoss(Loss);

impl Worker {
    pub(super) fn new(
        machine: Machine,
        inbox: Receiver<Work>,
        slots: usize,
        reporter: StateReporter,
        heartbeat: Arc<Heartbeat>,
        timeouts: Timeouts,
    ) -> Self {
        let (running, loaded) = (VecDeque::new(), Vec::new());
        Self { machine, inbox, slots, reporter, heartbeat, timeouts, running, loaded }
    }

    /// Runs until the inbox is closed and everything in it is answered, or the device has hung.
    pub(super) fn serve(mut self) {
        while self.step().is_continue() {}
        if self.heartbeat.has_hung() {
            return self.leak_machine();
        }
        self.heartbeat.begin("closing the device", Instant::now(), self.timeouts.batch);
    }

    fn step(&mut self) -> ControlFlow<()> {
        let done = match self.next_work()? {
            Some(work) => self.handle(work),
            None => self.finish_oldest(),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(ReportedLoss(loss)) => self.recover(&loss),
        }
    }

    /// The next work; none when the oldest batch is to be finished: it has run, or every slot is
    /// taken, so that nothing could be started meanwhile.
    fn next_work(&self) -> ControlFlow<(), Option<Work>> {
        loop {
            if self.heartbeat.has_hung() {
                return ControlFlow::Break(());
            }
            let Some(RunningBatch { taken, started }) = self.running.front() else {
                self.heartbeat.set_idle();
                return match self.inbox.recv() {
                    Ok(work) => ControlFlow::Continue(Some(work)),
                    Err(_) => ControlFlow::Break(()),
                };
            };
            self.begin_batch(taken);
            let is_full = self.running.len() >= self.slots;
            let wait = if is_full { Duration::ZERO } else { POLL_INTERVAL };
            match self.inbox.recv_timeout(wait) {
                Ok(work) => return ControlFlow::Continue(Some(work)),
                Err(RecvTimeoutError::Timeout) if !is_full && !self.machine.has_run(started) => {}
                Err(_) => return ControlFlow::Continue(None),
            }
        }
    }

    fn handle(&mut self, work: Work) -> Result<(), ReportedLoss> {
        match work {
            Work::Run { batch, reply, permit } => {
                let taken = TakenBatch::new(batch, reply, permit);
                self.begin_batch(self.running.front().map_or(&taken, |oldest| &oldest.taken));
                let Batch { model, rows, bucket } = &taken.batch;
                let started = self.machine.start(model, rows, *bucket);
                let is_done = started.is_done();
                self.running.push_back(RunningBatch { taken, started });
                // What is done is answered before anything else is started.
                if is_done { self.finish_all() } else { Ok(()) }
            }
            Work::Load { model, package, reply, permit } => {
                let loaded = self.load(&model, &package);
                drop((model, package, permit));
                let lost = loaded.as_ref().err().and_then(|error| self.report_loss(error));
                // Who asked may have left; then the model is not needed.
                drop(reply.send(loaded));
                lost.map_or(Ok(()), Err)
            }
            Work::Sweep { permit } => {
                self.sweep(permit);
                Ok(())
            }
        }
    }

    /// Loads a model when no batch runs, so that its trial runs disturb nobody.
    fn load(
        &mut self,
        model: &Arc<LoadedModel>,
        package: &Package,
    ) -> Result<LoadTiming, DeviceError> {
        self.finish_all().map_err(|ReportedLoss(loss)| DeviceError::Lost(loss))?;
        self.begin_load();
        let load = AssertUnwindSafe(|| load::load(&mut self.machine, model, package));
        let loaded = catch_unwind(load).unwrap_or(Err(DeviceError::Panicked));
        match &loaded {
            Ok(_) => {
                self.loaded.push(LoadedEntry { key: model.key(), model: Arc::downgrade(model) });
            }
            Err(_) => self.machine.unload(model.key()),
        }
        loaded
    }

    /// The permit goes first: a handle dropped from here on requests another sweep.
    fn sweep(&mut self, permit: OwnedSemaphorePermit) {
        drop(permit);
        let Self { machine, loaded, .. } = self;
        loaded.retain(|entry| {
            let is_alive = entry.model.strong_count() > 0;
            if !is_alive {
                machine.unload(entry.key);
            }
            is_alive
        });
    }

    fn finish_all(&mut self) -> Result<(), ReportedLoss> {
        while !self.running.is_empty() {
            self.finish_oldest()?;
        }
        Ok(())
    }

    fn finish_oldest(&mut self) -> Result<(), ReportedLoss> {
        let Some(RunningBatch { taken, started }) = self.running.pop_front() else {
            return Ok(());
        };
        match self.machine.finish(started) {
            Ok(outputs) => {
                taken.answer(outputs.into_iter().map(Ok).collect(), 0);
                Ok(())
            }
            Err(error) => match self.report_loss(&error) {
                Some(lost) => Err(taken.refuse_and_pass_on(lost)),
                None => self.rerun_row_by_row(taken, error),
            },
        }
    }

    /// A batch that failed as a whole runs again row by row, so that only bad rows fail; first
    /// every batch that runs is finished, for a machine finishes in order.
    fn rerun_row_by_row(
        &mut self,
        taken: TakenBatch,
        error: DeviceError,
    ) -> Result<(), ReportedLoss> {
        if taken.batch.rows.len() <= 1 {
            taken.answer(vec![Err(error)], 0);
            return Ok(());
        }
        if let Err(lost) = self.finish_all() {
            return Err(taken.refuse_and_pass_on(lost));
        }
        let mut results = Vec::with_capacity(taken.batch.rows.len());
        for row in &taken.batch.rows {
            let result = self.machine.run_alone(&taken.batch.model, row);
            if let Some(lost) = result.as_ref().err().and_then(|error| self.report_loss(error)) {
                return Err(taken.refuse_and_pass_on(lost));
            }
            results.push(result);
        }
        taken.answer(results, usize::from(matches!(error, DeviceError::Panicked)));
        Ok(())
    }

    /// Whether `error` means that the device is lost. Then it is out of service from here on,
    /// before anybody hears of it.
    fn report_loss(&self, error: &DeviceError) -> Option<ReportedLoss> {
        let loss = error.loss()?;
        self.reporter.on_lost(loss);
        Some(ReportedLoss(loss.clone()))
    }

    /// Answers everything with the loss and tries to come back. Breaks when the inbox is closed.
    fn recover(&mut self, loss: &Loss) -> ControlFlow<()> {
        for batch in std::mem::take(&mut self.running) {
            batch.taken.refuse(loss);
        }
        for delay in self.timeouts.reopen_delays.clone() {
            self.refuse_work_for(delay, loss)?;
            let reopen = AssertUnwindSafe(|| self.reopen());
            match catch_unwind(reopen).unwrap_or(Err(DeviceError::Panicked)) {
                Ok(()) => {
                    self.reporter.on_reopened();
                    return ControlFlow::Continue(());
                }
                Err(error) => self.reporter.on_reopen_error(&error),
            }
        }
        self.reporter.on_failed();
        self.heartbeat.set_idle();
        while let Ok(work) = self.inbox.recv() {
            self.refuse(work, loss);
        }
        ControlFlow::Break(())
    }

    /// Breaks when the inbox is closed, or the device had hung before.
    fn refuse_work_for(&mut self, delay: Duration, loss: &Loss) -> ControlFlow<()> {
        if self.heartbeat.has_hung() {
            return ControlFlow::Break(());
        }
        self.heartbeat.set_idle();
        let end = Instant::now() + delay;
        loop {
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(work) => self.refuse(work, loss),
                Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
    }

    /// Answers work that was on its way when the device was lost.
    fn refuse(&mut self, work: Work, loss: &Loss) {
        match work {
            Work::Run { batch, reply, permit } => {
                TakenBatch::new(batch, reply, permit).refuse(loss);
            }
            Work::Load { reply, .. } => drop(reply.send(Err(DeviceError::Lost(loss.clone())))),
            Work::Sweep { permit } => self.sweep(permit),
        }
    }

    /// Reopens the machine and loads every model that still has a handle, from the files it was
    /// loaded from: the same hashes, goldens and warm-up as the first time.
    fn reopen(&mut self) -> Result<(), DeviceError> {
        self.begin_load();
        self.machine.reopen()?;
        for model in self.loaded.iter().filter_map(|entry| entry.model.upgrade()) {
            self.begin_load();
            let read_error = |source: ModelError| DeviceError::Read {
                model: model.id(),
                source: Box::new(source),
            };
            let package = Package::reread(model.dir(), model.manifest()).map_err(read_error)?;
            load::load(&mut self.machine, &model, &package)?;
        }
        Ok(())
    }

    /// The running batches are late when the oldest is; a batch is as old as its taking.
    fn begin_batch(&self, oldest: &TakenBatch) {
        self.heartbeat.begin("a batch", oldest.taken_at, self.timeouts.batch);
    }

    fn begin_load(&self) {
        self.heartbeat.begin("a load", Instant::now(), self.timeouts.load);
    }

    /// Leaves the machine and what it runs as they are, for freeing them may wait for what hangs.
    /// The pictures are wiped.
    fn leak_machine(self) {
        let Self { machine, running, .. } = self;
        std::mem::forget(machine);
        running.into_iter().for_each(|RunningBatch { started, .. }| std::mem::forget(started));
    }
}

impl TakenBatch {
    /// Answers with the loss that it passes on.
    fn refuse_and_pass_on(self, loss: ReportedLoss) -> ReportedLoss {
        self.refuse(&loss.0);
        loss
    }
}
