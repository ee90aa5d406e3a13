//! How the live models are fed and read, taken from their manifests once.

use std::sync::Arc;

use crate::catalog::{LivenessEnsemble, Snapshot};
use crate::device::{LoadedModel, RowOutput};
use crate::face::{
    Alignment, DetectedFace, Eye, EyeCrop, FaceError, Lids, Mesh, SpaceId, mesh_square, yunet,
};
use crate::image::{RgbImage, TurnedSquare, crop_resize};
use crate::liveness::{Fusion, LivenessError, PassiveScore, crop_rect};
use crate::model::{CropRule, Detection, Liveness, Manifest, Task, TaskKind, space_id};

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
    pub(super) mesh: MeshRule,
    pub(super) iris: IrisRule,
    pub(super) liveness: LivenessRules,
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

/// Which square around a face the mesh network sees, and what its outputs mean.
#[derive(Debug)]
pub(super) struct MeshRule {
    size: usize,
    scale: f64,
    landmarks: usize,
    face_flag: usize,
}

/// Which square around an eye the iris network sees, and what its output means.
#[derive(Debug)]
pub(super) struct IrisRule {
    size: usize,
    scale: f64,
    landmarks: usize,
}

/// How a face becomes the liveness networks' inputs, and what their outputs mean together.
#[derive(Debug)]
pub(super) struct LivenessRules {
    members: Vec<LivenessRule>,
    fusion: Fusion,
    pub(super) score_min: f64,
}

#[derive(Debug)]
struct LivenessRule {
    width: usize,
    height: usize,
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
            mesh: MeshRule::of(snapshot.mesh.manifest())?,
            iris: IrisRule::of(snapshot.iris.manifest())?,
            liveness: LivenessRules::of(&snapshot.liveness)?,
        })
    }
}

/// Whether a model can do `kind`, by its manifest.
///
/// # Errors
/// A model that cannot.
pub fn check_manifest(kind: TaskKind, manifest: &Manifest) -> Result<(), RulesError> {
    match kind {
        TaskKind::FaceDetection => DetectorRule::of(manifest).map(drop),
        TaskKind::FaceEmbedding => EmbedderRule::of(manifest).map(drop),
        TaskKind::FaceMesh => MeshRule::of(manifest).map(drop),
        TaskKind::Iris => IrisRule::of(manifest).map(drop),
        TaskKind::PassiveLiveness => LivenessRule::of(manifest).map(drop),
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

/// Least probability, by the mesh network itself, that it was shown a face; MediaPipe's own limit.
const FACE_FLAG_MIN: f32 = 0.5;

impl MeshRule {
    fn of(manifest: &Manifest) -> Result<Self, RulesError> {
        const WANTED: &str = "face mesh";
        let Task::FaceMesh { landmarks, face_flag } = manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::EyesLevelSquare { scale } = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "eyes-level-square"));
        };
        Ok(Self { size: manifest.input.width, scale, landmarks, face_flag })
    }

    pub(super) fn square(&self, face: &DetectedFace) -> Result<TurnedSquare, FaceError> {
        mesh_square(face, self.scale, self.size)
    }

    /// The points; `None` when the network says that this is no face.
    pub(super) fn mesh(
        &self,
        output: &RowOutput,
        square: &TurnedSquare,
    ) -> Result<Option<Mesh>, FaceError> {
        let is_face = output.tensors[self.face_flag].expose()[0] >= FACE_FLAG_MIN;
        let mesh = Mesh::decode(output.tensors[self.landmarks].expose(), square)?;
        Ok(is_face.then_some(mesh))
    }
}

impl IrisRule {
    fn of(manifest: &Manifest) -> Result<Self, RulesError> {
        const WANTED: &str = "iris";
        let Task::Iris { landmarks } = manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::Eye { scale } = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "eye"));
        };
        Ok(Self { size: manifest.input.width, scale, landmarks })
    }

    pub(super) fn crop(&self, eye: Eye, mesh: &Mesh) -> Result<EyeCrop, FaceError> {
        EyeCrop::new(eye, mesh, self.scale, self.size)
    }

    pub(super) fn lids(&self, output: &RowOutput, crop: &EyeCrop) -> Result<Lids, FaceError> {
        crop.decode(output.tensors[self.landmarks].expose())
    }
}

impl LivenessRules {
    fn of(ensemble: &LivenessEnsemble<Arc<LoadedModel>>) -> Result<Self, RulesError> {
        let members = ensemble.members.iter().map(|model| LivenessRule::of(model.manifest()));
        let members = members.collect::<Result<_, _>>()?;
        Ok(Self { members, fusion: ensemble.fusion, score_min: ensemble.score_min })
    }

    /// What each member is fed; `None` when the face lies outside the image.
    pub(super) fn crops(&self, face: &DetectedFace, image: &RgbImage) -> Option<Vec<RgbImage>> {
        self.members.iter().map(|member| member.crop(face, image)).collect()
    }

    /// Probability of a live person, from one output of each member.
    pub(super) fn score(&self, outputs: &[&RowOutput]) -> Result<f64, LivenessError> {
        debug_assert_eq!(self.members.len(), outputs.len(), "each member has answered");
        let scores = self.members.iter().zip(outputs).map(|(member, output)| member.score(output));
        let scores: Vec<PassiveScore> = scores.collect::<Result<_, _>>()?;
        self.fusion.fuse(&scores).map(PassiveScore::value)
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

    fn crop(&self, face: &DetectedFace, image: &RgbImage) -> Option<RgbImage> {
        let rect = crop_rect(&face.rect, image, self.scale).ok()?;
        crop_resize(image, rect, self.width, self.height)
    }

    fn score(&self, output: &RowOutput) -> Result<PassiveScore, LivenessError> {
        let values = output.tensors[self.liveness.output].expose();
        PassiveScore::new(values, self.liveness.scores, self.liveness.live_class)
    }
}

fn wrong_task(manifest: &Manifest, wanted: &'static str) -> RulesError {
    RulesError::Task { model: manifest.id(), wanted, task: manifest.task.name() }
}

fn wrong_crop(manifest: &Manifest, wanted: &'static str, rule: &'static str) -> RulesError {
    RulesError::Crop { model: manifest.id(), wanted, rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::LivenessOutput;
    use crate::trust::Secret;

    fn rule(scores: LivenessOutput, live_class: usize) -> LivenessRule {
        let score_source = "none".to_owned();
        let liveness = Liveness { output: 0, scores, live_class, score_min: 0.5, score_source };
        LivenessRule { width: 1, height: 1, scale: 1.0, liveness }
    }

    fn output(values: &[f32]) -> RowOutput {
        RowOutput { tensors: vec![Secret::new(values.to_vec())] }
    }

    #[test]
    fn each_member_is_read_by_its_own_manifest_before_the_scores_are_fused() {
        let members = vec![rule(LivenessOutput::Probabilities, 0), rule(LivenessOutput::Logits, 1)];
        let mut rules = LivenessRules { members, fusion: Fusion::Mean, score_min: 0.5 };
        // 0.9 of class 0, and e^0 / (e^0 + e^0) of class 1.
        let outputs = [output(&[0.9, 0.1]), output(&[3.0, 3.0])];
        let outputs: Vec<&RowOutput> = outputs.iter().collect();
        assert!((rules.score(&outputs).unwrap() - 0.7).abs() < 1e-6);
        rules.fusion = Fusion::Min;
        assert!((rules.score(&outputs).unwrap() - 0.5).abs() < 1e-6);
    }
}
