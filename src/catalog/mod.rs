//! Which model versions are live.
//!
//! ```text
//! manifests → choose → packages → load (golden, warm-up on the device) → Snapshot
//! ```
//!
//! A request takes one [`Snapshot`] and keeps it to its end.

mod choose;
mod error;
#[cfg(test)]
mod fixture;
mod role;
mod settings;

use std::sync::Arc;

use crate::device::{DeviceGroup, LoadedModel};
use crate::model::Package;

pub use choose::{choose_liveness, choose_members, choose_model};
pub use error::CatalogError;
pub use role::{ByRole, LivenessEnsemble, Role};
pub use settings::ModelSettings;

/// The live models as one request sees them.
pub type Snapshot = ByRole<Arc<LoadedModel>>;

/// Makes the models of all roles live on one group of devices, one after the other: each passes its
/// golden on every device of its placement and is warm there.
///
/// # Errors
/// [`CatalogError::WrongTask`] before anything is loaded; [`CatalogError::Device`] for a model
/// that the device refuses. Then none is live.
pub async fn load(
    device: &DeviceGroup,
    packages: ByRole<Package>,
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

fn check_task(role: Role, package: Package) -> Result<Package, CatalogError> {
    if role.fits(&package.manifest.task) {
        Ok(package)
    } else {
        Err(choose::wrong_task(&package.manifest, role))
    }
}

async fn load_one(
    device: &DeviceGroup,
    package: Package,
) -> Result<Arc<LoadedModel>, CatalogError> {
    let model = package.id();
    let refused = |source| CatalogError::Device { model, source: Box::new(source) };
    device.load(package).await.map_err(refused)
}
