//! A manifest of each task, for tests.

use crate::device::fixture;
use crate::liveness::PadOutputKind;
use crate::model::{Decoder, Detection, Liveness, Manifest, Task};

pub(super) fn embedder(name: &str, version: &str) -> Manifest {
    fixture::manifest(name, version, &[1])
}

pub(super) fn detector(name: &str, version: &str) -> Manifest {
    let detection =
        Detection { decoder: Decoder::Yunet, score_min: 0.5, nms_iou: 0.3, heads: Vec::new() };
    Manifest { task: Task::FaceDetection(detection), ..embedder(name, version) }
}

pub(super) fn mesh(name: &str, version: &str) -> Manifest {
    Manifest { task: Task::FaceMesh { landmarks: 0, face_flag: 1 }, ..embedder(name, version) }
}

pub(super) fn iris(name: &str, version: &str) -> Manifest {
    Manifest { task: Task::Iris { landmarks: 0 }, ..embedder(name, version) }
}

pub(super) fn liveness(name: &str, version: &str) -> Manifest {
    let liveness = Liveness {
        output: 0,
        scores: PadOutputKind::Probabilities,
        live_class: 0,
        score_min: 0.5,
        score_source: "none".to_owned(),
    };
    Manifest { task: Task::PassiveLiveness(liveness), ..embedder(name, version) }
}
