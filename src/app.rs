//! Builds every layer, the lowest first, and takes the layers down in reverse order.

mod health;
mod inspection;
mod listeners;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::health::{HealthWatcher, StatePublisher};
use self::inspection::{StartInputs, read_start_inputs};
use self::listeners::{Listener, serve_grpc, serve_http};
use crate::catalog::{self, CatalogError, Snapshot};
use crate::config::Config;
use crate::device::{DeviceError, DeviceGroup, DeviceSettings};
use crate::liveness::SessionLimits;
use crate::model::{Manifest, ModelError, TaskKind};
use crate::pipeline::{
    AdapterError, DecisionPolicies, DecisionPolicyError, ModelAdapters, Pipeline, Sessions,
    SessionsError, lanes,
};
use crate::scheduler::{CpuPool, PoolError, Scheduler, SchedulerStats, Tickets};
use crate::services::{Gateway, PipelineCell, Probes, ServingState};
use crate::telemetry::{Calls, Metrics, ModelLabels};

pub use inspection::{Finding, FindingState, check};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address in the settings.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The descriptors of the API are broken, which is a defect of this program.
    #[error("cannot describe the API for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A device cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The settings place a model on devices that is not on disk.
    #[error("device.placement names model '{model}', there are: {known}")]
    Placement {
        /// The name in the settings.
        model: String,
        /// The names of the models on disk.
        known: String,
    },
    /// A model on disk is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model cannot become live.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A model cannot do the task it is configured for.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The CPU pool cannot be started.
    #[error("cannot start the CPU pool")]
    Pool(#[from] PoolError),
    /// Liveness sessions cannot be served.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The calibration does not support the configured policy.
    #[error(transparent)]
    Policies(#[from] DecisionPolicyError),
}

/// A server. It is bound, then loaded, then stopped.
#[derive(Debug)]
pub struct App {
    /// Limits of liveness sessions, used by the next [`App::load`]. Tests change a limit to see its
    /// effect.
    pub limits: SessionLimits,
    config: Config,
    metrics: AppMetrics,
    pipeline_cell: PipelineCell,
    publisher: StatePublisher,
    /// Runs the [`HealthWatcher`]; `None` until the devices are open.
    health_task: Option<JoinHandle<()>>,
    grpc: Listener,
    http: Listener,
    description: Vec<String>,
}

/// The metrics that are passed down to the layers.
#[derive(Debug, Clone)]
struct AppMetrics {
    requests: Metrics,
    scheduler: SchedulerStats,
}

impl App {
    /// Binds both ports and starts to serve. Health says NOT_SERVING until [`App::load`] returns.
    ///
    /// # Errors
    /// The server cannot listen on an address.
    pub async fn bind(config: Config) -> Result<Self, AppError> {
        let mut registry = Registry::default();
        let metrics = AppMetrics {
            requests: Metrics::register(&mut registry),
            scheduler: SchedulerStats::register(&mut registry),
        };
        let pipeline_cell = PipelineCell::default();
        let (health, health_service) = tonic_health::server::health_reporter();
        let publisher = StatePublisher::new(health).await;
        let probes = Probes { registry: Arc::new(registry), serving_state: publisher.subscribe() };
        let http = serve_http(config.server.http_listen, probes).await?;
        let gateway = gateway(&config, &metrics, &pipeline_cell);
        let calls = Calls { metrics: metrics.requests.clone(), sampled: config.log.calls_sampled };
        let grpc = serve_grpc(&config, calls, gateway, health_service).await?;
        let limits = config.liveness.limits();
        Ok(Self {
            limits,
            config,
            metrics,
            pipeline_cell,
            publisher,
            health_task: None,
            grpc,
            http,
            description: Vec::new(),
        })
    }

    /// Opens the devices, loads the models, checks the goldens on the devices, and accepts calls.
    ///
    /// # Errors
    /// A device cannot be opened, a model is refused, the calibration is for another model, or
    /// another [`AppError`].
    pub async fn load(&mut self) -> Result<(), AppError> {
        let config = &self.config;
        let StartInputs { devices, packages, policies, sessions } =
            read_start_inputs(config).await?;
        let group = devices.open().await?;
        let snapshot = catalog::load(&group, packages).await?;
        let adapters = ModelAdapters::of(&snapshot)?;
        for (_, model) in snapshot.iter() {
            self.metrics.requests.set_model_live(&labels(model.manifest()));
        }
        self.description = describe(&group, &snapshot, &policies);
        let lanes = lanes(&config.scheduler, &snapshot);
        let mut watcher = HealthWatcher {
            devices: group.health(),
            placements: snapshot.iter().map(|(_, model)| model.placement()).collect(),
            publisher: self.publisher.clone(),
            metrics: self.metrics.requests.clone(),
            reported: Vec::new(),
        };
        let scheduler = Scheduler::start(Arc::new(group), lanes, &self.metrics.scheduler);
        let pipeline = Pipeline {
            snapshot,
            adapters: Arc::new(adapters),
            scheduler,
            pool: cpu_pool(&config.device)?,
            image_places: Semaphore::new(config.image.decoded_max.min(Semaphore::MAX_PERMITS)),
            image: config.image,
            quality: config.quality.clone(),
            policies,
            sessions: Sessions { limits: self.limits.clone(), ..sessions },
            metrics: self.metrics.requests.clone(),
        };
        // A second load would keep the first pipeline. The program loads only once.
        let _ = self.pipeline_cell.set(Arc::new(pipeline));
        watcher.report().await;
        self.health_task = Some(tokio::spawn(watcher.run()));
        tracing::info!(grpc = %self.grpc.address, http = %self.http.address, "ready");
        Ok(())
    }

    /// Calls [`App::bind`] and then [`App::load`].
    ///
    /// # Errors
    /// The errors of both.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let mut app = Self::bind(config).await?;
        app.load().await?;
        Ok(app)
    }

    /// Returns the address of the gRPC listener.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address
    }

    /// Returns the address of the HTTP listener, which serves `/metrics`, `/livez` and `/readyz`.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// Returns lines for the operator: addresses, devices, models, calibration.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("gRPC        {}", self.grpc.address),
            format!("HTTP        {}  (/metrics /livez /readyz)", self.http.address),
        ];
        lines.extend(self.description.iter().cloned());
        lines
    }

    /// Stops the server. Publishes NOT_SERVING, closes the gRPC listener after `drain_grace_ms`,
    /// waits at most `drain_timeout_ms` for the calls in flight, then takes the layers down.
    pub async fn stop(mut self) {
        let server = &self.config.server;
        if let Some(health_task) = self.health_task.take() {
            health_task.abort();
            // No other task publishes a state after this.
            drop(health_task.await);
        }
        self.publisher.publish(ServingState::Stopping).await;
        tokio::time::sleep(Duration::from_millis(server.drain_grace_ms)).await;
        self.publisher.end_watches().await;
        let timeout = Duration::from_millis(server.drain_timeout_ms);
        if !self.grpc.stop(timeout).await {
            tracing::warn!(timeout_ms = server.drain_timeout_ms, "requests were cut off");
        }
        self.http.stop(HTTP_STOP_TIMEOUT).await;
        tracing::info!("stopped");
    }
}

