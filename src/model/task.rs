//! The task of a network, and the role of each of its outputs.

use std::fmt;

use serde::Deserialize;

use super::ModelError;
use super::input::{CropRule, InputContract};
use super::output::{Meaning, OutputSpec, cell_count};
use super::values::parse_free_text;
use crate::liveness::PadOutputKind;

/// Values of MediaPipe's face mesh: 468 points with x, y, z.
const MESH_VALUES: usize = 468 * 3;

/// Values of MediaPipe's iris network: 71 contour points and 5 iris points with x, y, z.
const IRIS_VALUES: usize = (71 + 5) * 3;

/// The task of a network. Numbers are indices into [`super::Manifest::outputs`].
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Finds faces, and five points of each face.
    FaceDetection(Detection),
    /// Turns an aligned face into an embedding.
    FaceEmbedding {
        /// The embedding, a tensor of one axis.
        output: usize,
    },
    /// Tells a live face from a picture of a face, by one crop.
    PassiveLiveness(Liveness),
    /// Finds 468 points of a face.
    FaceMesh {
        /// The points, 468 × (x, y, z).
        landmarks: usize,
        /// The probability that the crop shows a face.
        face_flag: usize,
    },
    /// Finds the contour and the iris of an eye.
    Iris {
        /// The points, (71 + 5) × (x, y, z).
        landmarks: usize,
    },
}

/// A [`Task`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// Finds faces.
    FaceDetection,
    /// Turns an aligned face into an embedding.
    FaceEmbedding,
    /// Tells a live face from a picture of a face. Only this task may have several live models.
    PassiveLiveness,
    /// Finds the points of a face.
    FaceMesh,
    /// Finds the contour and the iris of an eye.
    Iris,
}

impl Task {
    /// Returns the task without its details.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::FaceDetection(_) => TaskKind::FaceDetection,
            Self::FaceEmbedding { .. } => TaskKind::FaceEmbedding,
            Self::PassiveLiveness(_) => TaskKind::PassiveLiveness,
            Self::FaceMesh { .. } => TaskKind::FaceMesh,
            Self::Iris { .. } => TaskKind::Iris,
        }
    }

    /// Returns the name in manifests.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }
}

impl TaskKind {
    /// Returns the name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::FaceDetection => "face-detection",
            Self::FaceEmbedding => "face-embedding",
            Self::PassiveLiveness => "passive-liveness",
            Self::FaceMesh => "face-mesh",
            Self::Iris => "iris",
        }
    }
}

impl fmt::Display for TaskKind {
    /// Writes the name in manifests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the outputs of a detector become faces.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// The decoding rule.
    pub decoder: Decoder,
    /// Least score of a face, in 0..1.
    pub score_min: f64,
    /// Largest overlap (IoU) of two faces, in 0..1. Only the range is checked: the YuNet decoder
    /// has its own limit of 0.3.
    pub nms_iou: f64,
    /// The output grids, from the finest to the coarsest.
    pub heads: Vec<Head>,
}

/// A rule that turns detector outputs into faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// YuNet: the score is √(class × objectness), the box a centre offset and a log size, with five
    /// points.
    Yunet,
}

/// One output grid of a detector. Numbers are indices into [`super::Manifest::outputs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Pixels per cell.
    pub stride: usize,
    /// The class score, shape `[cells, 1]`.
    pub class: usize,
    /// The objectness, shape `[cells, 1]`.
    pub objectness: usize,
    /// The boxes, shape `[cells, 4]`.
    pub boxes: usize,
    /// Five points, shape `[cells, 10]`.
    pub points: usize,
}

/// How the class scores become a liveness score.
#[derive(Debug, Clone, PartialEq)]
pub struct Liveness {
    /// One score for each class, a tensor of one axis.
    pub output: usize,
    /// The kind of scores.
    pub scores: PadOutputKind,
    /// Index of the class of live faces.
    pub live_class: usize,
    /// Least probability of a live face, in 0..1.
    pub score_min: f64,
    /// The source of `score_min`.
    pub score_source: String,
}

