//! What a start reads before it opens a device, and everything that is wrong with that. A start
//! and `menshen check` read it by the same code.

use super::AppError;
use crate::catalog::{ByTask, LivenessEnsemble, choose_liveness, choose_model};
use crate::config::Config;
use crate::device::{DeviceError, DevicePlan, DeviceSettings};
use crate::model::{Listing, Manifest, ModelFolder, Package, TaskKind, scan_folder};
use crate::pipeline::{Sessions, Standards, check_manifest, session_keys, session_store};
use crate::trust::{ReplayStore, ReplayTarget, SessionKeys};

/// One part of what a start reads.
#[derive(Debug)]
pub struct Finding {
    /// The setting that names the part, such as `models.detector`.
    pub key: &'static str,
    /// How the part is.
    pub state: State,
}

/// How one part of what a start reads is.
#[derive(Debug)]
pub enum State {
    /// As it must be; in short what it is.
    Right(String),
    /// Not as it must be: no start would succeed.
    Wrong(AppError),
    /// Not looked at, because a setting of the part was refused.
    NotChecked,
}

/// Everything that a start needs and has before it opens a device.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) devices: DevicePlan,
    pub(super) packages: ByTask<Package>,
    pub(super) standards: Standards,
    pub(super) sessions: Sessions,
}

/// How the devices are found: [`DevicePlan::new`], or [`DevicePlan::without_opening`].
pub(super) type FindDevices = fn(&DeviceSettings) -> Result<DevicePlan, DeviceError>;

/// Everything that a start reads, looked at part by part; a part that is wrong keeps none of the
/// others from being looked at.
pub(super) struct Inspection<'a> {
    config: &'a Config,
    /// Keys of settings that were refused. In `config` those of the wrong type have their defaults;
    /// those out of range stand as they were given.
    refused: &'a [String],
    pub(super) findings: Vec<Finding>,
}

/// Says everything that would keep a start from succeeding, as far as can be told without opening
/// a GPU, and in short what is right. Parts with a setting among the `refused` keys are left out.
pub async fn check(config: &Config, refused: &[String]) -> Vec<Finding> {
    let mut inspection = Inspection { config, refused, findings: Vec::new() };
    inspection.read(DevicePlan::without_opening).await;
    inspection.findings
}

/// Reads everything that a start needs.
///
/// # Errors
/// The first part that is wrong.
pub(super) async fn prepare(config: &Config) -> Result<Prepared, AppError> {
    let mut inspection = Inspection { config, refused: &[], findings: Vec::new() };
    let prepared = inspection.read(DevicePlan::new).await;
    let wrong = inspection.findings.into_iter().find_map(|finding| match finding.state {
        State::Wrong(error) => Some(error),
        State::Right(_) | State::NotChecked => None,
    });
    match wrong {
        Some(error) => Err(error),
        None => Ok(prepared.expect("every part that is missing was found to be wrong")),
    }
}

