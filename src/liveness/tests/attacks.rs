//! Attacks on a session. Each attack fails for the expected reason, and passes once the check that
//! stops it is relaxed. Every check is therefore needed and effective.
//!
//! An attack on one action performs everything else honestly, as if the attacker had solved it.

use std::time::Duration;

use super::simulation::{SimulatedFrame, Simulation, limits};
use crate::face::ReasonCode;
use crate::face::decision::Decision;
use crate::image::Orientation;
use crate::liveness::gesture::MovementLimits;
use crate::liveness::synthetic::{Head, difference_hash, face_at};
use crate::liveness::{Action, SessionLimits};

const ACTIONS: [Action; 3] = [Action::TurnLeft, Action::Blink, Action::Nod];

struct Attack {
    name: &'static str,
    simulation: Simulation,
    reason: ReasonCode,
    decision: Decision,
    /// Relaxes the check that stops the attack.
    relax: fn(&mut SessionLimits),
}

#[test]
fn every_attack_fails_for_its_reason_and_passes_without_the_check() {
    for attack in pictures().into_iter().chain(wrong_actions()).chain(cuts()).chain(streams()) {
        let stopped = attack.simulation.run(ACTIONS, &limits());
        let found = (stopped.verdict.decision, stopped.first_reason());
        assert_eq!(found, (attack.decision, Some(attack.reason)), "{}", attack.name);

        let mut relaxed = limits();
        (attack.relax)(&mut relaxed);
        let passed = attack.simulation.run(ACTIONS, &relaxed);
        assert!(passed.is_passed(), "{}: {:#?}", attack.name, passed.verdict);
    }
}

/// A photograph in place of a head.
fn pictures() -> Vec<Attack> {
    vec![
        Attack {
            name: "still photo",
            simulation: tampered(|frame| {
                replace_with_photo(frame, |point| point);
                let wobble = 0.01 * f64::from(frame.meta.sequence % 3);
                frame.measures.main.as_mut().unwrap().eyes = Some([0.3 - wobble; 2]);
            }),
            reason: ReasonCode::StepTimeout,
            decision: Decision::Retry,
            relax: accept_noise_as_actions,
        },
        Attack {
            name: "photo moved sideways for a turn",
            simulation: tampered(|frame| {
                let share = turn_share(frame);
                if share > 0.0 {
                    replace_with_photo(frame, |[x, y]| [x + 40.0 * share, y]);
                }
            }),
            reason: ReasonCode::StepTimeout,
            decision: Decision::Retry,
            relax: accept_noise_as_actions,
        },
        Attack {
            name: "photo rotated in its plane for a turn",
            simulation: tampered(|frame| {
                let (sin, cos) = (0.6 * turn_share(frame)).sin_cos();
                if sin > 0.0 {
                    replace_with_photo(frame, |[x, y]| [x * cos - y * sin, x * sin + y * cos]);
                }
            }),
            reason: ReasonCode::StepTimeout,
            decision: Decision::Retry,
            relax: accept_noise_as_actions,
        },
        Attack {
            name: "flat print turned about a slanted axis",
            simulation: tampered(|frame| turn_print(frame, |x| x)),
            reason: ReasonCode::PlanarFace,
            decision: Decision::Fail,
            relax: |limits| limits.gestures.depth_min = 0.0,
        },
        Attack {
            name: "print bent round 5 cm and turned",
            // 5 cm are 60 pixels.
            simulation: tampered(|frame| turn_print(frame, |x| 60.0 * (x / 60.0).sin())),
            reason: ReasonCode::PlanarFace,
            decision: Decision::Fail,
            relax: |limits| limits.gestures.depth_min = 0.0,
        },
    ]
}

/// A wrong action, or the right action at the wrong time.
fn wrong_actions() -> Vec<Attack> {
    let honest = Simulation::default();
    vec![
        Attack {
            name: "another action before the one asked for",
            simulation: Simulation {
                answer: |asked| match asked {
                    Action::TurnLeft => vec![Action::Nod, asked],
                    _ => vec![asked],
                },
                ..honest
            },
            reason: ReasonCode::WrongAction,
            decision: Decision::Retry,
            relax: |limits| limits.steps.unprompted_actions_max = 9,
        },
        Attack {
            // Blink, nod, turn, and so on. The first prompt gets all three actions, the others get
            // one.
            name: "recording of the three actions in another order",
            simulation: Simulation {
                answer: |asked| match asked {
                    Action::TurnLeft => vec![Action::Blink, Action::Nod, asked],
                    _ => vec![asked],
                },
                // The turn still ends within its five seconds.
                movement_seconds: 1.2,
                ..honest
            },
            reason: ReasonCode::WrongAction,
            decision: Decision::Retry,
            relax: |limits| limits.steps.unprompted_actions_max = 9,
        },
        Attack {
            name: "mirrored stream whose flag says otherwise",
            simulation: tampered(mirror),
            reason: ReasonCode::WrongAction,
            decision: Decision::Retry,
            relax: accept_noise_as_actions,
        },
        Attack {
            name: "recording that begins with the prompt",
            simulation: Simulation { reaction: 0.02, movement_seconds: 1.0, ..honest },
            reason: ReasonCode::TooEarly,
            decision: Decision::Retry,
            relax: |limits| limits.steps.reaction_min = Duration::ZERO,
        },
        Attack {
            name: "actions after their time",
            simulation: Simulation { reaction: 5.5, ..honest },
            reason: ReasonCode::StepTimeout,
            decision: Decision::Retry,
            relax: |limits| {
                limits.steps.step_time_max = Duration::from_secs(9);
                limits.admission.frames_measured_max = 1000;
            },
        },
    ]
}

