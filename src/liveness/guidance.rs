//! What to tell the customer about the picture, without chatter.

use std::time::Duration;

use super::limits::{Band, GuidanceLimits, TrackLimits};
use super::measures::Measures;
use super::track::Seen;
use crate::face::ReasonCode;

/// One thing to do about the picture. In the order of urgency: only the first is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guidance {
    /// No face is seen.
    ShowFace,
    /// Somebody else is in the picture.
    OnePersonOnly,
    /// The face is too small.
    Closer,
    /// The face is too large.
    Further,
    /// The face is at the edge of the picture.
    Center,
    /// More light on the face.
    TooDark,
    /// Less light on the face.
    TooBright,
    /// Look into the camera.
    FaceCamera,
    /// The camera or the head moves while it should not.
    HoldStill,
    /// The movement is too fast to be followed.
    MoveSlower,
}

impl Guidance {
    /// Every one, the most urgent first.
    const ALL: [Self; 10] = [
        Self::ShowFace,
        Self::OnePersonOnly,
        Self::Closer,
        Self::Further,
        Self::Center,
        Self::TooDark,
        Self::TooBright,
        Self::FaceCamera,
        Self::HoldStill,
        Self::MoveSlower,
    ];

    /// What to tell the customer.
    pub fn message(self) -> &'static str {
        match self {
            Self::ShowFace => "show your whole face to the camera",
            Self::OnePersonOnly => "only one person may be in the picture",
            Self::Closer => "come closer",
            Self::Further => "go further away",
            Self::Center => "move to the middle of the picture",
            Self::TooDark => "more light on your face, please",
            Self::TooBright => "less light on your face, please",
            Self::FaceCamera => "look straight into the camera",
            Self::HoldStill => "hold still",
            Self::MoveSlower => "move more slowly",
        }
    }

    /// Why a session that ends with this unheeded was not passed.
    pub(super) fn reason(self) -> Option<ReasonCode> {
        match self {
            Self::ShowFace => Some(ReasonCode::FaceNotFound),
            Self::OnePersonOnly => Some(ReasonCode::MultipleFaces),
            Self::Closer => Some(ReasonCode::FaceTooSmall),
            Self::TooDark => Some(ReasonCode::TooDark),
            Self::TooBright => Some(ReasonCode::TooBright),
            Self::FaceCamera => Some(ReasonCode::FaceTurned),
            Self::Further | Self::Center | Self::HoldStill | Self::MoveSlower => None,
        }
    }
}

/// Whether the customer rests or moves as asked: moving, the head may turn and its place may
/// change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Resting,
    Moving,
}

/// Remembers what is wrong and what was said.
#[derive(Debug)]
pub(super) struct Guide {
    limits: GuidanceLimits,
    second_area: Band,
    /// What is wrong now.
    wrong: Option<Guidance>,
    /// What would be said, and since when it has been so.
    wanted: (Option<Guidance>, Duration),
    said: Option<Guidance>,
}

impl Guide {
    pub(super) fn new(limits: GuidanceLimits, track: &TrackLimits) -> Self {
        let wrong = track.second_area_max;
        let second_area = Band { wrong, right: wrong * 0.8 };
        Self { limits, second_area, wrong: None, wanted: (None, Duration::ZERO), said: None }
    }

    /// What is wrong with the last frame.
    pub(super) fn wrong(&self) -> Option<Guidance> {
        self.wrong
    }

    /// What was said last and still holds.
    pub(super) fn said(&self) -> Option<Guidance> {
        self.said
    }

    /// Looks at a frame; returns what to say when that has changed: `Some(None)` is "all is well".
    pub(super) fn look(
        &mut self,
        measures: &Measures,
        seen: Option<&Seen>,
        mood: Mood,
        captured: Duration,
    ) -> Option<Option<Guidance>> {
        let applies = |guidance: &Guidance| self.is_wrong(*guidance, measures, seen, mood);
        self.wrong = Guidance::ALL.into_iter().find(applies);
        if self.wanted.0 != self.wrong {
            self.wanted = (self.wrong, captured);
        }
        let held = captured.saturating_sub(self.wanted.1) >= self.limits.hold;
        if !held || self.said == self.wrong {
            return None;
        }
        self.said = self.wrong;
        Some(self.wrong)
    }

