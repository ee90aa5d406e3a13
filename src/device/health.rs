//! Which devices of a group are in service.

use std::sync::Arc;

use tokio::sync::watch;

use super::{DeviceError, Loss, Placement};
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
    /// In, out or gone.
    pub state: DeviceState,
    /// How often it was lost since the start.
    pub losses: u64,
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// It runs batches.
    In,
    /// It was lost and is being reopened.
    Out {
        /// What went wrong last.
        why: String,
    },
    /// It did not come back, or hangs, and is not tried again.
    Gone {
        /// What went wrong last.
        why: String,
    },
}

impl Health {
    /// All devices in service.
    pub(super) fn good(names: impl IntoIterator<Item = String>) -> Self {
        let device = |name| DeviceHealth { name, state: DeviceState::In, losses: 0 };
        Self { devices: names.into_iter().map(device).collect() }
    }

    /// The devices that are in service.
    pub fn up(&self) -> Placement {
        self.those(|state| *state == DeviceState::In)
    }

    /// The devices that are in service or may come back.
    pub fn lasting(&self) -> Placement {
        self.those(|state| !matches!(state, DeviceState::Gone { .. }))
    }

    fn those(&self, is_meant: impl Fn(&DeviceState) -> bool) -> Placement {
        Placement::of((0..self.devices.len()).filter(|k| is_meant(&self.devices[*k].state)))
    }
}

impl DeviceHealth {
    /// What a device that is gone answers, when nobody else answers for it.
    pub(super) fn loss(&self) -> Option<Loss> {
        let DeviceState::Gone { why } = &self.state else { return None };
        let source = Arc::new(GoneError { why: why.clone() });
        Some(Loss { device: self.name.clone(), source })
    }
}

/// Why a device is gone, in the words of its health.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct GoneError {
    why: String,
}

/// What one device says about itself. A device whose thread panics is gone.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) device: usize,
}

impl Reporter {
    /// Takes the device out of service; from now on no slot of it can be reserved.
    pub(super) fn lost(&self, loss: &Loss) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::In);
            device.state = DeviceState::Out { why: causes(loss) };
        });
    }

    /// An attempt to come back failed.
    pub(super) fn still_out(&self, error: &DeviceError) {
        self.change(|device| device.state = DeviceState::Out { why: causes(error) });
    }

    /// The device serves again.
    pub(super) fn back(&self) {
        self.change(|device| device.state = DeviceState::In);
    }

    /// Nothing more is tried.
    pub(super) fn gone(&self) {
        self.change(|device| {
            if let DeviceState::Out { why } = &device.state {
                device.state = DeviceState::Gone { why: why.clone() };
            }
        });
    }

    /// The device's thread hangs; whatever it may say later, the device is not used again.
    pub(super) fn given_up(&self, why: String) {
        self.change(|device| {
            device.losses += u64::from(device.state == DeviceState::In);
            device.state = DeviceState::Gone { why };
        });
    }

    /// A device that is gone stays so.
    fn change(&self, change: impl FnOnce(&mut DeviceHealth)) {
        self.health.send_if_modified(|health| {
            let device = &mut health.devices[self.device];
            let is_gone = matches!(device.state, DeviceState::Gone { .. });
            if !is_gone {
                change(device);
            }
            !is_gone
        });
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "its thread panicked".to_owned();
            self.change(|device| device.state = DeviceState::Gone { why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_whose_thread_panics_is_gone() {
        let health = Arc::new(watch::Sender::new(Health::good(["a".into(), "b".into()])));
        let reporter = Reporter { health: Arc::clone(&health), device: 1 };
        let thread = std::thread::spawn(move || {
            let _held = reporter;
            panic!("a bug in a worker");
        });
        thread.join().unwrap_err();
        assert_eq!(health.borrow().up(), Placement::of([0]));
        let why = "its thread panicked".to_owned();
        assert_eq!(health.borrow().devices[1].state, DeviceState::Gone { why });
    }

    #[test]
    fn a_device_that_was_given_up_is_gone_whatever_its_thread_says_later() {
        let health = Arc::new(watch::Sender::new(Health::good(["a".into()])));
        let reporter = Reporter { health: Arc::clone(&health), device: 0 };
        reporter.given_up("it hangs".to_owned());
        reporter.still_out(&DeviceError::Stopped);
        reporter.back();
        let device = health.borrow().devices[0].clone();
        assert_eq!(device.state, DeviceState::Gone { why: "it hangs".to_owned() });
        assert_eq!(device.losses, 1);
        assert_eq!(causes(&device.loss().unwrap()), "device a was lost: it hangs");
    }
}
