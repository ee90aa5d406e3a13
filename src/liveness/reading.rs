//! The values of one frame that the actions are followed by.

use std::time::Duration;

use super::admission::AdmittedFrame;
use super::measures::FaceMeasures;
use super::pose::Pose;
use super::track::TrackedFace;

/// What a frame shows of a face that may be doing an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// By the client's clock: movements are measured on it.
    pub(super) captured: Duration,
    /// By the server's clock: reactions are measured on it.
    pub(super) arrived: Duration,
    /// By the detector's points, which know nothing of how faces usually look turned.
    pub(super) pose: Pose,
    /// [`Pose::nod`] by the mesh's points.
    pub(super) nod: f64,
    pub(super) mouth_open: Option<f64>,
    pub(super) eyes: Option<[f64; 2]>,
}

impl Reading {
    /// `None` where the mesh network sees no face.
    pub(super) fn new(
        frame: &AdmittedFrame,
        tracked: &TrackedFace,
        face: &FaceMeasures,
    ) -> Option<Self> {
        let mesh = face.mesh?;
        Some(Self {
            captured: frame.captured,
            arrived: frame.arrived,
            pose: tracked.pose,
            nod: Pose::new(&mesh.points)?.nod,
            mouth_open: Some(mesh.mouth_open).filter(|open| open.is_finite()),
            eyes: face.eyes.filter(|eyes| eyes.iter().all(|eye| eye.is_finite())),
        })
    }
}
