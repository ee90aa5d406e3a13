//! Guidance for the customer about the picture, with hysteresis so that messages do not flicker.

use std::time::Duration;

use super::limits::{GuidanceLimits, Hysteresis, TrackLimits};
use super::measures::FrameMeasures;
use super::track::TrackedFace;
use crate::face::ReasonCode;

/// One instruction about the picture. Only the most urgent instruction is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guidance {
    /// No face is found.
    ShowFace,
    /// Another person is in the picture.
    OnePersonOnly,
    /// The face is too small.
    Closer,
    /// The face is too large.
    Further,
    /// The face is at the edge of the picture.
    Center,
    /// The face is too dark.
    TooDark,
    /// The face is too bright.
    TooBright,
    /// The face is turned away from the camera.
    FaceCamera,
    /// The camera or the head moves while the customer should rest.
    HoldStill,
    /// The movement is too fast to be measured.
    MoveSlower,
}

impl Guidance {
    /// All instructions, the most urgent first.
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

    /// Returns the message for the customer.
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

    /// Returns the reason that a failed session reports if the customer did not follow this
    /// instruction.
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

/// Activity of the customer: resting or performing an action. During an action the head may turn
/// and move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Resting,
    Moving,
}

/// Selects the guidance to announce, one frame at a time.
#[derive(Debug)]
pub(super) struct GuidanceSelector {
    limits: GuidanceLimits,
    second_area: Hysteresis,
    /// The problem of the last frame.
    problem: Option<Guidance>,
    /// The problem that waits to be announced, and the capture time since which it exists.
    candidate: (Option<Guidance>, Duration),
    announced: Option<Guidance>,
}

impl GuidanceSelector {
    pub(super) fn new(limits: GuidanceLimits, track: &TrackLimits) -> Self {
        let enter = track.second_area_max;
        let second_area = Hysteresis { enter, leave: enter * 0.8 };
        let candidate = (None, Duration::ZERO);
        Self { limits, second_area, problem: None, candidate, announced: None }
    }

    /// Returns the problem of the last frame.
    pub(super) fn problem(&self) -> Option<Guidance> {
        self.problem
    }

    /// Returns the last announced problem, if it was not withdrawn.
    pub(super) fn announced(&self) -> Option<Guidance> {
        self.announced
    }

    /// Evaluates a frame. Returns the guidance to announce if it changed; `Some(None)` withdraws
    /// the last one.
    pub(super) fn update(
        &mut self,
        measures: &FrameMeasures,
        tracked: Option<&TrackedFace>,
        activity: Activity,
        captured: Duration,
    ) -> Option<Option<Guidance>> {
        let applies = |guidance: &Guidance| self.applies(*guidance, measures, tracked, activity);
        self.problem = Guidance::ALL.into_iter().find(applies);
        if self.candidate.0 != self.problem {
            self.candidate = (self.problem, captured);
        }
        let is_held = captured.saturating_sub(self.candidate.1) >= self.limits.hold;
        if !is_held || self.announced == self.problem {
            return None;
        }
        self.announced = self.problem;
        Some(self.problem)
    }

    fn applies(
        &self,
        guidance: Guidance,
        measures: &FrameMeasures,
        tracked: Option<&TrackedFace>,
        activity: Activity,
    ) -> bool {
        let (Some(tracked), Some(face)) = (tracked, &measures.main) else {
            return guidance == Guidance::ShowFace;
        };
        let limits = &self.limits;
        // A NaN violates every limit.
        let above = |value: f64, limit: Hysteresis| {
            value.is_nan() || value > self.current_limit(guidance, limit)
        };
        let below = |value: f64, limit: Hysteresis| {
            value.is_nan() || value < self.current_limit(guidance, limit)
        };
        let [width, height] = measures.size.map(|side| side as f64);
        let motion = tracked.motion.unwrap_or_default();
        let is_resting = activity == Activity::Resting;
        match guidance {
            Guidance::ShowFace => false,
            Guidance::OnePersonOnly => above(tracked.second_area, self.second_area),
            Guidance::Closer => below(tracked.pose.eye_distance, limits.eye_distance_min),
            Guidance::Further => {
                above(tracked.pose.eye_distance / width.min(height), limits.eye_share_max)
            }
            Guidance::Center => {
                let [x, y] = tracked.pose.eyes_middle;
                let off = (x / width - 0.5).abs().max((y / height - 0.5).abs());
                is_resting && above(off, limits.off_center_max)
            }
            Guidance::TooDark => below(face.brightness, limits.brightness_min),
            Guidance::TooBright => above(face.brightness, limits.brightness_max),
            Guidance::FaceCamera => is_resting && above(tracked.pose.turn.abs(), limits.turn_max),
            Guidance::HoldStill => is_resting && above(motion.eyes_shift, limits.still_max),
            Guidance::MoveSlower => !is_resting && above(motion.turn_change, limits.turn_speed_max),
        }
    }

    /// Returns the limit that applies now: the stricter one while the problem exists.
    fn current_limit(&self, guidance: Guidance, limit: Hysteresis) -> f64 {
        if self.problem == Some(guidance) { limit.leave } else { limit.enter }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measures::FaceMeasures;
    use super::super::pose::Pose;
    use super::super::synthetic::{Head, measures_of};
    use super::*;

    fn selector() -> GuidanceSelector {
        GuidanceSelector::new(GuidanceLimits::default(), &TrackLimits::default())
    }

    /// Returns the announcements over frames of this brightness, ten frames per second.
    fn announced(brightness: impl IntoIterator<Item = f64>) -> Vec<Option<Guidance>> {
        let (mut selector, mut announced) = (selector(), Vec::new());
        for (at, brightness) in brightness.into_iter().enumerate() {
            let mut measures = measures_of(&Head::default());
            let face = measures.main.unwrap();
            measures.main = Some(FaceMeasures { brightness, ..face });
            let pose = Pose::new(&measures.faces[0].points).unwrap();
            let tracked = TrackedFace { pose, second_area: 0.0, motion: None };
            let captured = Duration::from_millis(100 * at as u64);
            announced.extend(selector.update(
                &measures,
                Some(&tracked),
                Activity::Resting,
                captured,
            ));
        }
        announced
    }

    #[test]
    fn a_lasting_problem_is_announced_once_and_withdrawn_once() {
        let dark = [0.1; 10].into_iter().chain([0.5; 10]);
        assert_eq!(announced(dark), [Some(Guidance::TooDark), None]);
    }

    #[test]
    fn a_problem_of_a_moment_is_not_announced() {
        assert!(announced([0.5, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5]).is_empty());
    }

    #[test]
    fn a_value_on_the_edge_does_not_chatter() {
        let edge = (0..60).map(|at| if at % 2 == 0 { 0.21 } else { 0.23 });
        assert_eq!(announced(edge), [Some(Guidance::TooDark)]);
    }

    #[test]
    fn no_face_is_more_urgent_than_anything() {
        let mut selector = selector();
        let measures = FrameMeasures { faces: vec![], main: None, ..measures_of(&Head::default()) };
        for at in 0..5 {
            selector.update(&measures, None, Activity::Resting, Duration::from_millis(100 * at));
        }
        assert_eq!(selector.announced(), Some(Guidance::ShowFace));
    }
}
