//! How the live models are fed and read, taken from their manifests once.

use crate::catalog::Snapshot;
use crate::device::RowOutput;
use crate::face::{Alignment, DetectedFace, FaceError, SpaceId, yunet};
use crate::image::{PixelRect, RgbImage};
use crate::liveness::{LivenessError, PassiveScore, crop_rect};
use crate::model::{CropRule, Detection, Liveness, Manifest, Task, space_id};

/// A live model whose manifest does not fit what the pipeline asks of its task.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The model is for something else.
    #[error("model {model} cannot serve as {wanted}: its task is {task}")]
    Task {
        /// `name/version`.
        model: String,
        /// The task it was configured for.
        wanted: &'static str,
        /// Its own task.
        task: &'static str,
    },
    /// The model wants its input cut out in a way its task does not know.
    #[error("model {model} cannot serve as {wanted}: its crop rule is not {rule}")]
    Crop {
        /// `name/version`.
        model: String,
        /// The task it was configured for.
        wanted: &'static str,
        /// The rule the task needs.
        rule: &'static str,
    },
    /// The detector's outputs are not those its decoder reads.
    #[error("model {model} has {heads} output grids, the decoder reads 3")]
    Heads {
        /// `name/version`.
        model: String,
        /// Grids of the manifest.
        heads: usize,
    },
    /// The input of the embedder is not the size its alignment makes.
    #[error("model {model} takes {width}×{height} pixels, its alignment makes {side}×{side}")]
    AlignedSize {
        /// `name/version`.
        model: String,
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// Pixels.
        side: usize,
    },
}

/// How the live models are fed and read.
#[derive(Debug)]
pub struct Rules {
    pub(super) detector: DetectorRule,
    pub(super) embedder: EmbedderRule,
    pub(super) liveness: LivenessRule,
}

/// How faces are read off the detector's outputs.
#[derive(Debug)]
pub(super) struct DetectorRule {
    /// Side of the square canvas in pixels.
    pub(super) side: usize,
    detection: Detection,
}

/// How a face becomes the embedder's input, and what its output is.
#[derive(Debug)]
pub(super) struct EmbedderRule {
    pub(super) alignment: Alignment,
    pub(super) space: SpaceId,
    output: usize,
}

/// How a face becomes the liveness network's input, and what its output means.
#[derive(Debug)]
pub(super) struct LivenessRule {
    pub(super) width: usize,
    pub(super) height: usize,
    scale: f64,
    liveness: Liveness,
}

impl Rules {
    /// Reads the manifests of the live models.
    ///
    /// # Errors
    /// A model that cannot do what it was configured for.
    pub fn of(snapshot: &Snapshot) -> Result<Self, RulesError> {
        Ok(Self {
            detector: DetectorRule::of(snapshot.detector.manifest())?,
            embedder: EmbedderRule::of(snapshot.embedder.manifest())?,
            liveness: LivenessRule::of(snapshot.liveness.manifest())?,
        })
    }
}

impl DetectorRule {
    fn of(manifest: &Manifest) -> Result<Self, RulesError> {
        const WANTED: &str = "face detector";
        let Task::FaceDetection(detection) = &manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::Letterbox {} = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "letterbox"));
        };
        let mut detection = detection.clone();
        detection.heads.sort_by_key(|head| head.stride);
        if detection.heads.len() != yunet::STRIDES.len() {
            return Err(RulesError::Heads { model: manifest.id(), heads: detection.heads.len() });
        }
        Ok(Self { side: manifest.input.width, detection })
    }

    /// Faces in canvas pixels.
    pub(super) fn faces(&self, output: &RowOutput) -> Result<Vec<DetectedFace>, FaceError> {
        let heads = &self.detection.heads;
        let tensor = |index: usize| output.tensors[index].expose().as_slice();
        let outputs = yunet::Outputs {
            cls: std::array::from_fn(|level| tensor(heads[level].class)),
            obj: std::array::from_fn(|level| tensor(heads[level].objectness)),
            bbox: std::array::from_fn(|level| tensor(heads[level].boxes)),
            kps: std::array::from_fn(|level| tensor(heads[level].points)),
        };
        yunet::decode(&outputs, self.side, self.detection.score_min as f32)
    }
}

impl EmbedderRule {
    fn of(manifest: &Manifest) -> Result<Self, RulesError> {
        const WANTED: &str = "face embedder";
        let Task::FaceEmbedding { output } = manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::Align { template: alignment } = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "align"));
        };
        let (width, height, side) = (manifest.input.width, manifest.input.height, alignment.side());
        if (width, height) != (side, side) {
            return Err(RulesError::AlignedSize { model: manifest.id(), width, height, side });
        }
        let space = SpaceId::new(space_id(manifest, manifest.precision));
        Ok(Self { alignment, space, output })
    }

    /// The raw embedding.
    pub(super) fn raw<'a>(&self, output: &'a RowOutput) -> &'a [f32] {
        output.tensors[self.output].expose()
    }
}

impl LivenessRule {
    fn of(manifest: &Manifest) -> Result<Self, RulesError> {
        const WANTED: &str = "passive liveness";
        let Task::PassiveLiveness(liveness) = &manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::Box { scale } = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "box"));
        };
        let (width, height) = (manifest.input.width, manifest.input.height);
        Ok(Self { width, height, scale, liveness: liveness.clone() })
    }

    pub(super) fn score_min(&self) -> f64 {
        self.liveness.score_min
    }

    pub(super) fn crop(
        &self,
        face: &DetectedFace,
        image: &RgbImage,
    ) -> Result<PixelRect, LivenessError> {
        crop_rect(&face.rect, image, self.scale)
    }

    /// Probability of a live person.
    pub(super) fn score(&self, output: &RowOutput) -> Result<f64, LivenessError> {
        let values = output.tensors[self.liveness.output].expose();
        PassiveScore::new(values, self.liveness.scores, self.liveness.live_class)
            .map(PassiveScore::value)
    }
}

fn wrong_task(manifest: &Manifest, wanted: &'static str) -> RulesError {
    RulesError::Task { model: manifest.id(), wanted, task: manifest.task.name() }
}

fn wrong_crop(manifest: &Manifest, wanted: &'static str, rule: &'static str) -> RulesError {
    RulesError::Crop { model: manifest.id(), wanted, rule }
}
