//! The result of a row, as its caller receives it.

use std::time::Duration;

use thiserror::Error;

use crate::device::{DeviceError, RowOutput};

/// The result of a row that ran.
#[derive(Debug)]
pub struct RowAnswer {
    /// The outputs of the network.
    pub output: RowOutput,
    /// Time from [`super::Scheduler::submit`] to the launch.
    pub queue_time: Duration,
    /// Time the batch took on the device.
    pub run_time: Duration,
}

/// Why a row has no answer.
#[derive(Debug, Error)]
pub enum RowError {
    /// The deadline passed before the row was launched.
    #[error("the deadline passed before the row could run")]
    Expired,
    /// The device could not run the row, or every device of the model is out of service.
    #[error("the device could not run the row")]
    Device(#[source] DeviceError),
    /// No lane runs the model.
    #[error("model {model} has no lane")]
    NoLane {
        /// `name/version`.
        model: String,
    },
    /// The thread of the device or the task of the scheduler has ended.
    #[error("the scheduler has stopped")]
    Stopped,
}