/// Longest time to wait for the last HTTP request, such as a read of `/metrics`.
const HTTP_STOP_TIMEOUT: Duration = Duration::from_secs(2);

fn gateway(config: &Config, metrics: &AppMetrics, pipeline_cell: &PipelineCell) -> Gateway {
    let server = &config.server;
    let stats = metrics.scheduler.clone();
    Gateway {
        pipeline: Arc::clone(pipeline_cell),
        tickets: Tickets::new(server.requests_max, server.bytes_max, stats),
        limits: config.image,
    }
}

fn cpu_pool(settings: &DeviceSettings) -> Result<CpuPool, PoolError> {
    let threads = settings.cpu_pool_threads();
    CpuPool::new(threads, threads.saturating_mul(POOL_JOBS_PER_THREAD))
}

/// Jobs that run or wait in the pool, for each thread. Further images of a request wait outside the
/// pool, where a caller that leaves costs nothing.
const POOL_JOBS_PER_THREAD: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// Returns the metric labels of a live model.
fn labels(manifest: &Manifest) -> ModelLabels {
    ModelLabels {
        task: manifest.task.name().replace('-', "_"),
        model: manifest.id(),
        precision: manifest.precision.name().to_owned(),
    }
}

fn describe(group: &DeviceGroup, snapshot: &Snapshot, policies: &DecisionPolicies) -> Vec<String> {
    let mut lines: Vec<String> =
        group.describe().map(|device| format!("device      {device}")).collect();
    for (kind, model) in snapshot.iter() {
        let manifest = model.manifest();
        let name = match kind {
            TaskKind::FaceDetection => "detector",
            TaskKind::FaceEmbedding => "embedder",
            TaskKind::FaceMesh => "mesh",
            TaskKind::Iris => "iris",
            TaskKind::PassiveLiveness => "liveness",
        };
        lines.push(format!(
            "{:<12}{}  {}  {}  batches up to {}",
            name,
            manifest.id(),
            manifest.precision.name(),
            manifest.licence.as_str(),
            manifest.buckets.iter().max().copied().unwrap_or(1),
        ));
    }
    for entry in &policies.entries {
        let kind = if entry.is_generic() { "generic" } else { entry.pair_type().name() };
        let fmr_min = entry.fmr_min();
        lines.push(format!(
            "calibration {} ({kind}), false-match rates from {fmr_min:.1e}",
            entry.id()
        ));
    }
    lines
}
