//! Reads everything that a start needs before it opens a device, and reports everything invalid. A
//! start and `menshen check` share this code.

use super::AppError;
use crate::catalog::{ByTask, LivenessEnsemble, choose_liveness, choose_model};
use crate::config::Config;
use crate::device::{DeviceError, DevicePlan, DeviceSettings};
use crate::model::{Listing, Manifest, ModelFolder, Package, TaskKind, scan_folder};
use crate::pipeline::{DecisionPolicies, Sessions, check_manifest, session_keys, session_store};
use crate::trust::{ReplayStore, ReplayTarget, SessionKeys};

/// The result for one part of what a start reads.
#[derive(Debug)]
pub struct Finding {
    /// The setting that names the part, such as `models.detector`.
    pub key: &'static str,
    /// The state of the part.
    pub state: FindingState,
}

/// The state of one part of what a start reads.
#[derive(Debug)]
pub enum FindingState {
    /// The part is valid. Holds a short description.
    Valid(String),
    /// The part is invalid, so no start would succeed.
    Invalid(AppError),
    /// The part was not checked, because one of its settings is refused.
    NotChecked,
}

/// Everything that a start needs before it opens a device.
#[derive(Debug)]
pub(super) struct StartInputs {
    pub(super) devices: DevicePlan,
    pub(super) packages: ByTask<Package>,
    pub(super) policies: DecisionPolicies,
    pub(super) sessions: Sessions,
}

/// How devices are found: [`DevicePlan::new`] or [`DevicePlan::without_opening`].
pub(super) type FindDevices = fn(&DeviceSettings) -> Result<DevicePlan, DeviceError>;

/// Reads what a start needs, part by part. An invalid part does not stop the reading of the others.
pub(super) struct Inspection<'a> {
    config: &'a Config,
    /// Keys of refused settings. In `config` a setting of the wrong type has its default, and a
    /// setting out of range has the given value.
    refused: &'a [String],
    pub(super) findings: Vec<Finding>,
}

/// Returns a finding for each part of what a start reads: a short description, or why a start would
/// fail. Opens no GPU. Does not check parts with a setting among the `refused` keys.
pub async fn check(config: &Config, refused: &[String]) -> Vec<Finding> {
    let mut inspection = Inspection { config, refused, findings: Vec::new() };
    inspection.read_all(DevicePlan::without_opening).await;
    inspection.findings
}

/// Reads everything that a start needs.
///
/// # Errors
/// The error of the first invalid part.
pub(super) async fn read_start_inputs(config: &Config) -> Result<StartInputs, AppError> {
    let mut inspection = Inspection { config, refused: &[], findings: Vec::new() };
    let inputs = inspection.read_all(DevicePlan::new).await;
    let invalid = inspection.findings.into_iter().find_map(|finding| match finding.state {
        FindingState::Invalid(error) => Some(error),
        FindingState::Valid(_) | FindingState::NotChecked => None,
    });
    match invalid {
        Some(error) => Err(error),
        None => Ok(inputs.expect("every missing part was reported as invalid")),
    }
}

