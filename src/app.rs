//! Builds every layer bottom-up and takes them down in reverse.

mod listening;
mod standing;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::listening::{Listening, serve_grpc, serve_http};
use self::standing::{Board, Follower};
use crate::catalog::{Catalog, CatalogError, Choices, Role, Snapshot, choose};
use crate::config::{Config, LivenessSettings, VerifySettings};
use crate::device::{Device, DeviceError, DeviceOptions, LoadedModel};
use crate::face::calibration::{CalibrationError, CalibrationFile, PairType, PolicyError};
use crate::image::DecodeLimits;
use crate::liveness::Limits;
use crate::model::{LicencePolicy, Manifest, ModelError, Package, scan, scan_ensembles, space_id};
use crate::pipeline::{Pipeline, Rules, RulesError, Sessions, SessionsError, Standards};
use crate::scheduler::{CpuPool, LaneSettings, PoolError, Scheduler, SchedulerStats, Tickets};
use crate::services::{Door, Probes, Readiness, Standing};
use crate::telemetry::{Calls, Metrics, ModelLabels};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The API's descriptors are broken: a defect of this program.
    #[error("cannot describe the API for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A model that is not there is placed on devices.
    #[error("device.placement names model '{model}', there are: {known}")]
    Placement {
        /// Name of the settings.
        model: String,
        /// Names of the models on disk.
        known: String,
    },
    /// The models on disk are refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model cannot be live.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A model cannot do what it was configured for.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The CPU pool cannot be started.
    #[error("cannot start the CPU pool")]
    Pool(#[from] PoolError),
    /// The calibration file cannot be read.
    #[error("cannot read the calibration file {path}")]
    CalibrationFile {
        /// Path of the settings.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The calibration file is refused.
    #[error("calibration file refused")]
    Calibration(#[from] CalibrationError),
    /// The calibration file belongs to another embedding model.
    #[error("the calibration file is for the space {file}, the live embedding model's is {live}")]
    CalibrationSpace {
        /// Space of the file.
        file: String,
        /// Space of the live model.
        live: String,
    },
    /// Liveness sessions cannot be served.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The configured policy cannot be decided at.
    #[error("verify.policy_fmr cannot be used")]
    Policy(#[from] PolicyError),
}

/// A server: bound, then loaded, then stopped.
#[derive(Debug)]
pub struct App {
    /// The limits of the liveness sessions of the next [`App::load`]. Tests move one to see what it
    /// stops.
    pub limits: Limits,
    config: Config,
    gauges: Gauges,
    readiness: Readiness,
    board: Board,
    /// Tells what becomes of the devices, once they are open.
    following: Option<JoinHandle<()>>,
    grpc: Listening,
    http: Listening,
    about: Vec<String>,
}

/// Counters and histograms, handed to every layer that counts.
#[derive(Debug, Clone)]
struct Gauges {
    metrics: Metrics,
    scheduler: SchedulerStats,
}

impl App {
    /// Binds both ports and serves, NOT_SERVING until [`App::load`].
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub async fn bind(config: Config) -> Result<Self, AppError> {
        let mut registry = Registry::default();
        let gauges = Gauges {
            metrics: Metrics::register(&mut registry),
            scheduler: SchedulerStats::register(&mut registry),
        };
        let readiness = Readiness::default();
        let (health, health_service) = tonic_health::server::health_reporter();
        let board = Board::new(health).await;
        let probes = Probes { registry: Arc::new(registry), standing: board.reader() };
        let http = serve_http(config.server.http_listen, probes).await?;
        let door = door(&config, &gauges, &readiness);
        let calls = Calls { metrics: gauges.metrics.clone(), sampled: config.log.calls_sampled };
        let grpc = serve_grpc(&config, calls, door, health_service).await?;
        let limits = session_limits(&config.liveness);
        let (about, following) = (Vec::new(), None);
        Ok(Self { limits, config, gauges, readiness, board, following, grpc, http, about })
    }

    /// Opens the device, loads the models, checks their goldens on it, and starts to serve.
    ///
    /// # Errors
    /// A device that is not there, a model that is refused, a calibration that does not fit.
    pub async fn load(&mut self) -> Result<(), AppError> {
        let config = &self.config;
        let device = Device::open(&DeviceOptions::of(&config.device)?).await?;
        let catalog = load_catalog(config, &device).await?;
        let snapshot = catalog.snapshot();
        let rules = Rules::of(&snapshot)?;
        for (_, model) in snapshot.iter() {
            self.gauges.metrics.model_live(&labels(model.manifest()));
        }
        let standards = standards(&config.verify, &snapshot)?;
        self.about = describe(&device, &snapshot, &standards);
        let limits = self.limits.clone();
        let sessions = Sessions { limits, ..Sessions::open(&config.liveness).await? };
        let lanes = lanes(config, &snapshot);
        let mut follower = Follower {
            devices: device.health(),
            placements: snapshot.iter().map(|(_, model)| model.placement()).collect(),
            board: self.board.clone(),
            metrics: self.gauges.metrics.clone(),
            told: Vec::new(),
        };
        let scheduler = Scheduler::start(Arc::new(device), lanes, &self.gauges.scheduler);
        let pipeline = Pipeline {
            snapshot,
            rules: Arc::new(rules),
            scheduler,
            pool: cpu_pool(config)?,
            places: Semaphore::new(config.image.decoded_max.min(Semaphore::MAX_PERMITS)),
            decode: decode_limits(config),
            quality: config.quality.clone(),
            standards,
            sessions,
            metrics: self.gauges.metrics.clone(),
        };
        // Loading twice keeps the first pipeline; nothing in the program does it.
        let _ = self.readiness.set(Arc::new(pipeline));
        follower.tell().await;
        self.following = Some(tokio::spawn(follower.run()));
        tracing::info!(grpc = %self.grpc.address, http = %self.http.address, "ready");
        Ok(())
    }

    /// [`App::bind`] and [`App::load`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let mut app = Self::bind(config).await?;
        app.load().await?;
        Ok(app)
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address
    }

    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// Lines for people: addresses, device, models, calibration.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("gRPC        {}", self.grpc.address),
            format!("HTTP        {}  (/metrics /livez /readyz)", self.http.address),
        ];
        lines.extend(self.about.iter().cloned());
        lines
    }

    /// Stops: says NOT_SERVING, closes the listener after the grace, finishes what is in flight,
    /// then takes the layers down.
    pub async fn stop(mut self) {
        let server = &self.config.server;
        if let Some(following) = self.following.take() {
            following.abort();
            // From here on nobody else writes to the board.
            drop(following.await);
        }
        self.board.tell(Standing::Stopping).await;
        tokio::time::sleep(Duration::from_millis(server.drain_grace_ms)).await;
        self.board.end_watches().await;
        let timeout = Duration::from_millis(server.drain_timeout_ms);
        if !self.grpc.stop(timeout).await {
            tracing::warn!(timeout_ms = server.drain_timeout_ms, "requests were cut off");
        }
        self.http.stop(HTTP_STOP_TIMEOUT).await;
        tracing::info!("stopped");
    }
}

