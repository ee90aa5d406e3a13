//! Tracking of one face from frame to frame: presence, other faces, and plausible motion.

use std::time::Duration;

use super::admission::AdmittedFrame;
use super::limits::TrackLimits;
use super::measures::FrameMeasures;
use super::pose::{Pose, distance};
use crate::face::decision::{Reason, Subject};
use crate::face::{DetectedFace, ReasonCode, Rect};

/// Result of locating the tracked face in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tracking {
    Found(TrackedFace),
    /// The face is missing, so far for a short time.
    Missing,
    /// The face was missing for too long. The step restarts: neutral face, prompt, action.
    Restart,
}

/// The tracked face in one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TrackedFace {
    pub(super) pose: Pose,
    /// Area of the second face relative to this one.
    pub(super) second_area: f64,
    /// Motion since the last frame with the face; `None` on the first one.
    pub(super) motion: Option<Motion>,
}

/// Motion of a face between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Motion {
    /// Movement of the middle of the eyes, in inter-eye distances.
    pub(super) eyes_shift: f64,
    /// Relative change of the distance of the eyes.
    pub(super) size_change: f64,
    pub(super) turn_change: f64,
}

/// Tracks the main face of a session.
#[derive(Debug)]
pub(super) struct FaceTracker {
    limits: TrackLimits,
    last: Option<LastFace>,
    second_since: Option<Duration>,
    restarts: usize,
    worst: TrackingWorst,
}

/// The worst values that the tracker measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct TrackingWorst {
    pub(super) second_time: Duration,
    /// Movement of the eyes, and change of their distance, beyond what the turn explains.
    pub(super) eyes_shift: f64,
    pub(super) size_change: f64,
    pub(super) turn_change: f64,
    pub(super) restarts: usize,
}

#[derive(Debug, Clone, Copy)]
struct LastFace {
    rect: Rect,
    pose: Pose,
    captured: Duration,
}

impl FaceTracker {
    pub(super) fn new(limits: TrackLimits) -> Self {
        Self {
            limits,
            last: None,
            second_since: None,
            restarts: 0,
            worst: TrackingWorst::default(),
        }
    }

    pub(super) fn worst(&self) -> TrackingWorst {
        self.worst
    }

    /// Locates the face in a frame. `may_leave` is true while step 0 waits for a neutral face. No
    /// rule is checked then, and another face may take the place of the tracked one.
    pub(super) fn locate(
        &mut self,
        frame: &AdmittedFrame,
        measures: &FrameMeasures,
        may_leave: bool,
    ) -> Result<Tracking, Reason> {
        let has_area =
            |face: &&DetectedFace| face.rect.area().is_finite() && face.rect.area() > 0.0;
        let found = measures.faces.first().filter(|_| measures.main.is_some()).filter(has_area);
        let found = found.and_then(|face| Some((*face, Pose::new(&face.points)?)));
        let Some((face, pose)) = found.filter(|(face, _)| self.is_same_face(face)) else {
            return self.handle_missing(frame, may_leave);
        };
        let second_area = second_area(&measures.faces);
        self.check_second_face(frame, second_area, may_leave)?;
        let motion = self.measure_motion(frame, &pose);
        self.last = Some(LastFace { rect: face.rect, pose, captured: frame.captured });
        if let Some(motion) = motion {
            self.check_motion(&motion, may_leave)?;
        }
        Ok(Tracking::Found(TrackedFace { pose, second_area, motion }))
    }

    fn is_same_face(&self, face: &DetectedFace) -> bool {
        let Some(last) = &self.last else { return true };
        overlap(&last.rect, &face.rect) >= self.limits.overlap_min
    }

    fn handle_missing(
        &mut self,
        frame: &AdmittedFrame,
        may_leave: bool,
    ) -> Result<Tracking, Reason> {
        let Some(last) = &self.last else { return Ok(Tracking::Missing) };
        if frame.captured.saturating_sub(last.captured) <= self.limits.lost_max {
            return Ok(Tracking::Missing);
        }
        self.last = None;
        self.second_since = None;
        if may_leave {
            return Ok(Tracking::Restart);
        }
        self.restarts += 1;
        self.worst.restarts = self.restarts;
        if self.restarts > self.limits.restarts_max {
            let (value, limit) = (self.restarts as f64, self.limits.restarts_max as f64);
            return Err(Reason::limited(ReasonCode::TrackLost, Subject::Request, value, limit));
        }
        Ok(Tracking::Restart)
    }

    fn check_second_face(
        &mut self,
        frame: &AdmittedFrame,
        second_area: f64,
        may_leave: bool,
    ) -> Result<(), Reason> {
        if second_area <= self.limits.second_area_max || may_leave {
            self.second_since = None;
            return Ok(());
        }
        let since = *self.second_since.get_or_insert(frame.captured);
        let time = frame.captured.saturating_sub(since);
        self.worst.second_time = self.worst.second_time.max(time);
        let limit = self.limits.second_time_max;
        if time <= limit {
            return Ok(());
        }
        let (value, limit) = (time.as_secs_f64(), limit.as_secs_f64());
        Err(Reason::limited(ReasonCode::MultipleFaces, Subject::Request, value, limit))
    }

    /// Returns the motion since the last frame, scaled down to one jump interval if more time has
    /// passed.
    fn measure_motion(&self, frame: &AdmittedFrame, pose: &Pose) -> Option<Motion> {
        let last = self.last.as_ref()?;
        let interval = frame.captured.saturating_sub(last.captured);
        let intervals = interval.as_secs_f64() / self.limits.jump_interval.as_secs_f64();
        let unit = last.pose.eye_distance;
        let within_one = |way: f64| way / intervals.max(1.0);
        Some(Motion {
            eyes_shift: within_one(distance(pose.eyes_middle, last.pose.eyes_middle) / unit),
            size_change: within_one((pose.eye_distance / unit - 1.0).abs()),
            turn_change: within_one((pose.turn - last.pose.turn).abs()),
        })
    }

