//! The HTTP port: `/metrics`, `/livez`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use super::Readiness;

/// What the HTTP port looks at.
#[derive(Debug, Clone)]
pub struct Probes {
    /// All metrics.
    pub registry: Arc<Registry>,
    /// Filled when the models are live.
    pub readiness: Readiness,
    /// True from the moment the server begins to stop.
    pub draining: tokio::sync::watch::Receiver<bool>,
}

/// The routes of the HTTP port.
pub fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
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

async fn ready(State(probes): State<Probes>) -> Response {
    if *probes.draining.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if probes.readiness.get().is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "models are loading\n").into_response()
    } else {
        "ok\n".into_response()
    }
}
