//! The thread of one device. It takes work from the inbox, keeps its machine busy, and reopens the
//! machine when the device is lost.
//!
//! ```text
//! inbox → start → running (as many as slots) → finish the oldest → answer
//!           └─ lost → recovering: answer everything → wait, reopen, load all models again
//!                     → in service, or failed
//! ```
//!
//! The thread reports its current task to its watchdog through the heartbeat. After the watchdog
//! has declared the device hung, the thread does not use its machine any more.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::health::StateReporter;
use super::inbox::Work;
use super::loaded::{LoadTiming, ModelKey};
use super::machine::{Machine, StartedBatch};
use super::running::{RunningBatch, TakenBatch};
use super::watchdog::{Heartbeat, Timeouts};
use super::{Batch, DeviceDescription, DeviceError, LoadedModel, Loss, RowOutput, load};
use crate::model::{ModelError, Package};

/// Poll interval for the oldest batch while a slot is free: up to 50 µs of latency, traded against
/// wake-ups.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// A device's thread before its machine is open.
pub(super) struct DeviceThread {
    pub(super) inbox: Receiver<Work>,
    pub(super) slots: NonZeroUsize,
    pub(super) reporter: StateReporter,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) timeouts: Timeouts,
    /// Receives the description of the machine when it is open.
    pub(super) opened: oneshot::Sender<Result<DeviceDescription, DeviceError>>,
}

/// The state of the thread while its machine is open.
struct Worker<M: Machine> {
    machine: M,
    inbox: Receiver<Work>,
    slots: usize,
    reporter: StateReporter,
    heartbeat: Arc<Heartbeat>,
    timeouts: Timeouts,
    /// Oldest first.
    running: VecDeque<RunningBatch<M::Running>>,
    loaded: Vec<LoadedEntry>,
}

/// A model whose network the machine holds.
struct LoadedEntry {
    key: ModelKey,
    model: Weak<LoadedModel>,
}

/// A loss that has been reported to the health of the group.
struct ReportedLoss(Loss);

impl DeviceThread {
    /// Opens the machine for as many batches at once as there are slots. Then runs until the inbox
    /// is closed and all work in it is answered, or until the device has hung.
    pub(super) fn run<M: Machine>(
        self,
        open: impl FnOnce(NonZeroUsize) -> Result<(M, DeviceDescription), DeviceError>,
    ) {
        let Self { inbox, slots, reporter, heartbeat, timeouts, opened } = self;
        heartbeat.set_busy("opening the device", Instant::now(), timeouts.open);
        match open(slots) {
            Ok((machine, description)) => {
                drop(opened.send(Ok(description)));
                let slots = slots.get();
                let (running, loaded) = (VecDeque::new(), Vec::new());
                Worker { machine, inbox, slots, reporter, heartbeat, timeouts, running, loaded }
                    .serve();
            }
            Err(error) => drop(opened.send(Err(error))),
        }
    }
}