/// `[detection]` as written in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDetection {
    decoder: Decoder,
    score_min: f64,
    nms_iou: f64,
}

/// `[liveness]` as written in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLiveness {
    scores: PadOutputKind,
    live_class: usize,
    score_min: f64,
    score_source: String,
}

impl Task {
    /// Checks the tables of the task against the input and the outputs.
    pub(super) fn parse(
        task: TaskKind,
        detection: Option<RawDetection>,
        liveness: Option<RawLiveness>,
        input: &InputContract,
        outputs: &[OutputSpec],
    ) -> Result<Self, ModelError> {
        let misplaced = |key| Err(ModelError::value(key, "does not belong to this task"));
        if detection.is_some() && task != TaskKind::FaceDetection {
            return misplaced("detection");
        }
        if liveness.is_some() && task != TaskKind::PassiveLiveness {
            return misplaced("liveness");
        }
        check_crop(task, &input.crop)?;
        check_meanings(task, outputs)?;
        Ok(match task {
            TaskKind::FaceDetection => {
                let raw = detection.ok_or_else(|| ModelError::value("detection", "is missing"))?;
                Self::FaceDetection(parse_detection(raw, input, outputs)?)
            }
            TaskKind::FaceEmbedding => {
                Self::FaceEmbedding { output: find_vector(outputs, Meaning::Embedding)?.0 }
            }
            TaskKind::PassiveLiveness => {
                let raw = liveness.ok_or_else(|| ModelError::value("liveness", "is missing"))?;
                Self::PassiveLiveness(parse_liveness(raw, outputs)?)
            }
            TaskKind::FaceMesh => Self::FaceMesh {
                landmarks: find_of_len(outputs, Meaning::Landmarks, MESH_VALUES)?,
                face_flag: find_of_len(outputs, Meaning::FaceFlag, 1)?,
            },
            TaskKind::Iris => {
                Self::Iris { landmarks: find_of_len(outputs, Meaning::Landmarks, IRIS_VALUES)? }
            }
        })
    }
}

fn check_crop(task: TaskKind, crop: &CropRule) -> Result<(), ModelError> {
    let fits = match task {
        TaskKind::FaceDetection => matches!(crop, CropRule::Letterbox {}),
        TaskKind::FaceEmbedding => matches!(crop, CropRule::Align { .. }),
        TaskKind::PassiveLiveness => matches!(crop, CropRule::Box { .. }),
        TaskKind::FaceMesh => matches!(crop, CropRule::EyesLevelSquare { .. }),
        TaskKind::Iris => matches!(crop, CropRule::Eye { .. }),
    };
    if fits { Ok(()) } else { Err(ModelError::value("input.crop", "does not fit this task")) }
}

fn check_meanings(task: TaskKind, outputs: &[OutputSpec]) -> Result<(), ModelError> {
    use Meaning::*;
    let allowed: &[Meaning] = match task {
        TaskKind::FaceDetection => &[Class, Objectness, Boxes, Points],
        TaskKind::FaceEmbedding => &[Embedding],
        TaskKind::PassiveLiveness => &[ClassScores],
        TaskKind::FaceMesh => &[Landmarks, FaceFlag, Contours],
        TaskKind::Iris => &[Landmarks],
    };
    for (k, output) in outputs.iter().enumerate() {
        if !allowed.contains(&output.meaning) {
            let key = format!("outputs[{k}].meaning");
            return Err(ModelError::value(key, "does not belong to this task"));
        }
        if output.stride.is_some() != (task == TaskKind::FaceDetection) {
            let key = format!("outputs[{k}].stride");
            return Err(ModelError::value(key, "is for detectors, and needed there"));
        }
    }
    Ok(())
}

