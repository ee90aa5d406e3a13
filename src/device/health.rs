//! The states of the devices of a group.

use std::sync::Arc;

use tokio::sync::watch;

use super::{DeviceError, DeviceSet, Loss};
use crate::telemetry::causes;

/// The states of all devices of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHealth {
    /// One entry per device, at least one, at the index of the device in the group.
    pub devices: Vec<DeviceHealth>,
}

/// The state of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceHealth {
    /// Name, such as `cpu` or `cuda:0`.
    pub name: String,
    /// Current state.
    pub state: DeviceState,
    /// Number of losses since the start.
    pub losses: u64,
}

/// State of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// The device runs batches.
    InService,
    /// The device was lost and is being reopened.
    Recovering {
        /// The last error.
        why: String,
    },
    /// The device could not be reopened, or its thread panicked. No further attempt is made.
    Failed {
        /// The last error.
        why: String,
    },
    /// A task of the device never ends and cannot be stopped. No further attempt is made.
    Hung {
        /// The task that does not end.
        why: String,
    },
}

impl DeviceState {
    /// Returns why the device has failed or hung; `None` if it may serve again.
    fn final_reason(&self) -> Option<&str> {
        match self {
            Self::Failed { why } | Self::Hung { why } => Some(why),
            Self::InService | Self::Recovering { .. } => None,
        }
    }
}

impl GroupHealth {
    /// Returns the health of devices with these names, all in service.
    pub(super) fn all_in_service(names: impl IntoIterator<Item = String>) -> Self {
        let device = |name| DeviceHealth { name, state: DeviceState::InService, losses: 0 };
        Self { devices: names.into_iter().map(device).collect() }
    }

    /// Returns the devices that are in service.
    pub fn in_service(&self) -> DeviceSet {
        self.devices_where(|state| *state == DeviceState::InService)
    }

    /// Returns the devices that are in service or may be again.
    pub fn in_service_or_recovering(&self) -> DeviceSet {
        self.devices_where(|state| state.final_reason().is_none())
    }

    fn devices_where(&self, is_wanted: impl Fn(&DeviceState) -> bool) -> DeviceSet {
        DeviceSet::of((0..self.devices.len()).filter(|k| is_wanted(&self.devices[*k].state)))
    }
}

impl DeviceHealth {
    /// Returns the loss of a failed or hung device, for callers that its thread does not answer.
    /// Returns `None` in the other states.
    pub(super) fn final_loss(&self) -> Option<Loss> {
        let why = self.state.final_reason()?.to_owned();
        Some(Loss { device: self.name.clone(), source: Arc::new(FailureReason { why }) })
    }
}

/// The reason for a failed or hung device, as in its health.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct FailureReason {
    why: String,
}

/// Reports the state of one device. If the device's thread panics, the device has failed.
#[derive(Debug, Clone)]
pub(super) struct StateReporter {
    pub(super) health: Arc<watch::Sender<GroupHealth>>,
    pub(super) device: usize,
}

impl StateReporter {
    /// Takes the device out of service. From now on none of its slots can be reserved.
    pub(super) fn on_lost(&self, loss: &Loss) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::InService);
            device.state = DeviceState::Recovering { why: causes(loss) };
        });
    }

    /// Records a failed attempt to reopen the device.
    pub(super) fn on_reopen_error(&self, error: &DeviceError) {
        self.change(|device| device.state = DeviceState::Recovering { why: causes(error) });
    }

    /// Puts the device back in service.
    pub(super) fn on_reopened(&self) {
        self.change(|device| device.state = DeviceState::InService);
    }

    /// Ends the recovery: the device has failed, with the error of the last attempt.
    pub(super) fn on_failed(&self) {
        self.change(|device| {
            if let DeviceState::Recovering { why } = &device.state {
                device.state = DeviceState::Failed { why: why.clone() };
            }
        });
    }

    /// Declares the device hung. It is not used again, whatever its thread reports later.
    pub(super) fn on_hung(&self, why: String) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::InService);
            device.state = DeviceState::Hung { why };
        });
    }

    /// Changes the state, unless the device has failed or hung: these states are final.
    fn change(&self, change: impl FnOnce(&mut DeviceHealth)) {
        self.health.send_if_modified(|health| {
            let device = &mut health.devices[self.device];
            let is_final = device.state.final_reason().is_some();
            if !is_final {
                change(device);
            }
            !is_final
        });
    }
}

impl Drop for StateReporter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "the device's thread panicked".to_owned();
            self.change(|device| device.state = DeviceState::Failed { why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_whose_thread_panics_has_failed() {
        let health =
            Arc::new(watch::Sender::new(GroupHealth::all_in_service(["a".into(), "b".into()])));
        let reporter = StateReporter { health: Arc::clone(&health), device: 1 };
        let thread = std::thread::spawn(move || {
            let _held = reporter;
            panic!("a bug in a worker");
        });
        thread.join().unwrap_err();
        assert_eq!(health.borrow().in_service(), DeviceSet::of([0]));
        let why = "the device's thread panicked".to_owned();
        assert_eq!(health.borrow().devices[1].state, DeviceState::Failed { why });
    }

    #[test]
    fn a_device_that_hung_stays_so_whatever_its_thread_says_later() {
        let health = Arc::new(watch::Sender::new(GroupHealth::all_in_service(["a".into()])));
        let reporter = StateReporter { health: Arc::clone(&health), device: 0 };
        reporter.on_hung("it hangs".to_owned());
        reporter.on_reopen_error(&DeviceError::Stopped);
        reporter.on_reopened();
        let device = health.borrow().devices[0].clone();
        assert_eq!(device.state, DeviceState::Hung { why: "it hangs".to_owned() });
        assert_eq!(device.losses, 1);
        assert_eq!(causes(&device.final_loss().unwrap()), "device a was lost: it hangs");
    }
}