/// Streams with a cut, a loop or repeated frames.
fn cuts() -> Vec<Attack> {
    vec![
        Attack {
            name: "splice with a jump",
            simulation: tampered(|frame| {
                if is_cut(frame) {
                    let points = frame.measures.faces[0].points;
                    let moved = points.map(|p| [f64::from(p.x) + 50.0, f64::from(p.y) + 30.0]);
                    frame.measures.faces[0] = face_at(moved);
                }
            }),
            reason: ReasonCode::JumpCut,
            decision: Decision::Fail,
            relax: |limits| limits.track.jump_eyes_max = 9.0,
        },
        Attack {
            name: "splice in place, of another person",
            simulation: tampered(|frame| frame.person = usize::from(is_cut(frame))),
            reason: ReasonCode::IdentitySwitch,
            decision: Decision::Fail,
            relax: |limits| limits.continuity.identity_min = Some(-1.0),
        },
        Attack {
            name: "loop while waiting",
            simulation: Simulation { reaction: 3.0, tamper: play_loop, ..Simulation::default() },
            reason: ReasonCode::LoopSuspect,
            decision: Decision::Fail,
            relax: |limits| {
                limits.continuity.loops_max = 1000;
                limits.admission.frames_measured_max = 1000;
            },
        },
        Attack {
            name: "bytes sent twice",
            simulation: tampered(|frame| {
                let original = frame.meta.sequence / 2;
                frame.digest[..4].copy_from_slice(&original.to_be_bytes());
            }),
            reason: ReasonCode::DuplicateFrames,
            decision: Decision::Fail,
            relax: |limits| limits.admission.repeated_files_max = 1000,
        },
        Attack {
            name: "one picture encoded again and again",
            simulation: tampered(|frame| {
                if frame.action_since.is_none() {
                    frame.measures.difference_hash = difference_hash(0);
                    frame.measures.faces[0] = face_at(Head::default().points());
                }
            }),
            reason: ReasonCode::DuplicateFrames,
            decision: Decision::Fail,
            relax: |limits| limits.continuity.repeated_pictures_max = 1000,
        },
        Attack {
            name: "frames missing in a movement",
            simulation: tampered(|frame| {
                let since = frame.action_since.map_or(0.0, |(since, _)| since);
                frame.is_lost = frame.done == 0 && (0.85..1.25).contains(&since);
            }),
            reason: ReasonCode::TimeGap,
            decision: Decision::Retry,
            relax: |limits| limits.admission.gap_max = Duration::from_secs(1),
        },
    ]
}

/// Streams that no camera at a counter sends.
fn streams() -> Vec<Attack> {
    let honest = Simulation::default();
    vec![
        Attack {
            name: "second face beside the first",
            simulation: tampered(|frame| {
                if frame.done == 0 && frame.action_since.is_some() {
                    let mut other = frame.measures.faces[0];
                    other.rect.x += 150.0;
                    frame.measures.faces.push(other);
                }
            }),
            reason: ReasonCode::MultipleFaces,
            decision: Decision::Retry,
            relax: |limits| limits.track.second_area_max = 2.0,
        },
        Attack {
            name: "low frame rate",
            simulation: Simulation { frames_a_second: 5.0, ..honest },
            reason: ReasonCode::FpsTooLow,
            decision: Decision::Retry,
            relax: |limits| limits.admission.rate_min = 4.0,
        },
        Attack {
            name: "clock that goes back",
            simulation: tampered(|frame| {
                if frame.meta.sequence == 12 {
                    frame.meta.captured -= Duration::from_millis(110);
                }
            }),
            reason: ReasonCode::ClockDrift,
            decision: Decision::Retry,
            relax: |limits| limits.admission.clock_back_max = Duration::from_millis(500),
        },
        Attack {
            name: "frames of before the start",
            simulation: Simulation {
                reaction: 3.5,
                tamper: |frame| frame.delay = (3.0 - frame.time).max(0.0),
                ..honest
            },
            reason: ReasonCode::ClockDrift,
            decision: Decision::Retry,
            relax: |limits| {
                limits.admission.clock_drift_max = Duration::from_secs(9);
                limits.admission.frames_measured_max = 1000;
            },
        },
        Attack {
            name: "camera that changes its mirroring",
            simulation: tampered(|frame| {
                if frame.done > 0 {
                    frame.meta.orientation = Orientation::MIRRORED;
                }
            }),
            reason: ReasonCode::InjectionSuspect,
            decision: Decision::Fail,
            relax: |limits| limits.admission.format_changes_max = 9,
        },
        Attack {
            name: "pictures that change their size",
            simulation: tampered(|frame| frame.measures.size[0] += usize::from(frame.done > 0)),
            reason: ReasonCode::InjectionSuspect,
            decision: Decision::Fail,
            relax: |limits| limits.admission.format_changes_max = 9,
        },
    ]
}