fn parse_detection(
    raw: RawDetection,
    input: &InputContract,
    outputs: &[OutputSpec],
) -> Result<Detection, ModelError> {
    check_fraction("detection.score_min", raw.score_min)?;
    check_fraction("detection.nms_iou", raw.nms_iou)?;
    let mut strides: Vec<usize> = outputs.iter().filter_map(|output| output.stride).collect();
    strides.sort_unstable();
    strides.dedup();
    let heads = strides.into_iter().map(|stride| parse_head(stride, input, outputs));
    Ok(Detection {
        decoder: raw.decoder,
        score_min: raw.score_min,
        nms_iou: raw.nms_iou,
        heads: heads.collect::<Result<_, _>>()?,
    })
}

fn parse_head(
    stride: usize,
    input: &InputContract,
    outputs: &[OutputSpec],
) -> Result<Head, ModelError> {
    let Some(cells) = cell_count(input, stride) else {
        return Err(ModelError::value("outputs.stride", "must divide the input's sides"));
    };
    let find = |meaning, values| {
        let at_stride =
            |output: &OutputSpec| output.meaning == meaning && output.stride == Some(stride);
        let index = find_output(outputs, meaning, at_stride)?;
        if outputs[index].shape != [cells, values] {
            let rule = format!("must be [{cells}, {values}] at stride {stride}");
            return Err(ModelError::value(format!("outputs[{index}].shape"), rule));
        }
        Ok(index)
    };
    Ok(Head {
        stride,
        class: find(Meaning::Class, 1)?,
        objectness: find(Meaning::Objectness, 1)?,
        boxes: find(Meaning::Boxes, 4)?,
        points: find(Meaning::Points, 10)?,
    })
}

fn parse_liveness(raw: RawLiveness, outputs: &[OutputSpec]) -> Result<Liveness, ModelError> {
    check_fraction("liveness.score_min", raw.score_min)?;
    let (output, classes) = find_vector(outputs, Meaning::ClassScores)?;
    if raw.live_class >= classes {
        let rule = format!("must be less than the {classes} classes of the output");
        return Err(ModelError::value("liveness.live_class", rule));
    }
    Ok(Liveness {
        output,
        scores: raw.scores,
        live_class: raw.live_class,
        score_min: raw.score_min,
        score_source: parse_free_text("liveness.score_source", raw.score_source)?,
    })
}

pub(super) fn check_fraction(key: &str, value: f64) -> Result<(), ModelError> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(ModelError::value(key, "must lie between 0 and 1, both excluded"))
}

/// Returns the index and the length of the only output with `meaning`, which must have one axis.
fn find_vector(outputs: &[OutputSpec], meaning: Meaning) -> Result<(usize, usize), ModelError> {
    let index = find_output(outputs, meaning, |output| output.meaning == meaning)?;
    match *outputs[index].shape {
        [len] => Ok((index, len)),
        _ => Err(ModelError::value(format!("outputs[{index}].shape"), "must have one axis")),
    }
}

/// Returns the index of the only output with `meaning`, which must have `len` values.
fn find_of_len(outputs: &[OutputSpec], meaning: Meaning, len: usize) -> Result<usize, ModelError> {
    let index = find_output(outputs, meaning, |output| output.meaning == meaning)?;
    if outputs[index].len() != len {
        let rule = format!("must hold {len} values");
        return Err(ModelError::value(format!("outputs[{index}].shape"), rule));
    }
    Ok(index)
}

/// Returns the index of the only output that `fits`.
fn find_output(
    outputs: &[OutputSpec],
    meaning: Meaning,
    fits: impl Fn(&OutputSpec) -> bool,
) -> Result<usize, ModelError> {
    let mut found = outputs.iter().enumerate().filter(|(_, output)| fits(output));
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        (None, _) => Err(ModelError::value("outputs", format!("have no {meaning:?}"))),
        (Some(_), Some(_)) => Err(ModelError::value("outputs", format!("have two of {meaning:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_written_by_the_name_that_manifests_are_read_by() {
        for kind in [
            TaskKind::FaceDetection,
            TaskKind::FaceEmbedding,
            TaskKind::PassiveLiveness,
            TaskKind::FaceMesh,
            TaskKind::Iris,
        ] {
            let name = toml::Value::String(kind.to_string());
            assert_eq!(name.try_into::<TaskKind>().unwrap(), kind);
        }
    }
}
