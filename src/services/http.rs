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

/// Whether the server takes work, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// The models are not live yet.
    Loading,
    /// Every live model has a device in service.
    Ready,
    /// A live model has none; requests that need it are refused.
    NoDevice,
    /// A live model has none, and none will come back: only another process can help.
    DevicesFailed,
    /// The server has begun to stop.
    Stopping,
}

/// What the HTTP port looks at.
#[derive(Debug, Clone)]
pub struct Probes {
    /// All metrics.
    pub registry: Arc<Registry>,
    /// The state of the server now.
    pub serving_state: watch::Receiver<ServingState>,
}

/// The routes of the HTTP port.
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

/// Whoever restarts what is not live helps only where this process cannot help itself.
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
