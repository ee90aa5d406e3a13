//! Publishes the state of the server: to gRPC health, `/livez`, `/readyz`, the metrics and the log.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::device::{DeviceHealth, DeviceSet, DeviceState, GroupHealth};
use crate::services::ServingState;
use crate::telemetry::Metrics;

/// The service names that gRPC health knows. The empty name means the server as a whole.
const HEALTH_SERVICES: [&str; 3] = ["", "menshen.v1.FaceService", "menshen.v1.LivenessService"];

/// Publishes the state of the server to gRPC health and to the HTTP probes.
#[derive(Debug, Clone)]
pub(super) struct StatePublisher {
    state: watch::Sender<ServingState>,
    health: HealthReporter,
}

impl StatePublisher {
    /// Makes a publisher and publishes [`ServingState::Loading`].
    pub(super) async fn new(health: HealthReporter) -> Self {
        let publisher = Self { state: watch::Sender::new(ServingState::Loading), health };
        publisher.publish(ServingState::Loading).await;
        publisher
    }

    /// Returns a receiver of the current and of every later state.
    pub(super) fn subscribe(&self) -> watch::Receiver<ServingState> {
        self.state.subscribe()
    }

    pub(super) async fn publish(&self, state: ServingState) {
        self.state.send_replace(state);
        let status = match state {
            ServingState::Ready => ServingStatus::Serving,
            ServingState::Loading
            | ServingState::NoDevice
            | ServingState::DevicesFailed
            | ServingState::Stopping => ServingStatus::NotServing,
        };
        for service in HEALTH_SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Ends the `Watch` streams of gRPC health. Otherwise the shutdown would wait for them as for
    /// requests in flight.
    pub(super) async fn end_watches(&mut self) {
        for service in HEALTH_SERVICES {
            self.health.clear_service_status(service).await;
        }
    }
}

/// Watches the health of the devices. The server is ready while every live model has a device in
/// service.
pub(super) struct HealthWatcher {
    pub(super) devices: watch::Receiver<GroupHealth>,
    /// The placements of the live models.
    pub(super) placements: Vec<DeviceSet>,
    pub(super) publisher: StatePublisher,
    pub(super) metrics: Metrics,
    /// The health that was reported last; empty at first.
    pub(super) reported: Vec<DeviceHealth>,
}

impl HealthWatcher {
    /// Publishes the current state, and reports each change since the last report to the metrics
    /// and the log.
    pub(super) async fn report(&mut self) {
        let health = self.devices.borrow_and_update().clone();
        for (place, device) in health.devices.iter().enumerate() {
            let before = self.reported.get(place);
            let lost = device.losses - before.map_or(0, |before| before.losses);
            self.metrics.update_device(&device.name, device.state == DeviceState::InService, lost);
            log_change(before, device);
        }
        let all_have =
            |devices| self.placements.iter().all(|one| !one.intersection(devices).is_empty());
        let state =
            match (all_have(health.in_service()), all_have(health.in_service_or_recovering())) {
                (true, _) => ServingState::Ready,
                (false, true) => ServingState::NoDevice,
                (false, false) => ServingState::DevicesFailed,
            };
        self.reported = health.devices;
        self.publisher.publish(state).await;
    }

    /// Reports every change until the devices are closed.
    pub(super) async fn run(mut self) {
        while self.devices.changed().await.is_ok() {
            self.report().await;
        }
    }
}

/// Logs one line for each change of a device, and none for a device that stayed in service.
fn log_change(before: Option<&DeviceHealth>, now: &DeviceHealth) {
    let was_in = before.is_none_or(|before| before.state == DeviceState::InService);
    let losses = before.map_or(0, |before| before.losses);
    let device = now.name.as_str();
    match &now.state {
        _ if before == Some(now) => {}
        DeviceState::InService if was_in && now.losses == losses => {}
        DeviceState::InService => {
            tracing::warn!(device, now.losses, "the device is back in service");
        }
        DeviceState::Recovering { why } if was_in || now.losses > losses => {
            tracing::error!(device, why, "the device was lost");
        }
        DeviceState::Recovering { why } => {
            tracing::warn!(device, why, "the device could not be reopened yet");
        }
        DeviceState::Failed { why } => {
            tracing::error!(device, why, "the device failed and is not reopened any more");
        }
        DeviceState::Hung { why } => {
            tracing::error!(device, why, "the device hangs and is not used again");
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    /// Makes a watcher of two devices. One model is on both, the other on the second device only.
    async fn watcher() -> (watch::Sender<GroupHealth>, HealthWatcher, Registry) {
        let device = |name: &str| DeviceHealth {
            name: name.to_owned(),
            state: DeviceState::InService,
            losses: 0,
        };
        let health = GroupHealth { devices: vec![device("cuda:0"), device("cuda:1")] };
        let (sender, devices) = watch::channel(health);
        let (reporter, _) = tonic_health::server::health_reporter();
        let mut registry = Registry::default();
        let watcher = HealthWatcher {
            devices,
            placements: vec![DeviceSet::of([0, 1]), DeviceSet::of([1])],
            publisher: StatePublisher::new(reporter).await,
            metrics: Metrics::register(&mut registry),
            reported: Vec::new(),
        };
        (sender, watcher, registry)
    }

    fn lose(health: &watch::Sender<GroupHealth>, device: usize) {
        health.send_modify(|health| {
            health.devices[device].state = DeviceState::Recovering { why: "ecc".to_owned() };
            health.devices[device].losses += 1;
        });
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[tokio::test]
    async fn a_server_is_ready_while_every_live_model_has_a_device() {
        let (health, mut watcher, _registry) = watcher().await;
        let state = watcher.publisher.subscribe();
        assert_eq!(*state.borrow(), ServingState::Loading);
        watcher.report().await;
        assert_eq!(*state.borrow(), ServingState::Ready);
        lose(&health, 0);
        watcher.report().await;
        assert_eq!(*state.borrow(), ServingState::Ready, "the other device runs both models");
        lose(&health, 1);
        watcher.report().await;
        assert_eq!(*state.borrow(), ServingState::NoDevice);
        health.send_modify(|health| health.devices[1].state = DeviceState::InService);
        watcher.report().await;
        assert_eq!(*state.borrow(), ServingState::Ready);
        let why = "ecc".to_owned();
        health.send_modify(|health| health.devices[1].state = DeviceState::Failed { why });
        watcher.report().await;
        let failed = ServingState::DevicesFailed;
        assert_eq!(*state.borrow(), failed, "one model is on that device alone");
    }

    #[tokio::test]
    async fn losses_are_counted_even_if_the_device_was_back_before_the_next_report() {
        let (health, mut watcher, registry) = watcher().await;
        watcher.report().await;
        lose(&health, 0);
        health.send_modify(|health| health.devices[0].state = DeviceState::InService);
        lose(&health, 0);
        watcher.report().await;
        watcher.report().await;
        let text = text(&registry);
        for line in [
            "menshen_device_up{device=\"cuda:0\"} 0\n",
            "menshen_device_up{device=\"cuda:1\"} 1\n",
            "menshen_device_losses_total{device=\"cuda:0\"} 2\n",
            "menshen_device_losses_total{device=\"cuda:1\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[tokio::test]
    async fn watching_ends_when_the_devices_are_closed() {
        let (health, watcher, _registry) = watcher().await;
        let mut state = watcher.publisher.subscribe();
        let watching = tokio::spawn(watcher.run());
        lose(&health, 1);
        state.wait_for(|state| *state == ServingState::NoDevice).await.unwrap();
        drop(health);
        watching.await.unwrap();
    }
}
