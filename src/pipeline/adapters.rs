//! The input crops and output decoders of the live models, parsed once from their manifests. An
//! adapter says how one network is fed and how its outputs are read. Outputs are named by their
//! index in the manifest, as `output`, `landmarks` and `face_flag`.

use std::sync::Arc;

use crate::catalog::{LivenessEnsemble, Snapshot};
use crate::device::{LoadedModel, RowOutput};
use crate::face::{
    Alignment, DetectedFace, Eye, EyeCrop, FaceError, Lids, Mesh, SpaceId, mesh_square, yunet,
};
use crate::image::{RgbImage, TurnedSquare, crop_resize};
use crate::liveness::{Fusion, PadError, PadScore, pad_crop_rect};
use crate::model::{CropRule, Detection, Liveness, Manifest, Task, TaskKind, space_id};

/// Why a live model cannot serve its task.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The model has another task.
    #[error("model {model} cannot serve as {wanted}: its task is {task}")]
    Task {
        /// `name/version`.
        model: String,
        /// The task for which the model was configured.
        wanted: &'static str,
        /// The task of the model.
        task: &'static str,
    },
    /// The crop rule of the model's input is not the one that its task needs.
    #[error("model {model} cannot serve as {wanted}: its crop rule is not {rule}")]
    Crop {
        /// `name/version`.
        model: String,
        /// The task for which the model was configured.
        wanted: &'static str,
        /// The crop rule that the task needs.
        rule: &'static str,
    },
    /// The number of the detector's output grids is not the one that the decoder reads.
    #[error("model {model} has {heads} output grids, the decoder reads 3")]
    Heads {
        /// `name/version`.
        model: String,
        /// Output grids in the manifest.
        heads: usize,
    },
    /// The input size of the embedder is not the size of its aligned crop.
    #[error("model {model} takes {width}×{height} pixels, its alignment makes {side}×{side}")]
    AlignedSize {
        /// `name/version`.
        model: String,
        /// Width of the input in pixels.
        width: usize,
        /// Height of the input in pixels.
        height: usize,
        /// Side of the aligned crop in pixels.
        side: usize,
    },
}

/// The input crops and output decoders of the live models.
#[derive(Debug)]
pub struct ModelAdapters {
    pub(super) detector: DetectorAdapter,
    pub(super) embedder: EmbedderAdapter,
    pub(super) mesh: MeshAdapter,
    pub(super) iris: IrisAdapter,
    pub(super) liveness: PadEnsembleAdapter,
}

/// How the detector's outputs are decoded to faces.
#[derive(Debug)]
pub(super) struct DetectorAdapter {
    /// Side of the square canvas in pixels.
    pub(super) side: usize,
    detection: Detection,
}

/// How the embedder's input is aligned, and which of its outputs is the embedding.
#[derive(Debug)]
pub(super) struct EmbedderAdapter {
    pub(super) alignment: Alignment,
    pub(super) space: SpaceId,
    output: usize,
}

/// The crop of the mesh network around a face, and the meaning of its outputs.
#[derive(Debug)]
pub(super) struct MeshAdapter {
    size: usize,
    scale: f64,
    landmarks: usize,
    face_flag: usize,
}

/// The crop of the iris network around an eye, and the meaning of its output.
#[derive(Debug)]
pub(super) struct IrisAdapter {
    size: usize,
    scale: f64,
    landmarks: usize,
}

/// The crops of the liveness networks, and how their scores are fused.
#[derive(Debug)]
pub(super) struct PadEnsembleAdapter {
    members: Vec<PadAdapter>,
    fusion: Fusion,
    pub(super) score_min: f64,
}

#[derive(Debug)]
struct PadAdapter {
    width: usize,
    height: usize,
    scale: f64,
    liveness: Liveness,
}

impl ModelAdapters {
    /// Parses the manifests of the live models.
    ///
    /// # Errors
    /// A model that cannot serve its task.
    pub fn of(snapshot: &Snapshot) -> Result<Self, AdapterError> {
        Ok(Self {
            detector: DetectorAdapter::of(snapshot.detector.manifest())?,
            embedder: EmbedderAdapter::of(snapshot.embedder.manifest())?,
            mesh: MeshAdapter::of(snapshot.mesh.manifest())?,
            iris: IrisAdapter::of(snapshot.iris.manifest())?,
            liveness: PadEnsembleAdapter::of(&snapshot.liveness)?,
        })
    }
}

/// Checks by its manifest that a model can serve `task`.
///
/// # Errors
/// The reason why the model cannot.
pub fn check_manifest(task: TaskKind, manifest: &Manifest) -> Result<(), AdapterError> {
    match task {
        TaskKind::FaceDetection => DetectorAdapter::of(manifest).map(drop),
        TaskKind::FaceEmbedding => EmbedderAdapter::of(manifest).map(drop),
        TaskKind::FaceMesh => MeshAdapter::of(manifest).map(drop),
        TaskKind::Iris => IrisAdapter::of(manifest).map(drop),
        TaskKind::PassiveLiveness => PadAdapter::of(manifest).map(drop),
    }
}

impl DetectorAdapter {
    fn of(manifest: &Manifest) -> Result<Self, AdapterError> {
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
            return Err(AdapterError::Heads { model: manifest.id(), heads: detection.heads.len() });
        }
        Ok(Self { side: manifest.input.width, detection })
    }

    /// Decodes faces, in canvas pixels.
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

