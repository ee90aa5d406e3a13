//! Properties that hold for every session.

use std::time::Duration;

use proptest::prelude::*;

use super::simulation::limits;
use crate::face::decision::{Decision, Thresholds};
use crate::face::{DetectedFace, Embedding, Point, Rect, SpaceId};
use crate::image::Orientation;
use crate::liveness::pose::Pose;
use crate::liveness::synthetic::{Head, measures_of};
use crate::liveness::{
    Action, Assurance, Event, FaceMeasures, FrameJudgement, FrameMeasures, FrameMeta, MeshMeasures,
    Session, SessionLimits, decide_session,
};

const ACTIONS: [Action; 3] = [Action::TurnRight, Action::Blink, Action::OpenMouth];

/// Any number that a network may return, including invalid ones.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -2.0..2.0_f64,
        1 => any::<f64>(),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, f64::MAX]),
    ]
}

fn any_face() -> impl Strategy<Value = DetectedFace> {
    (prop::array::uniform14(any_number()), any::<bool>()).prop_map(|(numbers, is_plausible)| {
        if is_plausible {
            let head = Head { yaw: numbers[0] * 30.0, pitch: numbers[1] * 20.0, ..Head::default() };
            return measures_of(&head).faces[0];
        }
        let number = |at: usize| numbers[at] as f32 * 100.0;
        DetectedFace {
            rect: Rect { x: number(0), y: number(1), width: number(2), height: number(3) },
            score: 0.9,
            points: std::array::from_fn(|at| Point { x: number(4 + at), y: number(9 + at) }),
        }
    })
}

fn any_measures() -> impl Strategy<Value = FrameMeasures> {
    let main = prop::option::weighted(0.9, prop::array::uniform6(any_number()));
    (prop::collection::vec(any_face(), 0..3), main, any::<bool>()).prop_map(
        |(faces, main, has_eyes)| {
            let main = main.map(|numbers| FaceMeasures {
                brightness: numbers[0],
                sharpness: numbers[1],
                mesh: has_eyes.then_some(MeshMeasures {
                    points: [Point { x: numbers[2] as f32, y: numbers[3] as f32 }; 5],
                    mouth_open: numbers[2],
                    yaw: numbers[3],
                    pitch: numbers[3],
                }),
                eyes: has_eyes.then_some([numbers[4], numbers[5]]),
            });
            FrameMeasures { faces, main, ..measures_of(&Head::default()) }
        },
    )
}

/// Limits that stop a session as rarely as possible, so that the tests reach its state machines.
fn lenient() -> SessionLimits {
    let mut limits = limits();
    limits.track.overlap_min = -1.0;
    limits.track.jump_eyes_max = f64::INFINITY;
    limits.track.jump_size_max = f64::INFINITY;
    limits.track.jump_turn_max = f64::INFINITY;
    limits.track.second_area_max = f64::INFINITY;
    limits.track.restarts_max = 1000;
    limits.continuity.repeated_pictures_max = 1000;
    limits.continuity.loops_max = 1000;
    limits.steps.unprompted_actions_max = 1000;
    limits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_measures_and_any_frames_end_without_panic_and_without_a_pass(
        frames in prop::collection::vec((any_measures(), any::<u8>(), any_number()), 0..120),
        is_lenient in any::<bool>(),
        is_batch in any::<bool>(),
    ) {
        let limits = if is_lenient { lenient() } else { limits() };
        let assurance = if is_batch { Assurance::Batch } else { Assurance::Stream };
        let mut session = Session::new(ACTIONS, assurance, limits, Duration::ZERO);
        let mut time = Duration::ZERO;
        for (sequence, (measures, jitter, number)) in (0_u32..).zip(&frames) {
            time += Duration::from_millis(60 + u64::from(*jitter) / 4);
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&sequence.to_be_bytes());
            let meta = FrameMeta {
                sequence,
                captured: time,
                bytes: usize::from(*jitter),
                orientation: Orientation::UPRIGHT,
            };
            let _ = session.admit(&meta, digest, time);
            let _ = session.observe(sequence, measures, time);
            let raw = [1.0, 0.5];
            let (embedding, _) = Embedding::from_raw(&raw, SpaceId::new("any")).unwrap();
            let judgement = FrameJudgement { embedding, norm: *number, pad_score: *number };
            session.add_judgement(sequence, judgement);
            session.check_time_limits(time);
            let _ = (session.detail(), session.prompt());
        }
        let thresholds = Thresholds::Calibrated { pass_min: 0.4, review_min: 0.3, generic: false };
        let verdict = decide_session(&session.outcome(), Some(0.9), thresholds, 0.5);
        prop_assert_ne!(verdict.decision, Decision::Pass);
    }

    #[test]
    fn a_session_that_is_over_emits_no_events(
        measures in prop::collection::vec(any_measures(), 1..20),
    ) {
        let mut session = Session::new(ACTIONS, Assurance::Stream, limits(), Duration::ZERO);
        prop_assert_eq!(session.report_replay(), [Event::Finished]);
        let outcome = session.outcome();
        for (sequence, measures) in (0_u32..).zip(&measures) {
            let meta = FrameMeta {
                sequence,
                captured: Duration::from_secs(1),
                bytes: 1,
                orientation: Orientation::UPRIGHT,
            };
            prop_assert!(session.admit(&meta, [0; 32], Duration::ZERO).is_err());
            let result = session.observe(sequence, measures, Duration::ZERO);
            prop_assert!(result.events.is_empty() && !result.is_chosen);
        }
        prop_assert!(session.check_time_limits(Duration::MAX).is_empty());
        prop_assert!(session.report_replay().is_empty());
        prop_assert_eq!(session.outcome(), outcome);
    }

    #[test]
    fn mirroring_flips_left_and_right(yaw in -40.0..40.0_f64, pitch in -15.0..15.0_f64) {
        let head = Head { yaw, pitch, ..Head::default() };
        let points = measures_of(&head).faces[0].points;
        let [right, left, nose, right_mouth, left_mouth] =
            points.map(|point| Point { x: 480.0 - point.x, y: point.y });
        let mirrored = [left, right, nose, left_mouth, right_mouth];
        let (one, other) = (Pose::new(&points).unwrap(), Pose::new(&mirrored).unwrap());
        prop_assert!((one.turn + other.turn).abs() < 1e-4);
        prop_assert!((one.nod - other.nod).abs() < 1e-4);
    }
}
