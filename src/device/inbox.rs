//! The inbox of a device's thread.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::loaded::{DropSignal, LoadTiming};
use super::{Batch, BatchOutcome, DeviceError, LoadedModel};
use crate::model::Package;

/// Work for a device's thread. The permit is the place that the work holds in the inbox.
pub(super) enum Work {
    /// Load a model, check it and warm it up.
    Load {
        model: Arc<LoadedModel>,
        package: Arc<Package>,
        reply: oneshot::Sender<Result<LoadTiming, DeviceError>>,
        permit: OwnedSemaphorePermit,
    },
    Run {
        batch: Batch,
        reply: oneshot::Sender<BatchOutcome>,
        permit: OwnedSemaphorePermit,
    },
    /// Free the networks whose handles have been dropped.
    Sweep {
        permit: OwnedSemaphorePermit,
    },
}

/// The sending side of the inbox of a device's thread. The group holds it; dropping it ends the
/// thread.
pub(super) struct Inbox {
    sender: SyncSender<Work>,
    /// The one place of the inbox for [`Work::Sweep`].
    sweep_place: Arc<Semaphore>,
}

impl Inbox {
    /// Places of an inbox in addition to its slots.
    pub(super) const SWEEP_PLACES: usize = 1;

    pub(super) fn new(sender: SyncSender<Work>) -> Self {
        Self { sender, sweep_place: Arc::new(Semaphore::new(Self::SWEEP_PLACES)) }
    }

    /// Sends work without waiting: the sender holds one of the inbox's places. If the thread has
    /// ended, the work and its reply channel are dropped.
    pub(super) fn send(&self, work: Work) {
        drop(self.sender.try_send(work));
    }

    /// Returns a signal that requests a sweep. The signal does not keep the thread alive.
    pub(super) fn drop_signal(self: &Arc<Self>) -> DropSignal {
        let inbox = Arc::downgrade(self);
        DropSignal::new(move || {
            if let Some(inbox) = inbox.upgrade() {
                inbox.request_sweep();
            }
        })
    }

    /// Requests a sweep after a handle was dropped. Requests coalesce: one pending sweep also
    /// covers handles that are dropped after it was queued.
    fn request_sweep(&self) {
        if let Ok(permit) = Arc::clone(&self.sweep_place).try_acquire_owned() {
            self.send(Work::Sweep { permit });
        }
    }
}
