//! What a request does: one short function per call, read from top to bottom.
//!
//! [`Pipeline`] answers calls about photographs (`calls.rs`, `photo.rs`). [`RunningSession`]
//! answers a stream of frames; each frame is measured (`frame.rs`) in the detail that
//! [`crate::liveness`] asks for.
//!
//! Both decode and detect (`stages.rs`), and judge the main face (`face_crops.rs`), by the same
//! functions. To judge a face is to run the embedder and the liveness networks on it. Both submit
//! rows to the same lanes, so that rows of calls and of streams share batches.

mod adapters;
mod calls;
mod error;
mod face_crops;
#[cfg(test)]
mod fixture;
mod frame;
mod lanes;
mod photo;
mod policy;
mod report;
mod session;
mod settings;
mod stages;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use adapters::{AdapterError, ModelAdapters, check_manifest};
pub use calls::Side;
pub use error::{Error, ErrorKind, NOT_READY_RETRY_AFTER, Violation};
pub use frame::CameraFrame;
pub use lanes::lanes;
pub use policy::{DecisionPolicies, DecisionPolicyError};
pub use report::{
    CalibratedSimilarity, Comparison, LivenessCheck, LivenessScore, PhotoReport, Photograph,
    Similarity, StageTimes, Verification,
};
pub use session::{
    CreatedSession, LivenessSettings, RunningSession, SessionPortrait, SessionReport, SessionSpec,
    SessionStart, Sessions, SessionsError, session_keys, session_store,
};
pub use settings::VerifySettings;

use crate::catalog::Snapshot;
use crate::device::LoadedModel;
use crate::face::QualityLimits;
use crate::image::ImageSettings;
use crate::scheduler::{CpuPool, Scheduler};
use crate::telemetry::Metrics;

/// Two files show the same picture if their difference hashes of 64 bits differ in at most this
/// many. Recompressing or resizing a file changes 0 to 2 bits.
const SAME_PICTURE_BITS_MAX: u32 = 2;

/// The live models and everything that is needed to answer requests with them.
#[derive(Debug)]
pub struct Pipeline {
    /// The live models.
    pub snapshot: Arc<Snapshot>,
    /// The input crops and output decoders of the live models.
    pub adapters: Arc<ModelAdapters>,
    /// Runs rows on the devices.
    pub scheduler: Scheduler,
    /// Decodes, resizes and aligns images.
    pub pool: CpuPool,
    /// One permit for each place of a decoded image in memory (`image.decoded_max`).
    pub image_places: Semaphore,
    /// Limits on images.
    pub image: ImageSettings,
    /// Limits on the quality of faces.
    pub quality: QualityLimits,
    /// Calibration entries and the policy of this deployment.
    pub policies: DecisionPolicies,
    /// Session tokens and the replay store.
    pub sessions: Sessions,
    /// Metrics of the stages.
    pub metrics: Metrics,
}

/// A live model, as answers report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveModel {
    /// Name of the task.
    pub task: String,
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// SHA-256 of its weights, hexadecimal.
    pub sha256: String,
    /// Precision in which the model is computed.
    pub precision: &'static str,
}

impl Pipeline {
    /// Returns the models that answers report: the detector, the embedder and the PAD networks,
    /// whether or not the call ran them.
    pub fn reported_models(&self) -> Vec<LiveModel> {
        let Snapshot { detector, embedder, liveness, .. } = &*self.snapshot;
        let models = [detector, embedder].into_iter().chain(&liveness.members);
        let name = |model: &Arc<LoadedModel>| LiveModel {
            task: model.manifest().task.name().to_owned(),
            name: model.manifest().name.clone(),
            version: model.manifest().version.clone(),
            sha256: model.manifest().sha256.to_string(),
            precision: model.manifest().precision.name(),
        };
        models.map(name).collect()
    }

    /// Checks the embedding model that a caller requires.
    ///
    /// # Errors
    /// [`Error::ModelNotLive`] unless `asked` is the live embedder's name or `name/version`.
    pub fn require_model(&self, asked: &str) -> Result<(), Error> {
        let manifest = self.snapshot.embedder.manifest();
        let id = manifest.id();
        if asked == manifest.name || asked == id {
            Ok(())
        } else {
            Err(Error::ModelNotLive { live: id })
        }
    }

    /// Returns the least PAD score of a live person.
    fn pad_score_min(&self) -> f64 {
        self.adapters.liveness.score_min
    }
}