fn tampered(tamper: fn(&mut SimulatedFrame)) -> Simulation {
    Simulation { tamper, ..Simulation::default() }
}

/// Limits that noise around zero satisfies: it goes above zero and comes back.
const NOISE: MovementLimits = MovementLimits {
    neutral_min: -9.0,
    neutral_max: 0.0,
    enter: 0.0,
    leave: 0.0,
    back: 0.0,
    peak_time_min: Duration::ZERO,
    peak_frames_min: 0,
    time_min: Duration::ZERO,
    time_max: Duration::from_secs(60),
};

/// Relaxes the limits so that no action is required and no action is wrong.
fn accept_noise_as_actions(limits: &mut SessionLimits) {
    limits.gestures.turn = NOISE;
    limits.gestures.nod = NOISE;
    // The eyes are never more open than their baseline.
    limits.gestures.blink =
        MovementLimits { neutral_max: 0.01, enter: 0.01, leave: 0.01, back: 0.01, ..NOISE };
    limits.gestures.eye_open_always = f64::INFINITY;
    limits.gestures.depth_min = 0.0;
    limits.steps.neutral_hold = Duration::ZERO;
    limits.steps.reaction_min = Duration::ZERO;
    limits.steps.unprompted_actions_max = 1000;
}

/// Replaces the face by the frontal points of a photograph. `map` moves them relative to the middle
/// of the frame.
fn replace_with_photo(frame: &mut SimulatedFrame, map: impl Fn([f64; 2]) -> [f64; 2]) {
    let frontal = Head { moved: frame.head.moved, ..Head::default() }.points();
    let (exact, measured) = (frame.head.points(), frame.measures.faces[0].points);
    let points = std::array::from_fn(|at| {
        let [x, y] = map([frontal[at][0] - 240.0, frontal[at][1] - 320.0]);
        let noise_x = f64::from(measured[at].x) - exact[at][0];
        let noise_y = f64::from(measured[at].y) - exact[at][1];
        [x + 240.0 + noise_x, y + 320.0 + noise_y]
    });
    frame.measures.faces[0] = face_at(points);
}

/// Returns how far a turn to the left has progressed, 0..=1.
fn turn_share(frame: &SimulatedFrame) -> f64 {
    let is_left = matches!(frame.action_since, Some((_, Action::TurnLeft)));
    if is_left { frame.head.yaw / 27.0 } else { 0.0 }
}

/// Shows a print that is bent and turned about a slanted axis by up to 60°. The nose leaves the
/// middle of the eyes as on a turned head.
fn turn_print(frame: &mut SimulatedFrame, bend: impl Fn(f64) -> f64) {
    let share = turn_share(frame);
    if share > 0.0 {
        let shrink = 0.5 * (1.0 - (60.0 * share).to_radians().cos());
        replace_with_photo(frame, |[x, y]| {
            let x = bend(x);
            [x - shrink * (x - y), y + shrink * (x - y)]
        });
    }
}

/// Mirrors the frame. The detector labels the eye on the image's left as the right eye, also in a
/// mirrored image.
fn mirror(frame: &mut SimulatedFrame) {
    let points = frame.measures.faces[0].points;
    let [right, left, nose, right_mouth, left_mouth] =
        points.map(|point| [480.0 - f64::from(point.x), f64::from(point.y)]);
    frame.measures.faces[0] = face_at([left, right, nose, left_mouth, right_mouth]);
}

/// Returns true from the middle of the first action on.
fn is_cut(frame: &SimulatedFrame) -> bool {
    frame.done > 0 || frame.action_since.is_some_and(|(since, _)| since > 1.0)
}

/// Repeats a second and a half of waiting until the first action starts.
fn play_loop(frame: &mut SimulatedFrame) {
    let is_waiting = frame.action_since.is_none_or(|(since, _)| since < 3.0);
    if frame.done == 0 && is_waiting {
        let at = frame.meta.sequence % 15;
        frame.measures.difference_hash = difference_hash(at);
        let moved = [f64::from(at % 7), f64::from(at % 4)];
        frame.measures.faces[0] = face_at(Head { moved, ..Head::default() }.points());
    }
}
