//! What is measured about one frame of a session: plain numbers, no pixels. The rules of this
//! folder see nothing else.

use crate::face::{DetectedFace, Embedding, Point};
use crate::image::DifferenceHash;

/// How closely a frame is measured; each level runs one network more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Detector: faces, brightness and sharpness.
    Face,
    /// Also the face mesh: mouth, yaw and pitch.
    Mesh,
    /// Also the iris network on both eyes: the lids.
    Eyes,
}

/// One frame once the networks have looked at it. Coordinates are pixels of the frame as the
/// camera saw it: upright and unmirrored.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameMeasures {
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Of the whole frame.
    pub fingerprint: DifferenceHash,
    /// All faces, the main one first.
    pub faces: Vec<DetectedFace>,
    /// About the main face; unset when there is none.
    pub main: Option<FaceMeasures>,
}

/// About the main face of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceMeasures {
    /// Mean luma of the aligned face, 0..=1.
    pub brightness: f64,
    /// Variance of the Laplacian of the aligned face's luma.
    pub sharpness: f64,
    /// Unset when the mesh network was not asked, or saw no face.
    pub mesh: Option<MeshMeasures>,
    /// Openness of the person's right and left eye: mean distance of the lids over the width of
    /// the eye. Unset when the iris network was not asked.
    pub eyes: Option<[f64; 2]>,
}

/// What the 468 points of the face mesh say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshMeasures {
    /// Middles of the eyes, nose tip and corners of the mouth, in the order of
    /// [`DetectedFace::points`]. They follow a nod, which the detector's points hardly do.
    pub points: [Point; 5],
    /// Distance of the inner lips over the width of the mouth.
    pub mouth_open: f64,
    /// Degrees; positive when the person turns to their own left (image right, unmirrored).
    pub yaw: f64,
    /// Degrees; positive when the person looks down. Only changes are to be trusted.
    pub pitch: f64,
}

/// What the networks behind the detector say about the main face of a chosen frame.
#[derive(Debug)]
pub struct FrameJudgement {
    /// Of the aligned face.
    pub embedding: Embedding,
    /// L2 norm of the raw embedding; falls with quality.
    pub norm: f64,
    /// Probability of a live person, 0..=1, after fusion.
    pub pad_score: f64,
}
