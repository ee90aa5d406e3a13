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
    /// It did not come back and is not tried again.
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

/// What one device says about itself. A device whose thread panics is gone.
#[derive(Debug)]
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

    fn change(&self, change: impl FnOnce(&mut DeviceHealth)) {
        self.health.send_modify(|health| change(&mut health.devices[self.device]));
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
}
