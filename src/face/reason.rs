//! Reason codes of decisions: a fixed list, each with a fixed sentence.

use crate::face::{Check, LimitKind, Measure};

/// Reason codes of answers; the same list as `ReasonCode` of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// The image has no face.
    FaceNotFound,
    /// Another face has more than the allowed share of the main face's area.
    MultipleFaces,
    /// The eyes are too few pixels apart.
    FaceTooSmall,
    /// The detector is not sure that this is a face.
    FaceUncertain,
    /// The face looks aside, up or down.
    FaceTurned,
    /// The head or the camera is tilted.
    FaceTilted,
    /// The face is out of focus or blurred by motion.
    Blurred,
    /// There is too little light on the face.
    TooDark,
    /// There is too much light on the face.
    TooBright,
    /// The norm of the raw embedding is too low, or the face cannot be cropped for the PAD
    /// networks.
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
    /// There is no calibration entry for the request's type of pair.
    Uncalibrated,
    /// A note: the calibration was not measured on this deployment's pairs.
    GenericCalibration,
    /// The stream has too few frames per second to judge movements.
    FpsTooLow,
    /// Frames are missing in the middle of a movement.
    TimeGap,
    /// Capture times go back, or drift from the arrival times.
    ClockDrift,
    /// A movement started before a person could have reacted to the prompt.
    TooEarly,
    /// The prompted movement did not come in time.
    StepTimeout,
    /// Another movement came than the prompted one.
    WrongAction,
    /// The face left the picture more than once.
    TrackLost,
    /// The session's time, frames or bytes are used up.
    SessionExpired,
    /// Too few frames of the session could be judged.
    TooFewFrames,
    /// The face jumps from one frame to the next.
    JumpCut,
    /// The session shows more than one person.
    IdentitySwitch,
    /// Frames repeat.
    DuplicateFrames,
    /// A part of the video repeats.
    LoopSuspect,
    /// Frames were sent in an earlier session.
    ReplayedMedia,
    /// Size, mirroring or rotation of the frames changed.
    InjectionSuspect,
    /// The turned face has no depth.
    PlanarFace,
    /// Some frames look like a picture of a picture, and most do not.
    PadUncertain,
    /// The one code for every sign of an attack, for callers without details.
    LivenessFailed,
}

impl ReasonCode {
    /// Returns the message for a clerk or a log.
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
            Self::Uncalibrated => "there is no calibration for this type of image pair",
            Self::GenericCalibration => "the calibration was not measured on this deployment",
            Self::FpsTooLow => "the camera is too slow: close other programs and add light",
            Self::TimeGap => "the video stopped during a movement: check the connection",
            Self::ClockDrift => "the video did not arrive as it was taken: check the connection",
            Self::TooEarly => "wait for the prompt before moving",
            Self::StepTimeout => "the movement was not seen in time",
            Self::WrongAction => "another movement was made than asked for",
            Self::TrackLost => "keep the face in the picture",
            Self::SessionExpired => "the session took too long",
            Self::TooFewFrames => "look straight into the camera between the movements",
            Self::JumpCut => "the video is not of one piece",
            Self::IdentitySwitch => "the video shows different people",
            Self::DuplicateFrames => "frames of the video repeat",
            Self::LoopSuspect => "a part of the video repeats",
            Self::ReplayedMedia => "the video was used before",
            Self::InjectionSuspect => "the video does not come from one camera",
            Self::PlanarFace => "the face has no depth",
            Self::PadUncertain => "some frames do not look like a live person",
            Self::LivenessFailed => "the person could not be shown to be live",
        }
    }
}

impl Check {
    /// Returns the reason if the check failed.
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