    fn is_wrong(
        &self,
        guidance: Guidance,
        measures: &Measures,
        seen: Option<&Seen>,
        mood: Mood,
    ) -> bool {
        let (Some(seen), Some(face)) = (seen, &measures.main) else {
            return guidance == Guidance::ShowFace;
        };
        let limits = &self.limits;
        // What is not a number keeps no limit.
        let above = |value: f64, band: Band| value.is_nan() || value > self.level(guidance, band);
        let below = |value: f64, band: Band| value.is_nan() || value < self.level(guidance, band);
        let [width, height] = measures.size.map(|side| side as f64);
        let motion = seen.motion.unwrap_or_default();
        let is_resting = mood == Mood::Resting;
        match guidance {
            Guidance::ShowFace => false,
            Guidance::OnePersonOnly => above(seen.second_area, self.second_area),
            Guidance::Closer => below(seen.pose.eye_distance, limits.eye_distance_min),
            Guidance::Further => {
                above(seen.pose.eye_distance / width.min(height), limits.eye_share_max)
            }
            Guidance::Center => {
                let [x, y] = seen.pose.eyes;
                let off = (x / width - 0.5).abs().max((y / height - 0.5).abs());
                is_resting && above(off, limits.off_center_max)
            }
            Guidance::TooDark => below(face.brightness, limits.brightness_min),
            Guidance::TooBright => above(face.brightness, limits.brightness_max),
            Guidance::FaceCamera => is_resting && above(seen.pose.turn.abs(), limits.turn_max),
            Guidance::HoldStill => is_resting && above(motion.eyes, limits.still_max),
            Guidance::MoveSlower => !is_resting && above(motion.turn, limits.turn_speed_max),
        }
    }

    /// Where the line is: farther in while something is already wrong.
    fn level(&self, guidance: Guidance, band: Band) -> f64 {
        if self.wrong == Some(guidance) { band.right } else { band.wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measures::FaceMeasures;
    use super::super::pose::Pose;
    use super::super::synthetic::{Head, measures_of};
    use super::*;

    fn guide() -> Guide {
        Guide::new(GuidanceLimits::default(), &TrackLimits::default())
    }

    /// What is said over frames of this brightness, ten a second.
    fn said(brightness: impl IntoIterator<Item = f64>) -> Vec<Option<Guidance>> {
        let (mut guide, mut said) = (guide(), Vec::new());
        for (at, brightness) in brightness.into_iter().enumerate() {
            let mut measures = measures_of(&Head::default());
            let face = measures.main.unwrap();
            measures.main = Some(FaceMeasures { brightness, ..face });
            let pose = Pose::new(&measures.faces[0].points).unwrap();
            let seen = Seen { pose, second_area: 0.0, motion: None };
            let captured = Duration::from_millis(100 * at as u64);
            said.extend(guide.look(&measures, Some(&seen), Mood::Resting, captured));
        }
        said
    }

    #[test]
    fn what_stays_wrong_is_said_once_and_taken_back_once() {
        let dark = [0.1; 10].into_iter().chain([0.5; 10]);
        assert_eq!(said(dark), [Some(Guidance::TooDark), None]);
    }

    #[test]
    fn a_moment_is_not_worth_a_word() {
        assert!(said([0.5, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5]).is_empty());
    }

    #[test]
    fn a_value_on_the_edge_does_not_chatter() {
        let edge = (0..60).map(|at| if at % 2 == 0 { 0.21 } else { 0.23 });
        assert_eq!(said(edge), [Some(Guidance::TooDark)]);
    }

    #[test]
    fn no_face_is_more_urgent_than_anything() {
        let mut guide = guide();
        let measures = Measures { faces: vec![], main: None, ..measures_of(&Head::default()) };
        for at in 0..5 {
            guide.look(&measures, None, Mood::Resting, Duration::from_millis(100 * at));
        }
        assert_eq!(guide.said(), Some(Guidance::ShowFace));
    }
}