    fn check_motion(&mut self, motion: &Motion, may_leave: bool) -> Result<(), Reason> {
        if may_leave {
            return Ok(());
        }
        let turn_change = motion.turn_change;
        let eyes_shift = motion.eyes_shift - turn_change * self.limits.jump_eyes_per_turn;
        let size_change = motion.size_change - turn_change * self.limits.jump_size_per_turn;
        let worst = &mut self.worst;
        worst.eyes_shift = worst.eyes_shift.max(eyes_shift);
        worst.size_change = worst.size_change.max(size_change);
        worst.turn_change = worst.turn_change.max(turn_change);
        let TrackLimits { jump_eyes_max, jump_size_max, jump_turn_max, .. } = self.limits;
        let jumps = [
            (eyes_shift, jump_eyes_max),
            (size_change, jump_size_max),
            (turn_change, jump_turn_max),
        ];
        match jumps.into_iter().find(|(value, limit)| value > limit) {
            None => Ok(()),
            Some((value, limit)) => {
                Err(Reason::limited(ReasonCode::JumpCut, Subject::Request, value, limit))
            }
        }
    }
}

/// Returns the area of the largest other face relative to the first.
fn second_area(faces: &[DetectedFace]) -> f64 {
    let Some((main, others)) = faces.split_first() else { return 0.0 };
    let area = |face: &DetectedFace| f64::from(face.rect.area());
    others.iter().map(area).fold(0.0, f64::max) / area(main)
}

/// Returns the intersection over union of two boxes; 0 or NaN if a box is empty.
fn overlap(one: &Rect, other: &Rect) -> f64 {
    let shared = |start: f32, length: f32, other_start: f32, other_length: f32| {
        let end = (start + length).min(other_start + other_length);
        f64::from((end - start.max(other_start)).max(0.0))
    };
    let width = shared(one.x, one.width, other.x, other.width);
    let height = shared(one.y, one.height, other.y, other.height);
    let both = width * height;
    both / (f64::from(one.area()) + f64::from(other.area()) - both)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{Head, face_at, measures_of};
    use super::*;

    /// Tracks heads that are `interval_ms` apart; `None` is a frame without a face.
    fn locate(heads: &[Option<Head>], interval_ms: u64) -> Result<Vec<Tracking>, ReasonCode> {
        let mut tracker = FaceTracker::new(TrackLimits::default());
        let tracked = heads.iter().enumerate().map(|(at, head)| {
            let captured = Duration::from_millis(at as u64 * interval_ms);
            let mut measures = measures_of(&head.unwrap_or_default());
            if head.is_none() {
                measures.faces.clear();
                measures.main = None;
            }
            let gap = Duration::ZERO;
            let frame = AdmittedFrame { sequence: at as u32, captured, arrived: captured, gap };
            tracker.locate(&frame, &measures, false).map_err(|reason| reason.code)
        });
        tracked.collect()
    }

    fn at(x: f64) -> Option<Head> {
        Some(Head { moved: [x, 0.0], ..Head::default() })
    }

    #[test]
    fn a_face_gone_too_long_restarts_the_step_once_and_then_stops_the_session() {
        let once: Vec<_> = [at(0.0)].into_iter().chain([None; 5]).chain([at(0.0)]).collect();
        let tracked = locate(&once, 100).unwrap();
        assert_eq!(tracked[4], Tracking::Missing);
        assert_eq!(tracked[5], Tracking::Restart);
        assert!(matches!(tracked[6], Tracking::Found(_)));
        assert_eq!(locate(&[once.clone(), once].concat(), 100), Err(ReasonCode::TrackLost));
    }

    #[test]
    fn a_jump_is_a_cut_and_a_missing_frame_does_not_hide_it() {
        assert!(locate(&[at(0.0), at(20.0), at(40.0)], 100).is_ok());
        assert_eq!(locate(&[at(0.0), at(40.0)], 100), Err(ReasonCode::JumpCut));
        assert_eq!(locate(&[at(0.0), at(60.0)], 200), Err(ReasonCode::JumpCut));
        assert!(locate(&[at(0.0), at(35.0)], 200).is_ok());
    }

    #[test]
    fn a_brisk_turn_about_the_neck_is_no_cut() {
        let turn = |yaw: f64| Some(Head { yaw, ..Head::default() });
        let brisk = [0.0, 15.0, 30.0, 15.0, 0.0].map(turn);
        assert!(locate(&brisk, 100).is_ok());
        assert_eq!(locate(&[-15.0, 18.0].map(turn), 100), Err(ReasonCode::JumpCut));
    }

    #[test]
    fn a_face_elsewhere_is_not_the_tracked_face() {
        let tracked = locate(&[at(0.0), at(140.0)], 100).unwrap();
        assert_eq!(tracked[1], Tracking::Missing);
    }

    #[test]
    fn boxes_that_are_empty_or_no_numbers_overlap_with_nothing() {
        let rect = face_at(Head::default().points()).rect;
        assert!((overlap(&rect, &rect) - 1.0).abs() < 1e-6);
        for width in [0.0, f32::NAN, f32::INFINITY] {
            let other = Rect { width, ..rect };
            let is_overlapping = overlap(&other, &rect) >= 0.3;
            assert!(!is_overlapping, "{width}");
        }
    }
}
