//! How the server stands, told to everybody who asks: gRPC health, `/readyz`, metrics and the log.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::device::{DeviceHealth, DeviceSet, DeviceState, Health};
use crate::services::Standing;
use crate::telemetry::Metrics;

/// What health is asked about: the server as a whole, and its services.
const HEALTH_SERVICES: [&str; 3] = ["", "menshen.v1.FaceService", "menshen.v1.LivenessService"];

/// Where the standing is written.
#[derive(Debug, Clone)]
pub(super) struct Board {
    standing: watch::Sender<Standing>,
    health: HealthReporter,
}

impl Board {
    /// A board of a server whose models are loading.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let board = Self { standing: watch::Sender::new(Standing::Loading), health };
        board.tell(Standing::Loading).await;
        board
    }

    /// Whoever reads it, from now on.
    pub(super) fn reader(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Writes where the server stands.
    pub(super) async fn tell(&self, standing: Standing) {
        self.standing.send_replace(standing);
        let status = match standing {
            Standing::Ready => ServingStatus::Serving,
            Standing::Loading | Standing::NoDevice | Standing::DevicesGone | Standing::Stopping => {
                ServingStatus::NotServing
            }
        };
        for service in HEALTH_SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Ends the streams of those who watch health; they would be waited for as requests in flight.
    pub(super) async fn end_watches(&mut self) {
        for service in HEALTH_SERVICES {
            self.health.clear_service_status(service).await;
        }
    }
}

/// Follows the devices: the server is ready while every live model has one in service.
pub(super) struct Follower {
    pub(super) devices: watch::Receiver<Health>,
    /// Those of the live models.
    pub(super) placements: Vec<DeviceSet>,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    /// As told last; empty at first.
    pub(super) told: Vec<DeviceHealth>,
}

impl Follower {
    /// Tells how things are, and what has changed since the last time.
    pub(super) async fn tell(&mut self) {
        let health = self.devices.borrow_and_update().clone();
        for (place, device) in health.devices.iter().enumerate() {
            let before = self.told.get(place);
            let lost = device.losses - before.map_or(0, |before| before.losses);
            self.metrics.device(&device.name, device.state == DeviceState::InService, lost);
            log_change(before, device);
        }
        let all_have =
            |devices| self.placements.iter().all(|one| !one.intersection(devices).is_empty());
        let standing =
            match (all_have(health.in_service()), all_have(health.in_service_or_recovering())) {
                (true, _) => Standing::Ready,
                (false, true) => Standing::NoDevice,
                (false, false) => Standing::DevicesGone,
            };
        self.told = health.devices;
        self.board.tell(standing).await;
    }

    /// Tells every change until the devices are closed.
    pub(super) async fn run(mut self) {
        while self.devices.changed().await.is_ok() {
            self.tell().await;
        }
    }
}

/// One line for each change, none for a device that has been in service all the time.
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
            tracing::error!(device, why, "the device failed and is not tried again");
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

    /// A follower of two devices, where one model is on both and one on the second only.
    async fn follower() -> (watch::Sender<Health>, Follower, Registry) {
        let device = |name: &str| DeviceHealth {
            name: name.to_owned(),
            state: DeviceState::InService,
            losses: 0,
        };
        let health = Health { devices: vec![device("cuda:0"), device("cuda:1")] };
        let (sender, devices) = watch::channel(health);
        let (reporter, _) = tonic_health::server::health_reporter();
        let mut registry = Registry::default();
        let follower = Follower {
            devices,
            placements: vec![DeviceSet::of([0, 1]), DeviceSet::of([1])],
            board: Board::new(reporter).await,
            metrics: Metrics::register(&mut registry),
            told: Vec::new(),
        };
        (sender, follower, registry)
    }

    fn lose(health: &watch::Sender<Health>, device: usize) {
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
        let (health, mut follower, _registry) = follower().await;
        let standing = follower.board.reader();
        assert_eq!(*standing.borrow(), Standing::Loading);
        follower.tell().await;
        assert_eq!(*standing.borrow(), Standing::Ready);
        lose(&health, 0);
        follower.tell().await;
        assert_eq!(*standing.borrow(), Standing::Ready, "the other device runs both models");
        lose(&health, 1);
        follower.tell().await;
        assert_eq!(*standing.borrow(), Standing::NoDevice);
        health.send_modify(|health| health.devices[1].state = DeviceState::InService);
        follower.tell().await;
        assert_eq!(*standing.borrow(), Standing::Ready);
        let why = "ecc".to_owned();
        health.send_modify(|health| health.devices[1].state = DeviceState::Failed { why });
        follower.tell().await;
        let gone = Standing::DevicesGone;
        assert_eq!(*standing.borrow(), gone, "one model is on that device alone");
    }

    #[tokio::test]
    async fn losses_are_counted_even_when_the_device_was_back_before_anybody_looked() {
        let (health, mut follower, registry) = follower().await;
        follower.tell().await;
        lose(&health, 0);
        health.send_modify(|health| health.devices[0].state = DeviceState::InService);
        lose(&health, 0);
        follower.tell().await;
        follower.tell().await;
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
    async fn following_ends_when_the_devices_are_closed() {
        let (health, follower, _registry) = follower().await;
        let mut standing = follower.board.reader();
        let following = tokio::spawn(follower.run());
        lose(&health, 1);
        standing.wait_for(|standing| *standing == Standing::NoDevice).await.unwrap();
        drop(health);
        following.await.unwrap();
    }
}