impl<M: Machine> Worker<M> {
    /// Runs until the inbox is closed and all work in it is answered, or until the device has hung.
    fn serve(mut self) {
        while self.step().is_continue() {}
        if self.heartbeat.has_hung() {
            return self.leak_machine();
        }
        self.heartbeat.set_busy("closing the device", Instant::now(), self.timeouts.batch);
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

    /// Returns the next work, or `None` if the oldest batch is to be finished first. That is the
    /// case if this batch has run, if the batches of all slots run, so that the inbox holds no
    /// other, or if the inbox is closed. Breaks if the inbox is closed and no batch runs, or if the
    /// device has hung.
    fn next_work(&self) -> ControlFlow<(), Option<Work>> {
        loop {
            if self.heartbeat.has_hung() {
                return ControlFlow::Break(());
            }
            let Some(RunningBatch { taken, running }) = self.running.front() else {
                self.heartbeat.set_idle();
                return match self.inbox.recv() {
                    Ok(work) => ControlFlow::Continue(Some(work)),
                    Err(_) => ControlFlow::Break(()),
                };
            };
            self.report_batch(taken);
            let is_full = self.running.len() >= self.slots;
            let wait = if is_full { Duration::ZERO } else { POLL_INTERVAL };
            match self.inbox.recv_timeout(wait) {
                Ok(work) => return ControlFlow::Continue(Some(work)),
                Err(RecvTimeoutError::Timeout) if !is_full && !self.machine.has_run(running) => {}
                Err(_) => return ControlFlow::Continue(None),
            }
        }
    }

    fn handle(&mut self, work: Work) -> Result<(), ReportedLoss> {
        match work {
            Work::Run { batch, reply, permit } => {
                let taken = TakenBatch::new(batch, reply, permit);
                self.report_batch(self.running.front().map_or(&taken, |oldest| &oldest.taken));
                let Batch { model, rows, bucket } = &taken.batch;
                match self.machine.start(model, rows, *bucket) {
                    StartedBatch::Running(running) => {
                        self.running.push_back(RunningBatch { taken, running });
                        Ok(())
                    }
                    StartedBatch::Done(outputs) => self.finish_all_and_answer(taken, outputs),
                }
            }
            Work::Load { model, package, reply, permit } => {
                let loaded = self.load(&model, &package);
                drop((model, package, permit));
                let lost = loaded.as_ref().err().and_then(|error| self.report_loss(error));
                // The caller may have left; then the model is not needed.
                drop(reply.send(loaded));
                lost.map_or(Ok(()), Err)
            }
            Work::Sweep { permit } => {
                self.sweep(permit);
                Ok(())
            }
        }
    }

    /// Finishes all running batches and then loads a model, so that its trial runs delay no batch.
    fn load(
        &mut self,
        model: &Arc<LoadedModel>,
        package: &Package,
    ) -> Result<LoadTiming, DeviceError> {
        self.finish_all().map_err(|ReportedLoss(loss)| DeviceError::Lost(loss))?;
        self.report_load();
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

    /// Frees the networks whose handles have been dropped. Drops the permit first, so that a handle
    /// dropped from now on requests another sweep.
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
        let Some(RunningBatch { taken, running }) = self.running.pop_front() else {
            return Ok(());
        };
        let outputs = self.machine.finish(running);
        self.answer(taken, outputs)
    }

    /// Answers a batch that is already done, after the batches that were started before it and
    /// before the next one is started.
    fn finish_all_and_answer(
        &mut self,
        taken: TakenBatch,
        outputs: Result<Vec<RowOutput>, DeviceError>,
    ) -> Result<(), ReportedLoss> {
        match self.finish_all() {
            Ok(()) => self.answer(taken, outputs),
            Err(lost) => Err(taken.refuse_and_pass_on(lost)),
        }
    }

    fn answer(
        &mut self,
        taken: TakenBatch,
        outputs: Result<Vec<RowOutput>, DeviceError>,
    ) -> Result<(), ReportedLoss> {
        match outputs {
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

    /// Runs a batch that failed as a whole again, row by row, so that only bad rows fail. Finishes
    /// every running batch first, because a machine finishes batches in order.
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

    /// Reports the loss behind `error` to health, and returns the loss. Returns `None` if the
    /// device was not lost. From here on the device is out of service, before any caller receives
    /// the loss.
    fn report_loss(&self, error: &DeviceError) -> Option<ReportedLoss> {
        let loss = error.loss()?;
        self.reporter.on_lost(loss);
        Some(ReportedLoss(loss.clone()))
    }

    /// Answers all work with the loss and tries to reopen the device. Breaks if the inbox is closed
    /// or the device has hung.
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

    /// Answers work with the loss for the duration of `delay`. Breaks if the inbox is closed, or if
    /// the device had hung before.
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

    /// Answers work that reached the inbox after the loss.
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
    /// loaded from. Hashes, goldens and warm-up are the same as the first time.
    fn reopen(&mut self) -> Result<(), DeviceError> {
        self.report_load();
        self.machine.reopen()?;
        for model in self.loaded.iter().filter_map(|entry| entry.model.upgrade()) {
            self.report_load();
            let read_error = |source: ModelError| DeviceError::Read {
                model: model.id(),
                source: Box::new(source),
            };
            let package = Package::reread(model.dir(), model.manifest()).map_err(read_error)?;
            load::load(&mut self.machine, &model, &package)?;
        }
        Ok(())
    }

    /// Reports the oldest running batch to the watchdog as the current task: running batches are
    /// overdue when the oldest one is. The time of a batch counts from when it was taken.
    fn report_batch(&self, oldest: &TakenBatch) {
        self.heartbeat.set_busy("a batch", oldest.taken_at, self.timeouts.batch);
    }

    /// Reports to the watchdog that a load starts now.
    fn report_load(&self) {
        self.heartbeat.set_busy("a load", Instant::now(), self.timeouts.load);
    }

    /// Leaks the machine and the batches it runs: freeing them may wait for the hung GPU. The
    /// pictures of the batches are wiped.
    fn leak_machine(self) {
        let Self { machine, running, .. } = self;
        std::mem::forget(machine);
        running.into_iter().for_each(|RunningBatch { running, .. }| std::mem::forget(running));
    }
}

impl TakenBatch {
    /// Answers the batch with `loss` and returns `loss`.
    fn refuse_and_pass_on(self, loss: ReportedLoss) -> ReportedLoss {
        self.refuse(&loss.0);
        loss
    }
}
