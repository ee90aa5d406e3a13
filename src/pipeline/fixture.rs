//! A pipeline of the default models, for tests that need the networks' real outputs.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{
    DecisionPolicies, LivenessSettings, ModelAdapters, Pipeline, Sessions, VerifySettings, lanes,
    session_keys, session_store,
};
use crate::catalog::{self, ByTask, ModelSettings, choose_liveness, choose_model};
use crate::device::{DeviceGroup, DeviceSettings};
use crate::face::QualityLimits;
use crate::image::ImageSettings;
use crate::model::{Manifest, ModelError, Package, TaskKind, scan};
use crate::scheduler::{CpuPool, Scheduler, SchedulerSettings, SchedulerStats, Ticket, Tickets};
use crate::telemetry::Metrics;

/// A pipeline with its own runtime. Lives as long as the process.
pub(super) struct Fixture {
    pub(super) runtime: Runtime,
    pub(super) pipeline: Pipeline,
    tickets: Tickets,
}

/// Returns the pipeline that all tests share.
pub(super) fn shared() -> &'static Fixture {
    static SHARED: OnceLock<Fixture> = OnceLock::new();
    SHARED.get_or_init(Fixture::start)
}

impl Fixture {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mut registry = Registry::default();
        let stats = SchedulerStats::register(&mut registry);
        let metrics = Metrics::register(&mut registry);
        let tickets = Tickets::new(8, 1 << 20, stats.clone());
        let group = runtime.block_on(DeviceGroup::open(&DeviceSettings::default())).unwrap();
        let snapshot = runtime.block_on(catalog::load(&group, packages())).unwrap();
        let lanes = lanes(&SchedulerSettings { lane_rows_max: 8, delay_max_ms: 0 }, &snapshot);
        let settings = LivenessSettings::default();
        let replay = runtime.block_on(session_store(&settings)).unwrap();
        let scheduler =
            runtime.block_on(async { Scheduler::start(Arc::new(group), lanes, &stats) });
        let pipeline = Pipeline {
            adapters: Arc::new(ModelAdapters::of(&snapshot).unwrap()),
            snapshot,
            scheduler,
            pool: CpuPool::new(2.try_into().unwrap(), 8.try_into().unwrap()).unwrap(),
            image_places: Semaphore::new(8),
            image: ImageSettings::default(),
            quality: QualityLimits::default(),
            policies: DecisionPolicies {
                entries: Vec::new(),
                settings: VerifySettings { review_factor: 1.0, ..VerifySettings::default() },
            },
            sessions: Sessions::new(&settings, session_keys(&settings).unwrap(), replay),
            metrics,
        };
        Self { runtime, pipeline, tickets }
    }

    pub(super) fn ticket(&self) -> Arc<Ticket> {
        let deadline = Instant::now() + Duration::from_secs(3600);
        Arc::new(self.tickets.admit(1, deadline, "store".into()).unwrap())
    }
}

/// Opens the models of the repository with small buckets only, which saves warm-up time.
fn packages() -> ByTask<Package> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let listings = scan(&dir).unwrap();
    let manifests: Vec<&Manifest> = listings.iter().map(|listing| &listing.manifest).collect();
    let settings = ModelSettings::default();
    let model = |kind, asked: &str| choose_model(&manifests, kind, asked).unwrap();
    let places = ByTask {
        detector: model(TaskKind::FaceDetection, &settings.detector),
        embedder: model(TaskKind::FaceEmbedding, &settings.embedder),
        mesh: model(TaskKind::FaceMesh, &settings.mesh),
        iris: model(TaskKind::Iris, &settings.iris),
        liveness: choose_liveness(&manifests, &[], &settings.liveness).unwrap(),
    };
    let open = |_, place: usize| {
        let mut package = Package::open(&listings[place].dir)?;
        package.manifest.buckets = vec![1, 2];
        Ok::<_, ModelError>(package)
    };
    places.try_map(open).unwrap()
}
