//! Which devices of a group are in service.

use std::sync::Arc;

use tokio::sync::watch;

use super::{DeviceError, DeviceSet, Loss};
use crate::telemetry::causes;

/// The devices of a group, each at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// At least one.
    pub devices: Vec<DeviceHealth>,
}

/// Whether one device is in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceHealth {
    /// `cpu`, or `cuda:0`.
    pub name: String,
    /// In service, recovering, failed or hung.
    pub state: DeviceState,
    /// How often it was lost since the start.
    pub losses: u64,
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// It runs batches.
    InService,
    /// It was lost and is being reopened.
    Recovering {
        /// What went wrong last.
        why: String,
    },
    /// It could not be reopened, or its thread panicked. It is not tried again.
    Failed {
        /// What went wrong last.
        why: String,
    },
    /// It does not end what it runs, and nothing can stop it. It is not tried again.
    Hung {
        /// What it does not end.
        why: String,
    },
}

impl DeviceState {
    /// Why the device is out of service for good, if it is.
    fn final_reason(&self) -> Option<&str> {
        match self {
            Self::Failed { why } | Self::Hung { why } => Some(why),
            Self::InService | Self::Recovering { .. } => None,
        }
    }
}

impl Health {
    /// All devices in service.
    pub(super) fn all_in_service(names: impl IntoIterator<Item = String>) -> Self {
        let device = |name| DeviceHealth { name, state: DeviceState::InService, losses: 0 };
        Self { devices: names.into_iter().map(device).collect() }
    }

    /// The devices that are in service.
    pub fn in_service(&self) -> DeviceSet {
        self.devices_where(|state| *state == DeviceState::InService)
    }

    /// The devices that are in service or may come back.
    pub fn in_service_or_recovering(&self) -> DeviceSet {
        self.devices_where(|state| state.final_reason().is_none())
    }

    fn devices_where(&self, is_wanted: impl Fn(&DeviceState) -> bool) -> DeviceSet {
        DeviceSet::of((0..self.devices.len()).filter(|k| is_wanted(&self.devices[*k].state)))
    }
}

impl DeviceHealth {
    /// The loss that work on a failed or hung device is answered with, when its thread does not
    /// answer.
    pub(super) fn final_loss(&self) -> Option<Loss> {
        let why = self.state.final_reason()?.to_owned();
        Some(Loss { device: self.name.clone(), source: Arc::new(FailureReason { why }) })
    }
}

/// Why a device failed or hung, in the words of its health.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct FailureReason {
    why: String,
}

/// What one device says about itself. A device whose thread panics has failed.
#[derive(Debug, Clone)]
pub(super) struct StateReporter {
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) device: usize,
}

impl StateReporter {
    /// Takes the device out of service; from now on no slot of it can be reserved.
    pub(super) fn on_lost(&self, loss: &Loss) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::InService);
            device.state = DeviceState::Recovering { why: causes(loss) };
        });
    }

    /// An attempt to come back failed.
    pub(super) fn on_reopen_error(&self, error: &DeviceError) {
        self.change(|device| device.state = DeviceState::Recovering { why: causes(error) });
    }

    /// The device serves again.
    pub(super) fn on_reopened(&self) {
        self.change(|device| device.state = DeviceState::InService);
    }

    /// Nothing more is tried.
    pub(super) fn on_failed(&self) {
        self.change(|device| {
            if let DeviceState::Recovering { why } = &device.state {
                device.state = DeviceState::Failed { why: why.clone() };
            }
        });
    }

    /// The device's thread hangs; whatever it may say later, the device is not used again.
    pub(super) fn on_hung(&self, why: String) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::InService);
            device.state = DeviceState::Hung { why };
        });
    }

    /// A device that has failed or hung stays so.
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
        let health = Arc::new(watch::Sender::new(Health::all_in_service(["a".into(), "b".into()])));
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
        let health = Arc::new(watch::Sender::new(Health::all_in_service(["a".into()])));
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
