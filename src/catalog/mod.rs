//! Which model versions are live.
//!
//! ```text
//! manifests → choose → packages → Catalog::load (golden, warm-up on the device) → Snapshot
//! ```
//!
//! A request takes one [`Snapshot`] and keeps it to its end.

mod choose;
mod error;
#[cfg(test)]
mod fixture;
mod role;

use std::sync::Arc;

use crate::device::{Device, LoadedModel};
use crate::model::Package;

pub use choose::choose;
pub use error::CatalogError;
pub use role::{ByRole, Role};

/// The live models as one request sees them.
pub type Snapshot = ByRole<Arc<LoadedModel>>;

/// The models that serve on one device. Every one has passed its golden there and is warm.
#[derive(Debug, Clone)]
pub struct Catalog {
    snapshot: Arc<Snapshot>,
}

impl Catalog {
    /// Makes one model per role live, one after the other.
    ///
    /// # Errors
    /// [`CatalogError::WrongTask`] before anything is loaded; [`CatalogError::Device`] for a model
    /// that the device refuses. Then none is live.
    pub async fn load(device: &Device, packages: ByRole<Package>) -> Result<Self, CatalogError> {
        let packages = packages.try_map(check_task)?;
        // The largest weights first: importing takes a multiple of their bytes for a moment, and
        // so early nothing else takes memory yet.
        let embedder = load(device, packages.embedder).await?;
        let detector = load(device, packages.detector).await?;
        let liveness = load(device, packages.liveness).await?;
        Ok(Self::new(Snapshot { detector, embedder, liveness }))
    }

    /// A catalog of models that are already loaded.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: Arc::new(snapshot) }
    }

    /// What is live now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The live model called `asked`, a `name` or `name/version`.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] lists what is live.
    pub fn find(&self, asked: &str) -> Result<&Arc<LoadedModel>, CatalogError> {
        let mut live = self.snapshot.iter().map(|(_, model)| model);
        live.find(|model| choose::is_called(model.manifest(), asked))
            .ok_or_else(|| choose::unknown(asked, self.snapshot.iter().map(|(_, live)| live.id())))
    }
}

fn check_task(role: Role, package: Package) -> Result<Package, CatalogError> {
    if role.fits(&package.manifest.task) {
        return Ok(package);
    }
    let (model, task) = (package.id(), package.manifest.task.name());
    Err(CatalogError::WrongTask { model, task, wanted: role })
}

async fn load(device: &Device, package: Package) -> Result<Arc<LoadedModel>, CatalogError> {
    let model = package.id();
    let refused = |source| CatalogError::Device { model, source: Box::new(source) };
    device.load(package).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::fixture::{detector, embedder, liveness};
    use super::*;
    use crate::device::fixture::reading;
    use crate::model::Manifest;

    fn loaded(manifest: Manifest) -> Arc<LoadedModel> {
        Arc::new(LoadedModel::new(manifest, Box::new(reading)))
    }

    fn catalog() -> Catalog {
        Catalog::new(Snapshot {
            detector: loaded(detector("det", "1")),
            embedder: loaded(embedder("emb", "2")),
            liveness: loaded(liveness("live", "3")),
        })
    }

    #[test]
    fn a_live_model_is_found_by_name_and_by_version() {
        let catalog = catalog();
        for asked in ["emb", "emb/2"] {
            assert_eq!(catalog.find(asked).unwrap().id(), "emb/2");
        }
        assert!(Arc::ptr_eq(catalog.find("live").unwrap(), &catalog.snapshot().liveness));
    }

    #[test]
    fn a_model_that_is_not_live_is_unknown() {
        let message = catalog().find("emb/1").unwrap_err().to_string();
        assert_eq!(message, "model 'emb/1' is unknown, there are: det/1, emb/2, live/3");
    }
}
