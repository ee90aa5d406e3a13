//! The pipeline of the default models, for tests that need what the networks really say.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Pipeline, Rules, Sessions, Standards};
use crate::catalog::{self, ByRole, Choices, Snapshot, choose};
use crate::config::{LivenessSettings, QualityLimits};
use crate::device::{Device, DeviceOptions};
use crate::image::DecodeLimits;
use crate::model::{Manifest, ModelError, Package, scan};
use crate::scheduler::{CpuPool, LaneSettings, Scheduler, SchedulerStats, Ticket, Tickets};
use crate::telemetry::Metrics;

/// A pipeline with a runtime of its own, as long as the process.
pub(super) struct Bench {
    pub(super) runtime: Runtime,
    pub(super) pipeline: Pipeline,
    tickets: Tickets,
}

/// The pipeline that tests share.
pub(super) fn shared() -> &'static Bench {
    static SHARED: OnceLock<Bench> = OnceLock::new();
    SHARED.get_or_init(Bench::start)
}

impl Bench {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mut registry = Registry::default();
        let stats = SchedulerStats::register(&mut registry);
        let metrics = Metrics::register(&mut registry);
        let tickets = Tickets::new(8, 1 << 20, stats.clone());
        let device = runtime.block_on(Device::open(&DeviceOptions::default())).unwrap();
        let snapshot = runtime.block_on(catalog::load(&device, packages())).unwrap();
        let lanes = lanes(&snapshot);
        let scheduler =
            runtime.block_on(async { Scheduler::start(Arc::new(device), lanes, &stats) });
        let pipeline = Pipeline {
            rules: Arc::new(Rules::of(&snapshot).unwrap()),
            snapshot,
            scheduler,
            pool: CpuPool::new(2.try_into().unwrap(), 8.try_into().unwrap()).unwrap(),
            places: Semaphore::new(8),
            decode: DecodeLimits::default(),
            quality: QualityLimits::default(),
            standards: Standards {
                rows: Vec::new(),
                policy_fmr: 1e-4,
                review_factor: 1.0,
                own_pair_type_required: false,
            },
            sessions: runtime.block_on(Sessions::open(&LivenessSettings::default())).unwrap(),
            metrics,
        };
        Self { runtime, pipeline, tickets }
    }

    pub(super) fn ticket(&self) -> Arc<Ticket> {
        let deadline = Instant::now() + Duration::from_secs(3600);
        Arc::new(self.tickets.admit(1, deadline, "store".into()).unwrap())
    }
}

/// The models of the repository, warm for a few rows only, which saves the tests time.
fn packages() -> ByRole<Package> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let listings = scan(&dir).unwrap();
    let manifests: Vec<&Manifest> = listings.iter().map(|listing| &listing.manifest).collect();
    let places = choose(&manifests, &[], &Choices::default()).unwrap();
    let open = |_, place: usize| {
        let mut package = Package::open(&listings[place].dir)?;
        package.manifest.buckets = vec![1, 2];
        Ok::<_, ModelError>(package)
    };
    places.try_map(open).unwrap()
}

fn lanes(snapshot: &Snapshot) -> Vec<LaneSettings> {
    let lane = |model: &Arc<_>| LaneSettings {
        model: Arc::clone(model),
        stage: 0,
        rows_max: 8.try_into().unwrap(),
        delay_max: Duration::ZERO,
    };
    snapshot.iter().map(|(_, model)| lane(model)).collect()
}
