//! Which model versions are live.
//!
//! ```text
//! manifests → choose → packages → load (golden, warm-up on the device) → Snapshot
//! ```
//!
//! A request takes one [`Snapshot`] and keeps it to its end.

mod by_task;
mod choose;
mod error;
#[cfg(test)]
mod fixture;
mod settings;

use std::sync::Arc;

use crate::device::{Device, LoadedModel};
use crate::model::{Package, TaskKind};

pub use by_task::{ByTask, LivenessEnsemble};
pub use choose::{choose_liveness, choose_members, choose_model};
pub use error::CatalogError;
pub use settings::ModelSettings;

/// The live models as one request sees them.
pub type Snapshot = ByTask<Arc<LoadedModel>>;

/// Makes the models of all tasks live on one group of devices, one after the other: each passes its
/// golden on every device of its placement and is warm there.
///
/// # Errors
/// [`CatalogError::WrongTask`] before anything is loaded; [`CatalogError::Device`] for a model
/// that the device refuses. Then none is live.
pub async fn load(
    device: &Device,
    packages: ByTask<Package>,
) -> Result<Arc<Snapshot>, CatalogError> {
    let packages = packages.try_map(check_task)?;
    // The largest weights first: importing takes a multiple of their bytes for a moment, and
    // so early nothing else takes memory yet.
    let embedder = load_one(device, packages.embedder).await?;
    let mesh = load_one(device, packages.mesh).await?;
    let iris = load_one(device, packages.iris).await?;
    let detector = load_one(device, packages.detector).await?;
    let LivenessEnsemble { members: unloaded, fusion, score_min } = packages.liveness;
    let mut members = Vec::with_capacity(unloaded.len());
    for package in unloaded {
        members.push(load_one(device, package).await?);
    }
    let liveness = LivenessEnsemble { members, fusion, score_min };
    Ok(Arc::new(Snapshot { detector, embedder, mesh, iris, liveness }))
}

fn check_task(kind: TaskKind, package: Package) -> Result<Package, CatalogError> {
    if package.manifest.task.kind() == kind {
        Ok(package)
    } else {
        Err(choose::wrong_task(&package.manifest, kind))
    }
}

async fn load_one(device: &Device, package: Package) -> Result<Arc<LoadedModel>, CatalogError> {
    let model = package.id();
    let refused = |source| CatalogError::Device { model, source: Box::new(source) };
    device.load(package).await.map_err(refused)
}
