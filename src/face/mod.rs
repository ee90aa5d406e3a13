//! Faces: detection, alignment, landmarks, quality, embeddings, calibration, and the decision on a
//! `Verify`. Pure rules on numbers and pixels.

mod align;
pub mod calibration;
pub mod decision;
mod detection;
mod embedding;
mod error;
mod iris;
mod limits;
mod mesh;
mod quality;
mod reason;
pub mod verify_decision;
pub mod yunet;

pub use align::Alignment;
pub use detection::{DetectedFace, FACES_MAX, MainFace, Point, Rect, choose_main_face};
pub use embedding::{Embedding, SpaceId, cosine};
pub use error::FaceError;
pub use iris::{EyeCrop, Lids};
pub use limits::{QualityLimits, SourceLimits};
pub use mesh::{Eye, Mesh, mesh_square};
pub use quality::{
    Check, ImageSource, LimitKind, Measure, brightness, check_crop, check_detection, check_norm,
    sharpness,
};
pub use reason::ReasonCode;
