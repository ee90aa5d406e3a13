//! The values of one frame that the gestures evaluate.

use std::time::Duration;

use super::admission::AdmittedFrame;
use super::measures::FaceMeasures;
use super::pose::Pose;
use super::track::TrackedFace;

/// Values of one frame of a face that may perform an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Capture time by the client's clock. Movements are timed by it.
    pub(super) captured: Duration,
    /// Arrival time by the server's clock. Reactions are timed by it.
    pub(super) arrived: Duration,
    /// Pose by the detector's points. The mesh network assumes the shape of a turned head, even in
    /// a flat picture; the detector does not.
    pub(super) pose: Pose,
    /// [`Pose::nod`] by the mesh's points, which follow a nod better than the detector's.
    pub(super) nod: f64,
    pub(super) mouth_open: Option<f64>,
    pub(super) eyes: Option<[f64; 2]>,
}

impl Reading {
    /// Returns the values of a frame, or `None` if the frame has no mesh or the mesh has no pose.
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