impl Inspection<'_> {
    async fn read(&mut self, find_devices: FindDevices) -> Option<Prepared> {
        let devices = self.devices(find_devices);
        let (packages, standards) = self.models(devices.as_ref());
        let keys = self.session_keys();
        let store = self.session_store().await;
        let sessions = Sessions::new(&self.config.liveness, keys?, store?);
        Some(Prepared { devices: devices?, packages: packages?, standards: standards?, sessions })
    }

    fn devices(&mut self, find_devices: FindDevices) -> Option<DevicePlan> {
        if self.is_left_out("device.", "device.device") {
            return None;
        }
        let devices = find_devices(&self.config.device).map_err(AppError::Device);
        self.note("device.device", devices, DevicePlan::to_string)
    }

    /// The packages of all tasks, and what is decided by, which needs the embedder's manifest only.
    fn models(
        &mut self,
        devices: Option<&DevicePlan>,
    ) -> (Option<ByTask<Package>>, Option<Standards>) {
        if self.is_left_out("models.", "models.dir") {
            return (None, None);
        }
        let Some(folder) = self.model_folder() else { return (None, None) };
        let manifests: Vec<&Manifest> = folder.models.iter().map(|model| &model.manifest).collect();
        self.placement(&manifests);
        let places = self.places(&folder, &manifests);
        let standards = places.embedder.and_then(|place| self.standards(manifests[place]));
        (self.packages(&folder, places, devices), standards)
    }

    fn model_folder(&mut self) -> Option<ModelFolder> {
        let folder = scan_folder(&self.config.models.dir).map_err(AppError::Model);
        let mut folder = self.note("models.dir", folder, |folder| {
            let (models, ensembles) = (folder.models.len(), folder.ensembles.len());
            format!("{models} models, {ensembles} ensembles")
        })?;
        for refused in folder.refused.drain(..) {
            self.wrong("models.dir", AppError::Model(refused));
        }
        Some(folder)
    }

    /// A name that no model has would be a model in the wrong place.
    fn placement(&mut self, manifests: &[&Manifest]) {
        let placed = self.config.device.placement.keys();
        let is_known = |name: &str| manifests.iter().any(|manifest| manifest.name == name);
        for model in placed.filter(|name| !is_known(name)) {
            let mut names: Vec<&str> = manifests.iter().map(|known| known.name.as_str()).collect();
            names.dedup();
            let (model, known) = (model.clone(), names.join(", "));
            self.wrong("device.placement", AppError::Placement { model, known });
        }
    }

    /// Which of `manifests` does each task.
    fn places(&mut self, folder: &ModelFolder, manifests: &[&Manifest]) -> Places {
        let models = &self.config.models;
        let mut choose = |kind, asked| {
            let place = choose_model(manifests, kind, asked).map_err(AppError::Catalog);
            self.keep(model_setting(kind), place)
        };
        let detector = choose(TaskKind::FaceDetection, &models.detector);
        let embedder = choose(TaskKind::FaceEmbedding, &models.embedder);
        let mesh = choose(TaskKind::FaceMesh, &models.mesh);
        let iris = choose(TaskKind::Iris, &models.iris);
        let liveness = choose_liveness(manifests, &folder.ensembles, &models.liveness);
        let liveness = self
            .keep(model_setting(TaskKind::PassiveLiveness), liveness.map_err(AppError::Catalog));
        Places { detector, embedder, mesh, iris, liveness }
    }

    fn packages(
        &mut self,
        folder: &ModelFolder,
        places: Places,
        devices: Option<&DevicePlan>,
    ) -> Option<ByTask<Package>> {
        let mut open = |kind, place: usize| {
            let package = open(self.config, kind, &folder.models[place], devices);
            self.note(model_setting(kind), package, describe)
        };
        let detector = places.detector.and_then(|place| open(TaskKind::FaceDetection, place));
        let embedder = places.embedder.and_then(|place| open(TaskKind::FaceEmbedding, place));
        let mesh = places.mesh.and_then(|place| open(TaskKind::FaceMesh, place));
        let iris = places.iris.and_then(|place| open(TaskKind::Iris, place));
        let liveness = places.liveness.and_then(|ensemble| {
            let members =
                ensemble.members.into_iter().map(|place| open(TaskKind::PassiveLiveness, place));
            // Gathered before it is asked whether one is missing, so that all are opened.
            let members: Vec<Option<Package>> = members.collect();
            let members = members.into_iter().collect::<Option<Vec<Package>>>()?;
            let LivenessEnsemble { fusion, score_min, .. } = ensemble;
            Some(LivenessEnsemble { members, fusion, score_min })
        });
        Some(ByTask {
            detector: detector?,
            embedder: embedder?,
            mesh: mesh?,
            iris: iris?,
            liveness: liveness?,
        })
    }

    fn standards(&mut self, embedder: &Manifest) -> Option<Standards> {
        if self.is_left_out("verify.", "verify.calibration") {
            return None;
        }
        let precision = self.config.device.precision.unwrap_or(embedder.precision);
        let standards = Standards::open(&self.config.verify, embedder, precision);
        self.note("verify.calibration", standards.map_err(AppError::Standards), |standards| {
            let entries: Vec<&str> = standards.entries.iter().map(|entry| entry.id()).collect();
            let policy_fmr = standards.settings.policy_fmr;
            format!(
                "entries {}; decides at a false-match rate of {policy_fmr:e}",
                entries.join(", ")
            )
        })
    }

    fn session_keys(&mut self) -> Option<SessionKeys> {
        if self.is_left_out("liveness.key_file", "liveness.key_file") {
            return None;
        }
        let settings = &self.config.liveness;
        let keys = session_keys(settings).map_err(AppError::Sessions);
        self.note("liveness.key_file", keys, |_| match &settings.key_file {
            Some(path) => format!("keys of {}", path.display()),
            None => "not set: a key is made at start".to_owned(),
        })
    }

    async fn session_store(&mut self) -> Option<ReplayStore> {
        if self.is_left_out("liveness.replay", "liveness.replay") {
            return None;
        }
        let settings = &self.config.liveness;
        let store = session_store(settings).await.map_err(AppError::Sessions);
        self.note("liveness.replay", store, |_| match &settings.replay {
            ReplayTarget::Memory => "in memory, for one replica".to_owned(),
            redis @ ReplayTarget::Redis(_) => format!("{} answers", String::from(redis.clone())),
        })
    }

    /// Whether a setting that starts with `prefix` was refused; `key` is then reported as such.
    fn is_left_out(&mut self, prefix: &str, key: &'static str) -> bool {
        let is_refused = self.refused.iter().any(|refused| refused.starts_with(prefix));
        if is_refused {
            self.findings.push(Finding { key, state: State::NotChecked });
        }
        is_refused
    }

    /// Reports a part: what `describe` makes of it, or why it is wrong.
    fn note<T>(
        &mut self,
        key: &'static str,
        part: Result<T, AppError>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let part = self.keep(key, part)?;
        self.findings.push(Finding { key, state: State::Right(describe(&part)) });
        Some(part)
    }

    /// Reports a part only if it is wrong.
    fn keep<T>(&mut self, key: &'static str, part: Result<T, AppError>) -> Option<T> {
        part.map_err(|error| self.wrong(key, error)).ok()
    }

    fn wrong(&mut self, key: &'static str, error: AppError) {
        self.findings.push(Finding { key, state: State::Wrong(error) });
    }
}

/// Places of the models of all tasks; `None` where there is none, and that was reported.
struct Places {
    detector: Option<usize>,
    embedder: Option<usize>,
    mesh: Option<usize>,
    iris: Option<usize>,
    liveness: Option<LivenessEnsemble<usize>>,
}

/// The files of a model that can do `kind` and that the devices can compute.
fn open(
    config: &Config,
    kind: TaskKind,
    listing: &Listing,
    devices: Option<&DevicePlan>,
) -> Result<Package, AppError> {
    check_manifest(kind, &listing.manifest)?;
    let package = Package::open_with(&listing.dir, config.models.licence_policy())?;
    match devices {
        Some(devices) => Ok(devices.fit(package)?),
        None => Ok(package),
    }
}

fn describe(package: &Package) -> String {
    let manifest = &package.manifest;
    format!("{}, {}, {}", manifest.id(), manifest.precision, manifest.licence.as_str())
}

/// The setting that names the model of a task.
fn model_setting(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::FaceDetection => "models.detector",
        TaskKind::FaceEmbedding => "models.embedder",
        TaskKind::FaceMesh => "models.mesh",
        TaskKind::Iris => "models.iris",
        TaskKind::PassiveLiveness => "models.liveness",
    }
}