/// How long the last reader of `/metrics` may take.
const HTTP_STOP_TIMEOUT: Duration = Duration::from_secs(2);

fn session_limits(settings: &LivenessSettings) -> Limits {
    let mut limits = Limits::default();
    limits.admission.session_bytes_max = settings.session_bytes_max;
    limits.risk.is_review = settings.risk_review;
    limits
}

fn door(config: &Config, gauges: &Gauges, readiness: &Readiness) -> Door {
    let server = &config.server;
    let stats = gauges.scheduler.clone();
    Door {
        readiness: Arc::clone(readiness),
        tickets: Tickets::new(server.requests_max, server.bytes_max, stats),
        limits: config.image.clone(),
    }
}

fn decode_limits(config: &Config) -> DecodeLimits {
    let image = &config.image;
    DecodeLimits {
        bytes_max: image.bytes_max,
        side_max: image.side_max,
        pixels_max: image.pixels_max,
    }
}

fn cpu_pool(config: &Config) -> Result<CpuPool, PoolError> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = NonZeroUsize::new(config.device.cpu_pool_threads).unwrap_or(cores);
    CpuPool::new(threads, threads.saturating_mul(POOL_JOBS_PER_THREAD))
}

/// Jobs started or queued per pool thread; the rest of a request's images wait outside, where a
/// caller that leaves costs nothing.
const POOL_JOBS_PER_THREAD: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

