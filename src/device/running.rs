//! Batches that a device's thread has taken from its inbox and not answered yet.

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Batch, BatchOutcome, DeviceError, Loss, RowOutput};

/// A batch, its reply channel, and the slot it holds.
pub(super) struct TakenBatch {
    pub(super) batch: Batch,
    reply: oneshot::Sender<BatchOutcome>,
    permit: OwnedSemaphorePermit,
    pub(super) taken_at: Instant,
}

/// A batch that the machine runs.
pub(super) struct RunningBatch<R> {
    pub(super) taken: TakenBatch,
    /// The machine's handle of the batch.
    pub(super) running: R,
}

impl TakenBatch {
    /// Takes a batch. The run time of the batch counts from here.
    pub(super) fn new(
        batch: Batch,
        reply: oneshot::Sender<BatchOutcome>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { batch, reply, permit, taken_at: Instant::now() }
    }

    /// Answers each row with its result. `panics_together` is the number of panics caught while the
    /// rows ran in one pass.
    pub(super) fn answer(
        self,
        results: Vec<Result<RowOutput, DeviceError>>,
        panics_together: usize,
    ) {
        let panics_alone =
            results.iter().filter(|result| matches!(result, Err(DeviceError::Panicked))).count();
        let outcome = BatchOutcome {
            results,
            run_time: self.taken_at.elapsed(),
            panics: panics_together + panics_alone,
        };
        // Free the slot first, so that the next batch is formed while the rows of this one are
        // wiped.
        drop(self.permit);
        // The caller may have left; then the outputs are wiped here.
        drop(self.reply.send(outcome));
    }

    /// Answers every row with the loss of the device.
    pub(super) fn refuse(self, loss: &Loss) {
        let rows = self.batch.rows.iter();
        let results = rows.map(|_| Err(DeviceError::Lost(loss.clone()))).collect();
        self.answer(results, 0);
    }
}
