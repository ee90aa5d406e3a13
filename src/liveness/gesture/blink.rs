//! Blinks, measured by the lids of the iris network relative to the person's own open eyes. The
//! lids of the face mesh are not used, because a smile closes them.

use super::GestureLimits;
use crate::liveness::baseline::Baseline;
use crate::liveness::reading::Reading;

/// Returns how far the eyes are closed: 0 open, 1 closed. The more open eye counts, so a wink is
/// not a blink. Returns `None` if the head moves or the eyes are too narrow to be judged.
pub(super) fn closed_share(
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> Option<f64> {
    if !is_measurable(reading, baseline, limits) {
        return None;
    }
    let eyes = reading.eyes?;
    let open = baseline.eye_openness(limits.eye_open_percentile)?;
    if open.iter().any(|own| *own < limits.eye_open_min) {
        return None;
    }
    let closed = 1.0 - (eyes[0] / open[0]).max(eyes[1] / open[1]);
    let is_surely_open = eyes.iter().any(|eye| *eye >= limits.eye_open_always);
    // Halfway between open and closed, which neither begins nor ends a blink.
    let half_way = (limits.blink.neutral_max + limits.blink.enter) / 2.0;
    Some(if is_surely_open { closed.min(half_way) } else { closed })
}

/// Returns true if the pose of the head allows the eyes to be measured.
pub(super) fn is_measurable(
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> bool {
    let is_level = |neutral: f64| (reading.nod - neutral).abs() < limits.blink_nod_max;
    reading.pose.turn.abs() < limits.blink_turn_max && baseline.nod_median().is_some_and(is_level)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::liveness::pose::Pose;
    use crate::liveness::synthetic::{Head, measures_of};

    fn reading(eyes: [f64; 2], head: Head) -> Reading {
        let pose = Pose::new(&measures_of(&head).faces[0].points).unwrap();
        let (captured, arrived) = (Duration::ZERO, Duration::ZERO);
        let nod = pose.nod;
        Reading { captured, arrived, pose, nod, mouth_open: None, eyes: Some(eyes) }
    }

    /// Returns the closed share of `eyes` for a person whose open eyes are `open` and who blinks
    /// once in the baseline.
    fn closed_share_of(eyes: [f64; 2], open: f64, head: Head) -> Option<f64> {
        let mut baseline = Baseline::default();
        for level in [open, open, 0.3 * open, open, open] {
            baseline.add(&reading([level; 2], Head::default()));
        }
        closed_share(&reading(eyes, head), &baseline, &GestureLimits::default())
    }

    fn is_closed(eyes: [f64; 2], open: f64) -> bool {
        let limits = GestureLimits::default();
        closed_share_of(eyes, open, Head::default())
            .is_some_and(|share| share >= limits.blink.enter)
    }

    #[test]
    fn the_measured_closed_eyes_are_closed_and_the_wink_is_none() {
        // Two photographs with closed eyes, one wink, and the narrowest open eyes of 149 faces.
        assert!(is_closed([0.057, 0.075], 0.32) && is_closed([0.041, 0.085], 0.32));
        assert!(!is_closed([0.135, 0.335], 0.335));
        assert!(!is_closed([0.176, 0.176], 0.176));
    }

    #[test]
    fn an_eye_above_the_absolute_level_is_open_for_every_person() {
        assert!(!is_closed([0.2, 0.2], 0.5));
        assert!(is_closed([0.17, 0.17], 0.5));
    }

    #[test]
    fn eyes_too_narrow_and_heads_that_move_are_not_measured() {
        assert_eq!(closed_share_of([0.05; 2], 0.14, Head::default()), None);
        assert_eq!(closed_share_of([0.05; 2], 0.3, Head { yaw: 20.0, ..Head::default() }), None);
        assert_eq!(closed_share_of([0.05; 2], 0.3, Head { pitch: 10.0, ..Head::default() }), None);
    }
}