async fn load_catalog(config: &Config, device: &Device) -> Result<Catalog, AppError> {
    let models = &config.models;
    let policy = if models.accept_noncommercial {
        LicencePolicy::AcceptNonCommercial
    } else {
        LicencePolicy::Commercial
    };
    let listings = scan(&models.dir)?;
    let manifests: Vec<&Manifest> = listings.iter().map(|listing| &listing.manifest).collect();
    check_placement(config, &manifests)?;
    let choices = Choices {
        detector: Some(models.detector.clone()),
        embedder: Some(models.embedder.clone()),
        mesh: Some(models.mesh.clone()),
        iris: Some(models.iris.clone()),
        liveness: Some(models.liveness.clone()),
    };
    let places = choose(&manifests, &scan_ensembles(&models.dir)?, &choices)?;
    let packages = places.try_map(|_, place| Package::open_with(&listings[place].dir, policy))?;
    Ok(Catalog::load(device, packages).await?)
}

/// A name that no model has would be a model in the wrong place.
fn check_placement(config: &Config, manifests: &[&Manifest]) -> Result<(), AppError> {
    let is_known = |name: &str| manifests.iter().any(|manifest| manifest.name == name);
    match config.device.placement.keys().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(model) => {
            let mut names: Vec<&str> = manifests.iter().map(|known| known.name.as_str()).collect();
            names.dedup();
            Err(AppError::Placement { model: model.clone(), known: names.join(", ") })
        }
    }
}

/// What comes later in a request goes first on the device: the detector's rows come before those
/// of the networks that look at a face, and the mesh's before those of the eyes it finds.
fn lanes(config: &Config, snapshot: &Snapshot) -> Vec<LaneSettings> {
    let rows_max = NonZeroUsize::new(config.scheduler.lane_rows_max).unwrap_or(NonZeroUsize::MIN);
    let delay_max = Duration::from_millis(config.scheduler.delay_max_ms);
    let stage = |role| match role {
        Role::Detector => 0,
        Role::Embedder | Role::Mesh | Role::Liveness => 1,
        Role::Iris => 2,
    };
    let lane = |(role, model): (Role, &Arc<LoadedModel>)| LaneSettings {
        model: Arc::clone(model),
        stage: stage(role),
        rows_max,
        delay_max,
    };
    snapshot.iter().map(lane).collect()
}

/// The deployment's own rows before those of the live embedding model.
fn standards(settings: &VerifySettings, snapshot: &Snapshot) -> Result<Standards, AppError> {
    let manifest = snapshot.embedder.manifest();
    let mut rows = match &settings.calibration {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| AppError::CalibrationFile { path: path.clone(), source })?;
            let file = CalibrationFile::parse(&text)?;
            let live = space_id(manifest, manifest.precision);
            if file.space != live {
                return Err(AppError::CalibrationSpace { file: file.space, live });
            }
            file.rows
        }
    };
    rows.extend(manifest.calibration.iter().cloned());
    let standards = Standards {
        rows,
        policy_fmr: settings.policy_fmr,
        review_factor: settings.review_factor,
        own_pair_type_required: settings.own_pair_type_required,
    };
    for pair_type in [PairType::ChipLive, PairType::FileLive, PairType::LiveLive] {
        standards.standard(pair_type, None)?;
    }
    Ok(standards)
}

/// A live model as metrics name it.
fn labels(manifest: &Manifest) -> ModelLabels {
    ModelLabels {
        task: manifest.task.name().replace('-', "_"),
        model: manifest.id(),
        precision: manifest.precision.name().to_owned(),
    }
}

fn describe(device: &Device, snapshot: &Snapshot, standards: &Standards) -> Vec<String> {
    let mut lines: Vec<String> =
        device.describe().map(|device| format!("device      {device}")).collect();
    for (role, model) in snapshot.iter() {
        let manifest = model.manifest();
        let name = match role {
            Role::Detector => "detector",
            Role::Embedder => "embedder",
            Role::Mesh => "mesh",
            Role::Iris => "iris",
            Role::Liveness => "liveness",
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
    for row in &standards.rows {
        let kind = if row.is_generic() { "generic" } else { row.pair_type().name() };
        let fmr_min = row.fmr_min();
        lines.push(format!(
            "calibration {} ({kind}), false-match rates from {fmr_min:.1e}",
            row.id()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_of_a_model_that_is_not_there_is_refused_with_what_there_is() {
        let manifest = |name: &str| crate::device::fixture::manifest(name, "1", &[1]);
        let manifests = [manifest("emb"), manifest("det")];
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let mut config = Config::default();
        config.device.placement.insert("emb".to_owned(), vec![0]);
        check_placement(&config, &manifests).unwrap();
        config.device.placement.insert("embedder".to_owned(), vec![0]);
        let message = check_placement(&config, &manifests).unwrap_err().to_string();
        assert_eq!(message, "device.placement names model 'embedder', there are: emb, det");
    }
}
