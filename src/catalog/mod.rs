//! The live model versions.
//!
//! ```text
//! manifests → choose → packages → load (golden, warm-up on the device) → Snapshot
//! ```
//!
//! A request uses one [`Snapshot`] from its start to its end.

mod by_task;
mod choose;
mod error;
#[cfg(test)]
mod fixture;
mod settings;

use std::sync::Arc;

use crate::device::{DeviceGroup, LoadedModel};
use crate::model::{Package, TaskKind};

pub use by_task::{ByTask, LivenessEnsemble};
pub use choose::{choose_liveness, choose_members, choose_model};
pub use error::CatalogError;
pub use settings::ModelSettings;

/// The live models that one request uses.
pub type Snapshot = ByTask<Arc<LoadedModel>>;

/// Loads the models of all tasks on one group of devices, one after the other. Each model passes
/// its golden and is warmed on every device of its placement.
///
/// # Errors
/// [`CatalogError::WrongTask`], before any model is loaded. [`CatalogError::Device`] if a device
/// refuses a model; then no model is live.
pub async fn load(
    group: &DeviceGroup,
    packages: ByTask<Package>,
) -> Result<Arc<Snapshot>, CatalogError> {
    let packages = packages.try_map(check_task)?;
    // The model with the largest weights first: importing briefly needs several times their size,
    // and no other model takes memory yet.
    let embedder = load_one(group, packages.embedder).await?;
    let mesh = load_one(group, packages.mesh).await?;
    let iris = load_one(group, packages.iris).await?;
    let detector = load_one(group, packages.detector).await?;
    let LivenessEnsemble { members: unloaded, fusion, score_min } = packages.liveness;
    let mut members = Vec::with_capacity(unloaded.len());
    for package in unloaded {
        members.push(load_one(group, package).await?);
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

async fn load_one(group: &DeviceGroup, package: Package) -> Result<Arc<LoadedModel>, CatalogError> {
    let model = package.id();
    let refused = |source| CatalogError::Device { model, source: Box::new(source) };
    group.load(package).await.map_err(refused)
}
