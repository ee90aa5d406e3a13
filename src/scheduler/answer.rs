//! What becomes of a row, as its caller learns it.

use std::time::Duration;

use thiserror::Error;

use crate::device::{DeviceError, RowOutput};

/// What became of a row that ran.
#[derive(Debug)]
pub struct Answer {
    /// What the network says.
    pub output: RowOutput,
    /// From [`super::Scheduler::submit`] to the launch.
    pub queue_time: Duration,
    /// How long the batch ran.
    pub run_time: Duration,
}

/// Why a row gave no answer.
#[derive(Debug, Error)]
pub enum RowError {
    /// Its deadline passed before it could be launched.
    #[error("the deadline passed before the row could run")]
    Expired,
    /// The device could not run it, or no device that could is in service.
    #[error("the device could not run the row")]
    Device(#[source] DeviceError),
    /// No lane runs this model.
    #[error("model {model} has no lane")]
    NoLane {
        /// Name and version.
        model: String,
    },
    /// The device's thread has ended, or the scheduler's task.
    #[error("the scheduler has stopped")]
    Stopped,
}
