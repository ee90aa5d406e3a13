//! Tests of the group of devices through its public functions.

mod batches;
mod losses;
mod models;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::BoxFuture;

use super::fixture::{Director, Report, Step, TestNetworks, all_devices, cpu_group, grey, staged};
use super::{
    Batch, BatchOutcome, DeviceError, DeviceGroup, DeviceSet, DeviceSettings, DeviceState,
    LoadedModel, RowOutput,
};
use crate::model::Package;

/// Opens a group of one CPU.
async fn open(networks: &TestNetworks, slots: usize) -> DeviceGroup {
    cpu_group(networks, &with_slots(slots)).await
}

fn batch(model: &Arc<LoadedModel>, values: &[u8], bucket: usize) -> Batch {
    let rows = values.iter().copied().map(grey).collect();
    Batch { model: Arc::clone(model), rows, bucket }
}

async fn run(group: &DeviceGroup, batch: Batch) -> BatchOutcome {
    group.reserve(all_devices()).await.unwrap().launch(batch).await.unwrap()
}

fn values(outcome: &BatchOutcome) -> Vec<Option<f32>> {
    let value = |row: &RowOutput| row.slices()[0][0];
    outcome.results.iter().map(|result| result.as_ref().ok().map(value)).collect()
}

fn with_slots(slots: usize) -> DeviceSettings {
    DeviceSettings { slots, ..DeviceSettings::default() }
}

async fn launch(
    group: &DeviceGroup,
    batch: Batch,
) -> BoxFuture<'static, Result<BatchOutcome, DeviceError>> {
    Box::pin(group.reserve(batch.model.placement()).await.unwrap().launch(batch))
}

fn is_lost(outcome: &BatchOutcome) -> bool {
    outcome.results.iter().all(|result| matches!(result, Err(DeviceError::Lost(_))))
}

async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// Opens a group of one staged machine.
async fn one_staged(networks: &TestNetworks, slots_each: usize) -> (DeviceGroup, Director) {
    let (group, mut directors) = staged(networks, 1, with_slots(slots_each)).await;
    (group, directors.pop().unwrap())
}

/// Returns the package of a small network of the repository, with one bucket to be quick.
fn package() -> Package {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut package = Package::open(&models.join("iris/3.3.6")).unwrap();
    package.manifest.buckets = vec![1];
    package
}

/// Loads a model onto a group of staged machines, whose directors let every trial run continue.
async fn load(
    group: &DeviceGroup,
    directors: &mut [Director],
    package: Package,
) -> Result<Arc<LoadedModel>, DeviceError> {
    let run = async |director: &mut Director| loop {
        match director.report().await {
            Report::Finishing => director.send(Step::Go),
            Report::Started(_) => {}
            other => panic!("{other:?} during a load"),
        }
    };
    let trials = futures_util::future::join_all(directors.iter_mut().map(run));
    tokio::select! {
        biased;
        _ = trials => unreachable!("machines report as long as they are open"),
        loaded = group.load(package) => loaded,
    }
}

async fn until_in_service(group: &DeviceGroup, devices: DeviceSet) {
    group.health().wait_for(|health| health.in_service() == devices).await.unwrap();
}

fn states(group: &DeviceGroup) -> Vec<DeviceState> {
    group.health().borrow().devices.iter().map(|device| device.state.clone()).collect()
}