impl Inspection<'_> {
    async fn read_all(&mut self, find_devices: FindDevices) -> Option<StartInputs> {
        let devices = self.plan_devices(find_devices);
        let (packages, policies) = self.read_models(devices.as_ref());
        let keys = self.read_session_keys();
        let store = self.connect_session_store().await;
        let sessions = Sessions::new(&self.config.liveness, keys?, store?);
        Some(StartInputs { devices: devices?, packages: packages?, policies: policies?, sessions })
    }

    fn plan_devices(&mut self, find_devices: FindDevices) -> Option<DevicePlan> {
        if self.skip_if_refused("device.", "device.device") {
            return None;
        }
        let devices = find_devices(&self.config.device).map_err(AppError::Device);
        self.report("device.device", devices, DevicePlan::to_string)
    }

    /// Returns the packages of all tasks, and the policies. The policies need only the manifest
    /// of the embedder, so an invalid package does not stop their check.
    fn read_models(
        &mut self,
        devices: Option<&DevicePlan>,
    ) -> (Option<ByTask<Package>>, Option<DecisionPolicies>) {
        if self.skip_if_refused("models.", "models.dir") {
            return (None, None);
        }
        let Some(folder) = self.scan_models() else { return (None, None) };
        let manifests: Vec<&Manifest> = folder.models.iter().map(|model| &model.manifest).collect();
        self.check_placement(&manifests);
        let chosen = self.choose_models(&folder, &manifests);
        let policies = chosen.embedder.and_then(|index| self.open_policies(manifests[index]));
        (self.open_packages(&folder, chosen, devices), policies)
    }

    fn scan_models(&mut self) -> Option<ModelFolder> {
        let folder = scan_folder(&self.config.models.dir).map_err(AppError::Model);
        let mut folder = self.report("models.dir", folder, |folder| {
            let (models, ensembles) = (folder.models.len(), folder.ensembles.len());
            format!("{models} models, {ensembles} ensembles")
        })?;
        for refused in folder.refused.drain(..) {
            self.report_invalid("models.dir", AppError::Model(refused));
        }
        Some(folder)
    }

    /// Reports each name in `device.placement` that no model has: such a model would run on other
    /// devices than intended.
    fn check_placement(&mut self, manifests: &[&Manifest]) {
        let placed = self.config.device.placement.keys();
        let is_known = |name: &str| manifests.iter().any(|manifest| manifest.name == name);
        for model in placed.filter(|name| !is_known(name)) {
            let mut names: Vec<&str> = manifests.iter().map(|known| known.name.as_str()).collect();
            names.dedup();
            let (model, known) = (model.clone(), names.join(", "));
            self.report_invalid("device.placement", AppError::Placement { model, known });
        }
    }

    /// Chooses one of `manifests` for each task.
    fn choose_models(&mut self, folder: &ModelFolder, manifests: &[&Manifest]) -> ChosenModels {
        let models = &self.config.models;
        let mut choose = |kind, asked| {
            let index = choose_model(manifests, kind, asked).map_err(AppError::Catalog);
            self.report_if_invalid(model_setting(kind), index)
        };
        let detector = choose(TaskKind::FaceDetection, &models.detector);
        let embedder = choose(TaskKind::FaceEmbedding, &models.embedder);
        let mesh = choose(TaskKind::FaceMesh, &models.mesh);
        let iris = choose(TaskKind::Iris, &models.iris);
        let liveness = choose_liveness(manifests, &folder.ensembles, &models.liveness)
            .map_err(AppError::Catalog);
        let liveness = self.report_if_invalid(model_setting(TaskKind::PassiveLiveness), liveness);
        ChosenModels { detector, embedder, mesh, iris, liveness }
    }

    fn open_packages(
        &mut self,
        folder: &ModelFolder,
        chosen: ChosenModels,
        devices: Option<&DevicePlan>,
    ) -> Option<ByTask<Package>> {
        let mut open = |kind, index: usize| {
            let package = open(self.config, kind, &folder.models[index], devices);
            self.report(model_setting(kind), package, describe)
        };
        let detector = chosen.detector.and_then(|index| open(TaskKind::FaceDetection, index));
        let embedder = chosen.embedder.and_then(|index| open(TaskKind::FaceEmbedding, index));
        let mesh = chosen.mesh.and_then(|index| open(TaskKind::FaceMesh, index));
        let iris = chosen.iris.and_then(|index| open(TaskKind::Iris, index));
        let liveness = chosen.liveness.and_then(|ensemble| {
            let members =
                ensemble.members.into_iter().map(|index| open(TaskKind::PassiveLiveness, index));
            // Collected first, so that every member is opened even if one is missing.
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

    fn open_policies(&mut self, embedder: &Manifest) -> Option<DecisionPolicies> {
        if self.skip_if_refused("verify.", "verify.calibration") {
            return None;
        }
        let precision = self.config.device.precision.unwrap_or(embedder.precision);
        let policies = DecisionPolicies::open(&self.config.verify, embedder, precision);
        self.report("verify.calibration", policies.map_err(AppError::Policies), |policies| {
            let entries: Vec<&str> = policies.entries.iter().map(|entry| entry.id()).collect();
            let policy_fmr = policies.settings.policy_fmr;
            format!(
                "entries {}; decides at a false-match rate of {policy_fmr:e}",
                entries.join(", ")
            )
        })
    }

    fn read_session_keys(&mut self) -> Option<SessionKeys> {
        if self.skip_if_refused("liveness.key_file", "liveness.key_file") {
            return None;
        }
        let settings = &self.config.liveness;
        let keys = session_keys(settings).map_err(AppError::Sessions);
        self.report("liveness.key_file", keys, |_| match &settings.key_file {
            Some(path) => format!("keys of {}", path.display()),
            None => "not set: a key is made at start".to_owned(),
        })
    }

    async fn connect_session_store(&mut self) -> Option<ReplayStore> {
        if self.skip_if_refused("liveness.replay", "liveness.replay") {
            return None;
        }
        let settings = &self.config.liveness;
        let store = session_store(settings).await.map_err(AppError::Sessions);
        self.report("liveness.replay", store, |_| match &settings.replay {
            ReplayTarget::Memory => "in memory, for one replica".to_owned(),
            redis @ ReplayTarget::Redis(_) => format!("{} answers", String::from(redis.clone())),
        })
    }

    /// Returns true if a setting that starts with `prefix` is refused, and then reports `key` as
    /// not checked.
    fn skip_if_refused(&mut self, prefix: &str, key: &'static str) -> bool {
        let is_refused = self.refused.iter().any(|refused| refused.starts_with(prefix));
        if is_refused {
            self.findings.push(Finding { key, state: FindingState::NotChecked });
        }
        is_refused
    }

    /// Reports a part: its description by `describe`, or its error.
    fn report<T>(
        &mut self,
        key: &'static str,
        part: Result<T, AppError>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let part = self.report_if_invalid(key, part)?;
        self.findings.push(Finding { key, state: FindingState::Valid(describe(&part)) });
        Some(part)
    }

    /// Reports a part only if it is invalid.
    fn report_if_invalid<T>(&mut self, key: &'static str, part: Result<T, AppError>) -> Option<T> {
        part.map_err(|error| self.report_invalid(key, error)).ok()
    }

    fn report_invalid(&mut self, key: &'static str, error: AppError) {
        self.findings.push(Finding { key, state: FindingState::Invalid(error) });
    }
}

/// Index of the model of each task. `None` if no model fits, which was then reported.
struct ChosenModels {
    detector: Option<usize>,
    embedder: Option<usize>,
    mesh: Option<usize>,
    iris: Option<usize>,
    liveness: Option<LivenessEnsemble<usize>>,
}

/// Opens a model, and checks that it fits the task `kind` and the devices.
fn open(
    config: &Config,
    kind: TaskKind,
    listing: &Listing,
    devices: Option<&DevicePlan>,
) -> Result<Package, AppError> {
    check_manifest(kind, &listing.manifest)?;
    let package = Package::open_with(&listing.dir, config.models.licence_policy())?;
    match devices {
        Some(devices) => Ok(devices.apply_precision(package)?),
        None => Ok(package),
    }
}

fn describe(package: &Package) -> String {
    let manifest = &package.manifest;
    format!("{}, {}, {}", manifest.id(), manifest.precision, manifest.licence.as_str())
}

/// Returns the setting that names the model of a task.
fn model_setting(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::FaceDetection => "models.detector",
        TaskKind::FaceEmbedding => "models.embedder",
        TaskKind::FaceMesh => "models.mesh",
        TaskKind::Iris => "models.iris",
        TaskKind::PassiveLiveness => "models.liveness",
    }
}
