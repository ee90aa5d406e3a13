//! Why a decision is what it is: a fixed list of codes, each with a fixed sentence.

use crate::face::{Check, LimitKind, Measure};

/// Reasons of an answer; the same list as `ReasonCode` of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// No face in the image.
    FaceNotFound,
    /// Another face is nearly as large as the main one.
    MultipleFaces,
    /// The eyes are too few pixels apart.
    FaceTooSmall,
    /// The detector is not sure that this is a face.
    FaceUncertain,
    /// The face looks aside, up or down.
    FaceTurned,
    /// The head or the camera is tilted.
    FaceTilted,
    /// Out of focus or moved.
    Blurred,
    /// Too little light on the face.
    TooDark,
    /// Too much light on the face.
    TooBright,
    /// The network could not make sense of the face.
    FaceUnusable,
    /// The points do not lie like those of a face.
    LandmarksImplausible,
    /// The two faces are not similar enough.
    SimilarityLow,
    /// The two faces are neither clearly the same nor clearly different.
    SimilarityBorderline,
    /// The live photographs show different people.
    LivePhotosDiffer,
    /// Portrait and live photograph are the same picture.
    SameImage,
    /// The live photograph looks like a picture of a picture.
    LivenessLow,
    /// No calibration fits the loaded models.
    Uncalibrated,
    /// A note: the calibration was not measured on this deployment's pairs.
    GenericCalibration,
}

impl ReasonCode {
    /// What to tell a clerk, or to write into a log.
    pub fn message(self) -> &'static str {
        match self {
            Self::FaceNotFound => "no face was found: show the whole face to the camera",
            Self::MultipleFaces => "only one face may be in the picture",
            Self::FaceTooSmall => "move closer: the face is too small",
            Self::FaceUncertain => {
                "the face is hard to make out: uncover it and take it from the front"
            }
            Self::FaceTurned => "look straight into the camera",
            Self::FaceTilted => "hold head and camera upright",
            Self::Blurred => "the picture is blurred: hold still and let the camera focus",
            Self::TooDark => "the face is too dark: add light from the front",
            Self::TooBright => "the face is too bright: avoid direct light",
            Self::FaceUnusable => "the face cannot be read: uncover it and take a clear picture",
            Self::LandmarksImplausible => "eyes, nose and mouth must all be visible",
            Self::SimilarityLow => "the faces are not similar enough",
            Self::SimilarityBorderline => "the similarity of the faces is borderline",
            Self::LivePhotosDiffer => "the live photos show different people",
            Self::SameImage => "portrait and live photo are the same picture",
            Self::LivenessLow => "the live photo does not look like a live person",
            Self::Uncalibrated => "no calibration fits the loaded models",
            Self::GenericCalibration => "the calibration was not measured on this deployment",
        }
    }
}

impl Check {
    /// Why the image is refused, if this check failed.
    pub fn reason(&self) -> Option<ReasonCode> {
        if self.passed {
            return None;
        }
        Some(match (self.measure, self.kind) {
            (Measure::FaceCount, _) => ReasonCode::MultipleFaces,
            (Measure::DetectorScore, _) => ReasonCode::FaceUncertain,
            (Measure::InterEyeDistance, _) => ReasonCode::FaceTooSmall,
            (Measure::Yaw | Measure::Pitch, _) => ReasonCode::FaceTurned,
            (Measure::Roll, _) => ReasonCode::FaceTilted,
            (Measure::Sharpness, _) => ReasonCode::Blurred,
            (Measure::Brightness, LimitKind::Min) | (Measure::UnderExposed, _) => {
                ReasonCode::TooDark
            }
            (Measure::Brightness, LimitKind::Max) | (Measure::OverExposed, _) => {
                ReasonCode::TooBright
            }
            (Measure::EmbeddingNorm, _) => ReasonCode::FaceUnusable,
            (Measure::LandmarkFit, _) => ReasonCode::LandmarksImplausible,
        })
    }
}
