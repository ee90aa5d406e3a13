//! Measures of one frame of a session: numbers without pixels. The rules of this folder use nothing
//! else.

use crate::face::{DetectedFace, Embedding, Point};
use crate::image::DifferenceHash;

/// Level of detail in which a frame is measured. Each level runs one network more than the level
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Detector: faces, brightness and sharpness.
    Face,
    /// Also the face mesh: five points and the mouth.
    Mesh,
    /// Also the iris network on both eyes: the lids.
    Eyes,
}

/// Measures of one frame. Coordinates are pixels of the upright, unmirrored frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameMeasures {
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Hash of the whole frame.
    pub difference_hash: DifferenceHash,
    /// All faces, the main face first.
    pub faces: Vec<DetectedFace>,
    /// Measures of the main face; `None` without a face.
    pub main: Option<FaceMeasures>,
}

/// Measures of the main face of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceMeasures {
    /// Mean luma of the aligned face, 0..=1.
    pub brightness: f64,
    /// Variance of the Laplacian of the aligned face's luma.
    pub sharpness: f64,
    /// `None` if the mesh network was not run, or found no face.
    pub mesh: Option<MeshMeasures>,
    /// Openness of the person's right and left eye: mean distance of the lids over the width of the
    /// eye. `None` if the iris network was not run.
    pub eyes: Option<[f64; 2]>,
}

/// Measures by the 468 points of the face mesh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshMeasures {
    /// Middles of the eyes, nose tip and corners of the mouth, in the order of
    /// [`DetectedFace::points`]. They follow a nod; the detector's points hardly do.
    pub points: [Point; 5],
    /// Distance of the inner lips over the width of the mouth.
    pub mouth_open: f64,
    /// Degrees; positive when the person turns to their own left (image right, unmirrored). The
    /// sign is opposite to that of the quality check. No rule reads it.
    pub yaw: f64,
    /// Degrees; positive when the person looks down. Only changes are reliable. No rule reads it.
    pub pitch: f64,
}

/// Results of the embedder and the PAD networks for the main face of a chosen frame.
#[derive(Debug)]
pub struct FrameJudgement {
    /// Embedding of the aligned face.
    pub embedding: Embedding,
    /// L2 norm of the raw embedding; lower for a worse image.
    pub norm: f64,
    /// Fused PAD score: probability of a live person, 0..=1.
    pub pad_score: f64,
}
