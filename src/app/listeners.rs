//! The two listeners: gRPC, and HTTP for metrics and probes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::AppError;
use crate::config::Config;
use crate::proto::v1::FILE_DESCRIPTOR_SET;
use crate::proto::v1::face_service_server::FaceServiceServer;
use crate::proto::v1::liveness_service_server::LivenessServiceServer;
use crate::services::{
    CallLayer, DeadlineLayer, FaceServer, Gateway, IntakeLayer, LivenessServer, MessageLimits,
    Probes, http_router,
};
use crate::telemetry::{Calls, causes};

/// A listener that runs until [`Listener::stop`].
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Closes the listener and waits at most `timeout` for its requests. Returns false if requests
    /// were cut off.
    pub(super) async fn stop(self, timeout: Duration) -> bool {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        let finished = tokio::time::timeout(timeout, self.task).await.is_ok();
        abort.abort();
        finished
    }
}

/// Interval of HTTP/2 pings on a silent connection, so that a client behind a dead link does not
/// hold streams.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// HTTP/2 receive windows. The window of a stream holds most photographs whole, and the window of a
/// connection holds eight of them. The default of hyper for a connection is 1 MiB, with which calls
/// on one connection wait for each other's window updates. Bytes in a window do not count against
/// `server.bytes_max` yet.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Serves the API, health and reflection.
pub(super) async fn serve_grpc<H>(
    config: &Config,
    calls: Calls,
    gateway: Gateway,
    health: HealthServer<H>,
) -> Result<Listener, AppError>
where
    H: Health,
{
    let limits = MessageLimits {
        image_bytes_max: config.image.bytes_max,
        live_photos_max: config.image.live_photos_max,
        session_bytes_max: config.liveness.session_bytes_max,
    };
    // Older clients in Python and Go use v1alpha, newer clients use v1.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(config.server.streams_per_connection_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(CallLayer(calls))
        .layer(DeadlineLayer {
            timeout_default: config.server.timeout_default(),
            timeout_max: config.server.timeout_max(),
        })
        .layer(IntakeLayer::new(limits, config.server.bytes_max))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(
            FaceServiceServer::new(FaceServer(gateway.clone()))
                .max_decoding_message_size(limits.largest()),
        )
        .add_service(
            LivenessServiceServer::new(LivenessServer {
                gateway,
                tells_all: config.liveness.tells_all,
            })
            .max_decoding_message_size(limits.largest()),
        );
    let (listener, address) = listen(config.server.listen).await?;
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(async move {
        // An answer is several small writes. Without TCP_NODELAY the kernel holds the last writes
        // until the caller acknowledges the first, and callers delay that by 40 ms.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = router.serve_with_incoming_shutdown(incoming, stop_requested(stopping));
        if let Err(error) = serving.await {
            tracing::error!(causes = causes(&error), "the gRPC listener failed");
        }
    });
    Ok(Listener { address, stop, task })
}

/// Serves `/metrics`, `/livez` and `/readyz`.
pub(super) async fn serve_http(address: SocketAddr, probes: Probes) -> Result<Listener, AppError> {
    let (listener, address) = listen(address).await?;
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, http_router(probes));
        if let Err(error) = server.with_graceful_shutdown(stop_requested(stopping)).await {
            tracing::error!(causes = causes(&error), "the HTTP listener failed");
        }
    });
    Ok(Listener { address, stop, task })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let refused = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Waits until `stopping` becomes true or its sender is dropped.
async fn stop_requested(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