impl EmbedderAdapter {
    fn of(manifest: &Manifest) -> Result<Self, AdapterError> {
        const WANTED: &str = "face embedder";
        let Task::FaceEmbedding { output } = manifest.task else {
            return Err(wrong_task(manifest, WANTED));
        };
        let CropRule::Align { template: alignment } = manifest.input.crop else {
            return Err(wrong_crop(manifest, WANTED, "align"));
        };
        let (width, height) = (manifest.input.width, manifest.input.height);
        let side = alignment.side();
        if (width, height) != (side, side) {
            return Err(AdapterError::AlignedSize { model: manifest.id(), width, height, side });
        }
        let space = SpaceId::new(space_id(manifest, manifest.precision));
        Ok(Self { alignment, space, output })
    }

    /// Returns the raw embedding in the embedder's output.
    pub(super) fn raw_embedding<'a>(&self, output: &'a RowOutput) -> &'a [f32] {
        output.tensors[self.output].expose()
    }
}

/// Least face probability of the mesh network's own output. MediaPipe uses the same limit.
const FACE_FLAG_MIN: f32 = 0.5;

impl MeshAdapter {
    fn of(manifest: &Manifest) -> Result<Self, AdapterError> {
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

    /// Decodes the points of the mesh. `None` if the network says that the crop shows no face.
    pub(super) fn decode(
        &self,
        output: &RowOutput,
        square: &TurnedSquare,
    ) -> Result<Option<Mesh>, FaceError> {
        let is_face = output.tensors[self.face_flag].expose()[0] >= FACE_FLAG_MIN;
        let mesh = Mesh::decode(output.tensors[self.landmarks].expose(), square)?;
        Ok(is_face.then_some(mesh))
    }
}

impl IrisAdapter {
    fn of(manifest: &Manifest) -> Result<Self, AdapterError> {
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

impl PadEnsembleAdapter {
    fn of(ensemble: &LivenessEnsemble<Arc<LoadedModel>>) -> Result<Self, AdapterError> {
        let members = ensemble.members.iter().map(|model| PadAdapter::of(model.manifest()));
        let members = members.collect::<Result<_, _>>()?;
        Ok(Self { members, fusion: ensemble.fusion, score_min: ensemble.score_min })
    }

    /// Returns the crop for each member. `None` if the face lies outside the image.
    pub(super) fn crops(&self, face: &DetectedFace, image: &RgbImage) -> Option<Vec<RgbImage>> {
        self.members.iter().map(|member| member.crop(face, image)).collect()
    }

    /// Computes the probability of a live person from one output of each member.
    pub(super) fn score(&self, outputs: &[&RowOutput]) -> Result<f64, PadError> {
        debug_assert_eq!(self.members.len(), outputs.len(), "each member has answered");
        let scores = self.members.iter().zip(outputs).map(|(member, output)| member.score(output));
        let scores: Vec<PadScore> = scores.collect::<Result<_, _>>()?;
        self.fusion.fuse(&scores).map(PadScore::value)
    }
}

impl PadAdapter {
    fn of(manifest: &Manifest) -> Result<Self, AdapterError> {
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
        let rect = pad_crop_rect(&face.rect, image, self.scale).ok()?;
        crop_resize(image, rect, self.width, self.height)
    }

    fn score(&self, output: &RowOutput) -> Result<PadScore, PadError> {
        let values = output.tensors[self.liveness.output].expose();
        PadScore::new(values, self.liveness.scores, self.liveness.live_class)
    }
}

fn wrong_task(manifest: &Manifest, wanted: &'static str) -> AdapterError {
    AdapterError::Task { model: manifest.id(), wanted, task: manifest.task.name() }
}

fn wrong_crop(manifest: &Manifest, wanted: &'static str, rule: &'static str) -> AdapterError {
    AdapterError::Crop { model: manifest.id(), wanted, rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::PadOutputKind;
    use crate::trust::Secret;

    fn adapter(scores: PadOutputKind, live_class: usize) -> PadAdapter {
        let score_source = "none".to_owned();
        let liveness = Liveness { output: 0, scores, live_class, score_min: 0.5, score_source };
        PadAdapter { width: 1, height: 1, scale: 1.0, liveness }
    }

    fn output(values: &[f32]) -> RowOutput {
        RowOutput { tensors: vec![Secret::new(values.to_vec())] }
    }

    #[test]
    fn each_member_is_read_by_its_own_manifest_before_the_scores_are_fused() {
        let members =
            vec![adapter(PadOutputKind::Probabilities, 0), adapter(PadOutputKind::Logits, 1)];
        let mut ensemble = PadEnsembleAdapter { members, fusion: Fusion::Mean, score_min: 0.5 };
        // 0.9 of class 0, and e^0 / (e^0 + e^0) of class 1.
        let outputs = [output(&[0.9, 0.1]), output(&[3.0, 3.0])];
        let outputs: Vec<&RowOutput> = outputs.iter().collect();
        assert!((ensemble.score(&outputs).unwrap() - 0.7).abs() < 1e-6);
        ensemble.fusion = Fusion::Min;
        assert!((ensemble.score(&outputs).unwrap() - 0.5).abs() < 1e-6);
    }
}
