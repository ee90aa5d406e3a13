//! The HTTP port: `/metrics`, `/livez`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

const DEVICES_FAILED: &str = "the devices of a live model have failed: restart the server\n";

/// Whether the server accepts requests, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// The models are not live yet.
    Loading,
    /// Every live model has a device in service.
    Ready,
    /// A live model has no device in service. Requests that need the model are refused.
    NoDevice,
    /// A live model has no device in service, and none will return. Only a restart of the process
    /// helps.
    DevicesFailed,
    /// The server is stopping.
    Stopping,
}

/// The data that the HTTP port serves.
#[derive(Debug, Clone)]
pub struct Probes {
    /// All metrics.
    pub registry: Arc<Registry>,
    /// The current state of the server.
    pub serving_state: watch::Receiver<ServingState>,
}

/// Returns the routes of the HTTP port.
pub fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(probes)
}

async fn metrics(State(probes): State<Probes>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &probes.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Fails only where a restart helps: a process that can recover by itself stays live.
async fn live(State(probes): State<Probes>) -> Response {
    match *probes.serving_state.borrow() {
        ServingState::DevicesFailed => {
            (StatusCode::SERVICE_UNAVAILABLE, DEVICES_FAILED).into_response()
        }
        ServingState::Loading
        | ServingState::Ready
        | ServingState::NoDevice
        | ServingState::Stopping => "ok\n".into_response(),
    }
}

async fn ready(State(probes): State<Probes>) -> Response {
    let reason = match *probes.serving_state.borrow() {
        ServingState::Ready => return "ok\n".into_response(),
        ServingState::Loading => "models are loading\n",
        ServingState::NoDevice => "a live model has no device in service\n",
        ServingState::DevicesFailed => DEVICES_FAILED,
        ServingState::Stopping => "stopping\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}
