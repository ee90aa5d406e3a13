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
mod settings;

use std::sync::Arc;

use crate::device::{Device, LoadedModel};
use crate::model::Package;

pub use choose::{choose_liveness, choose_members, choose_model};
pub use error::CatalogError;
pub use role::{ByRole, LivenessEnsemble, Role};
pub use settings::ModelSettings;

/// The live models as one request sees them.
pub type Snapshot = ByRole<Arc<LoadedModel>>;

/// The models that serve on one group of devices. Every one has passed its golden on each device of
/// its placement and is warm there.
#[derive(Debug, Clone)]
pub struct Catalog {
    snapshot: Arc<Snapshot>,
}

impl Catalog {
    /// Makes the models of all roles live, one after the other.
    ///
    /// # Errors
    /// [`CatalogError::WrongTask`] before anything is loaded; [`CatalogError::Device`] for a model
    /// that the device refuses. Then none is live.
    pub async fn load(device: &Device, packages: ByRole<Package>) -> Result<Self, CatalogError> {
        let packages = packages.try_map(check_task)?;
        // The largest weights first: importing takes a multiple of their bytes for a moment, and
        // so early nothing else takes memory yet.
        let embedder = load(device, packages.embedder).await?;
        let mesh = load(device, packages.mesh).await?;
        let iris = load(device, packages.iris).await?;
        let detector = load(device, packages.detector).await?;
        let LivenessEnsemble { members: unloaded, fusion, score_min } = packages.liveness;
        let mut members = Vec::with_capacity(unloaded.len());
        for package in unloaded {
            members.push(load(device, package).await?);
        }
        let liveness = LivenessEnsemble { members, fusion, score_min };
        Ok(Self::new(Snapshot { detector, embedder, mesh, iris, liveness }))
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
        Ok(package)
    } else {
        Err(choose::wrong_task(&package.manifest, role))
    }
}

async fn load(device: &Device, package: Package) -> Result<Arc<LoadedModel>, CatalogError> {
    let model = package.id();
    let refused = |source| CatalogError::Device { model, source: Box::new(source) };
    device.load(package).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::fixture::{detector, embedder, iris, liveness, mesh};
    use super::*;
    use crate::device::Placement;
    use crate::device::fixture::reading;
    use crate::liveness::Fusion;
    use crate::model::Manifest;

    fn loaded(manifest: Manifest) -> Arc<LoadedModel> {
        Arc::new(LoadedModel::carrying(manifest, Placement::EVERYWHERE, Box::new(reading)))
    }

    fn catalog() -> Catalog {
        Catalog::new(Snapshot {
            detector: loaded(detector("det", "1")),
            embedder: loaded(embedder("emb", "2")),
            mesh: loaded(mesh("mesh", "1")),
            iris: loaded(iris("iris", "1")),
            liveness: LivenessEnsemble {
                members: ["live", "other"].map(|name| loaded(liveness(name, "3"))).into(),
                fusion: Fusion::Mean,
                score_min: 0.5,
            },
        })
    }

    #[test]
    fn a_live_model_is_found_by_name_and_by_version() {
        let catalog = catalog();
        for asked in ["emb", "emb/2"] {
            assert_eq!(catalog.find(asked).unwrap().id(), "emb/2");
        }
        let second = &catalog.snapshot().liveness.members[1];
        assert!(Arc::ptr_eq(catalog.find("other").unwrap(), second));
    }

    #[test]
    fn a_model_that_is_not_live_is_unknown() {
        let message = catalog().find("emb/1").unwrap_err().to_string();
        let known = "det/1, emb/2, mesh/1, iris/1, live/3, other/3";
        assert_eq!(message, format!("model 'emb/1' is unknown, there are: {known}"));
    }
}
