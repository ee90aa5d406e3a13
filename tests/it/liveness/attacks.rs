//! Cheats fail for what they do, and pass once the limit that stops them is relaxed.
//!
//! An attack on one action does everything else honestly, as if the cheat had solved it.

use std::time::Duration;

use futures_util::future::join_all;
use menshen::app::App;
use menshen::liveness::SessionLimits;
use menshen::proto::v1;
use menshen::proto::v1::ReasonCode as Code;
use menshen_puppet::attacks::{
    duplicated, looped, mirrored, moved_in_plane, second_face, splice, still, turned_print,
};
use menshen_puppet::{
    Actor, FilmedFrame, Gesture, Performance, Picture, Puppet, Shot, TurnYaws, film, shoot,
};
use tempfile::TempDir;

use super::{
    Client, REAL_TIME_LOCK, RECORDED_AFTER_MS, client, create_session, create_with_actions,
    created_unix_ms, describe_result, evaluate_request, gesture, live_config, liveness_client,
    models, puppet, run_stream, session_request, wire_frame,
};
use crate::support::{channel, is_in_part, portrait, reason_codes};

/// The customer whose portrait is presented, and another person.
const CUSTOMER: &str = "person_a_1.jpg";
const OTHER: &str = "impostor_1.jpg";

/// Number of attacks that are judged at the same time.
const AT_ONCE: usize = 4;

const TURN_FIRST: [v1::Action; 3] =
    [v1::Action::TurnLeft, v1::Action::Blink, v1::Action::OpenMouth];
const BLINK_FIRST: [v1::Action; 3] =
    [v1::Action::Blink, v1::Action::TurnLeft, v1::Action::OpenMouth];

/// A recording of a cheat, and what must stop it.
struct Attack {
    name: &'static str,
    /// The actions that the session asks for.
    actions: [v1::Action; 3],
    /// Makes the frames, on a clock that starts at zero.
    film: fn(&Scene) -> Vec<v1::Frame>,
    /// Accepted first reasons.
    reasons: &'static [Code],
    decision: v1::Decision,
    /// Relaxes the limit that stops the attack; `None` if no single limit does.
    relax: Option<fn(&mut SessionLimits)>,
}

/// What the frames of an attack are made from.
struct Scene {
    puppet: Puppet,
    gestures: Vec<Gesture>,
    seed: u64,
}

impl Scene {
    fn actor(&self) -> Actor {
        Actor::new(self.seed, self.puppet.turn_yaws())
    }

    /// Returns the shots of an honest customer.
    fn shots(&self) -> Vec<Shot> {
        self.shots_at(10)
    }

    fn shots_at(&self, frames_per_second: u64) -> Vec<Shot> {
        Performance::scripted(self.actor(), &self.gestures, frames_per_second).shots
    }

    fn film(&self, shots: &[Shot]) -> Vec<FilmedFrame> {
        film(&self.puppet, shots, self.seed)
    }

    fn honest(&self) -> Vec<FilmedFrame> {
        self.film(&self.shots())
    }
}

fn wire_frames(frames: &[FilmedFrame]) -> Vec<v1::Frame> {
    (0..).zip(frames).map(|(sequence, frame)| wire_frame(frame, sequence, 0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_fails_for_its_reason_and_passes_without_the_check() {
    let _shared = REAL_TIME_LOCK.read().await;
    let models = models();
    let attacks = picture_attacks()
        .into_iter()
        .chain(gesture_attacks())
        .chain(cut_attacks())
        .chain(stream_attacks());
    let attacks: Vec<(usize, Attack)> =
        attacks.enumerate().filter(|(index, _)| is_in_part(*index)).collect();
    let mut wrong = Vec::new();
    for chunk in attacks.chunks(AT_ONCE) {
        let judged = chunk.iter().map(|(index, attack)| check_attack(*index, attack, &models));
        wrong.extend(join_all(judged).await.into_iter().flatten());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns what is wrong with the answers to an attack.
async fn check_attack(index: usize, attack: &Attack, models: &TempDir) -> Vec<String> {
    let frames = film_attack(index, attack.actions, attack.film).await;
    let stopped = evaluate_frames(&mut client().await, index, attack.actions, &frames).await;
    let first = reason_codes(&stopped.reasons).first().copied();
    let is_stopped = stopped.decision() == attack.decision
        && first.is_some_and(|code| attack.reasons.contains(&code));
    let mut wrong = Vec::new();
    if !is_stopped {
        wrong.push(format!("{}: {}", attack.name, describe_result(&stopped)));
    }
    if let Some(relax) = attack.relax {
        let app = start_relaxed(relax, models).await;
        let mut client = liveness_client(channel(app.grpc_address()).await);
        let passed = evaluate_frames(&mut client, index, attack.actions, &frames).await;
        if passed.decision() != v1::Decision::Pass {
            wrong.push(format!("{}, without the check: {}", attack.name, describe_result(&passed)));
        }
        drop(client);
        app.stop().await;
    }
    wrong
}

async fn film_attack(
    index: usize,
    actions: [v1::Action; 3],
    film: fn(&Scene) -> Vec<v1::Frame>,
) -> Vec<v1::Frame> {
    let filming = move || {
        // A seed that no other test has: a frame that another session showed is an attack of its
        // own.
        let seed = 1000 + index as u64;
        film(&Scene { puppet: puppet(CUSTOMER), gestures: actions.map(gesture).into(), seed })
    };
    tokio::task::spawn_blocking(filming).await.unwrap()
}

/// Sends frames as the recording of a session that asks for these actions.
async fn evaluate_frames(
    client: &mut Client,
    index: usize,
    actions: [v1::Action; 3],
    frames: &[v1::Frame],
) -> v1::LivenessResult {
    let session = create_with_actions(client, &format!("attack-{index}"), CUSTOMER, actions).await;
    let begun_unix_ms = created_unix_ms(&session) + RECORDED_AFTER_MS;
    let mut request = evaluate_request(&session, CUSTOMER, &[]);
    request.frames = frames.to_vec();
    for frame in &mut request.frames {
        frame.capture_unix_ms += begun_unix_ms;
    }
    client.evaluate(request).await.unwrap().into_inner()
}

/// Starts a server with relaxed limits.
async fn start_relaxed(relax: fn(&mut SessionLimits), models: &TempDir) -> App {
    let mut config = live_config(models);
    config.server.drain_grace_ms = 0;
    let mut app = App::bind(config).await.unwrap();
    relax(&mut app.limits);
    app.load().await.unwrap();
    app
}

/// Attacks with photographs instead of a head.
fn picture_attacks() -> Vec<Attack> {
    let attack = |name, film, reasons, decision| Attack {
        name,
        actions: TURN_FIRST,
        film,
        reasons,
        decision,
        relax: None,
    };
    let retry = v1::Decision::Retry;
    vec![
        attack(
            "still photo",
            |s| wire_frames(&s.film(&still(&s.shots()))),
            &[Code::StepTimeout],
            retry,
        ),
        attack(
            "photo moved and rotated in its plane",
            |s| wire_frames(&s.film(&moved_in_plane(&s.shots()))),
            &[Code::StepTimeout],
            retry,
        ),
        attack(
            "flat print turned",
            |s| film_turned_print(s, flat_print()),
            &[Code::StepTimeout],
            retry,
        ),
        attack(
            "print bent about 8 cm turned",
            |s| film_turned_print(s, bent_print(8.0)),
            &[Code::StepTimeout, Code::PlanarFace],
            retry,
        ),
        attack(
            "print bent about 5 cm turned",
            |s| film_turned_print(s, bent_print(5.0)),
            &[Code::StepTimeout, Code::PlanarFace],
            retry,
        ),
        Attack {
            name: "bent screen turned, with lids and lips",
            actions: TURN_FIRST,
            film: |scene| wire_frames(&film_bent_screen(scene)),
            reasons: &[Code::StepTimeout],
            decision: v1::Decision::Retry,
            // By default the screen does not look turned far enough.
            relax: Some(|limits| {
                limits.gestures.turn.enter = 0.25;
                limits.gestures.turn.leave = 0.22;
            }),
        },
    ]
}

/// Attacks with the wrong action, or with the right action of another session.
fn gesture_attacks() -> Vec<Attack> {
    vec![
        Attack {
            name: "wrong order of actions",
            actions: TURN_FIRST,
            film: |scene| {
                let gestures = [Gesture::OpenMouth, Gesture::Blink, Gesture::TurnLeft];
                wire_frames(&scene.film(&Performance::scripted(scene.actor(), &gestures, 10).shots))
            },
            reasons: &[Code::WrongAction],
            decision: v1::Decision::Retry,
            relax: None,
        },
        Attack {
            name: "another action before the one asked for",
            actions: BLINK_FIRST,
            film: |scene| {
                let mut actor = scene.actor();
                let mut free_ms = 1000;
                for gesture in [Gesture::OpenMouth].iter().chain(&scene.gestures) {
                    free_ms = actor.perform(*gesture, free_ms) + 900;
                }
                wire_frames(&scene.film(&actor.track(free_ms, 10)))
            },
            reasons: &[Code::WrongAction],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.steps.unprompted_actions_max = 1),
        },
        Attack {
            name: "mirrored stream whose flag says otherwise",
            actions: TURN_FIRST,
            film: |scene| wire_frames(&mirrored(&scene.puppet, &scene.shots(), scene.seed)),
            reasons: &[Code::WrongAction],
            decision: v1::Decision::Retry,
            relax: None,
        },
    ]
}

/// Attacks with streams that are cut together.
fn cut_attacks() -> Vec<Attack> {
    vec![
        Attack {
            name: "splice with a jump",
            actions: TURN_FIRST,
            film: |scene| {
                let shots = scene.shots();
                let mut aside = shots.clone();
                for shot in &mut aside {
                    shot.pose.transform.shift[0] += 60.0;
                }
                wire_frames(&splice(&scene.film(&shots), &scene.film(&aside), 2700))
            },
            reasons: &[Code::JumpCut],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.track.jump_eyes_max = 9.0),
        },
        Attack {
            name: "splice of two people",
            actions: TURN_FIRST,
            film: |scene| {
                let other = puppet(OTHER);
                let actor = Actor::new(scene.seed, other.turn_yaws());
                let shots = Performance::scripted(actor, &scene.gestures, 10).shots;
                let second = film(&other, &shots, scene.seed);
                // At this time both persons rest and the eyes are no longer measured.
                wire_frames(&splice(&scene.honest(), &second, 7650))
            },
            reasons: &[Code::IdentitySwitch, Code::JumpCut],
            decision: v1::Decision::Fail,
            // Two heads also differ in position and in their levels at rest. Other checks find
            // both.
            relax: Some(|limits| {
                limits.continuity.identity_min = Some(-1.0);
                limits.track.jump_eyes_max = 9.0;
                limits.track.jump_size_max = 9.0;
                limits.track.jump_turn_max = 9.0;
                limits.gestures.blink_nod_max = 9.0;
                limits.steps.unprompted_actions_max = 9;
            }),
        },
        Attack {
            name: "loop while waiting",
            actions: BLINK_FIRST,
            film: |scene| {
                let mut actor = scene.actor();
                let mut free_ms = 3300;
                for gesture in &scene.gestures {
                    free_ms = actor.perform(*gesture, free_ms) + 900;
                }
                let shots = actor.track(free_ms, 10);
                let waiting = looped(&scene.puppet, &shots[..30], 0..12, scene.seed);
                wire_frames(&splice(&waiting, &scene.film(&shots), 3000))
            },
            reasons: &[Code::LoopSuspect],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.continuity.loops_max = 1000),
        },
        Attack {
            name: "frames sent twice",
            actions: TURN_FIRST,
            film: |scene| wire_frames(&duplicated(&scene.honest(), 8, 3)),
            reasons: &[Code::DuplicateFrames],
            decision: v1::Decision::Fail,
            // Equal bytes are also equal pictures, which another check finds.
            relax: Some(|limits| {
                limits.admission.repeated_files_max = 3;
                limits.continuity.repeated_pictures_max = 3;
            }),
        },
        Attack {
            name: "one picture in different files",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = duplicated(&scene.honest(), 8, 3);
                (0..).zip(&mut frames).for_each(|(number, frame)| insert_comment(frame, number));
                wire_frames(&frames)
            },
            reasons: &[Code::DuplicateFrames],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.continuity.repeated_pictures_max = 3),
        },
        Attack {
            name: "frames missing in a movement",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = wire_frames(&scene.honest());
                let (start, end) = (2700, 3000);
                frames.retain(|frame| !(start..=end).contains(&frame.capture_unix_ms));
                frames
            },
            reasons: &[Code::TimeGap],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.admission.gap_max = Duration::from_secs(1)),
        },
    ]
}

/// Attacks with streams that no camera at the counter sends.
fn stream_attacks() -> Vec<Attack> {
    vec![
        Attack {
            name: "second face in the middle of an action",
            actions: TURN_FIRST,
            film: |scene| {
                let shots = scene.shots();
                let mut aside = shots.clone();
                for shot in &mut aside {
                    shot.pose.transform.shift[0] -= 95.0;
                }
                let two = second_face(&scene.puppet, &puppet(OTHER), &shots, scene.seed);
                wire_frames(&splice(&scene.film(&aside), &two, 2500))
            },
            reasons: &[Code::MultipleFaces],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.track.second_area_max = 2.0),
        },
        Attack {
            name: "4 frames a second",
            actions: TURN_FIRST,
            film: |scene| wire_frames(&scene.film(&scene.shots_at(4))),
            reasons: &[Code::FpsTooLow],
            decision: v1::Decision::Retry,
            // Four frames per second are also gaps.
            relax: Some(|limits| {
                limits.admission.rate_min = 3.0;
                limits.admission.gap_max = Duration::from_secs(1);
            }),
        },
        Attack {
            name: "6 frames a second",
            actions: TURN_FIRST,
            film: |scene| wire_frames(&scene.film(&scene.shots_at(6))),
            reasons: &[Code::FpsTooLow],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.admission.rate_min = 5.0),
        },
        Attack {
            name: "clock that goes back",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = wire_frames(&scene.honest());
                frames[12].capture_unix_ms -= 110;
                frames
            },
            reasons: &[Code::ClockDrift],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.admission.clock_back_max = Duration::from_millis(500)),
        },
        Attack {
            name: "camera that changes its mirroring",
            actions: TURN_FIRST,
            film: |scene| {
                let shots = scene.shots();
                let plain = wire_frames(&scene.film(&shots[..60]));
                let rest = mirrored(&scene.puppet, &shots, scene.seed);
                let rest = wire_frames(&rest).into_iter().skip(60);
                plain.into_iter().chain(rest.map(flag_as_mirrored)).collect()
            },
            reasons: &[Code::InjectionSuspect],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.admission.format_changes_max = 1),
        },
    ]
}

fn flat_print() -> Puppet {
    let (picture, points) = portrait(CUSTOMER);
    Puppet::flat_print(&picture, &points)
}

fn bent_print(radius_cm: f32) -> Puppet {
    let (picture, points) = portrait(CUSTOMER);
    Puppet::bent_print(&picture, &points, radius_cm)
}

/// Yaw of turned paper, in degrees.
const PAPER_TURNED: f32 = 45.0;

fn film_turned_print(scene: &Scene, print: Puppet) -> Vec<v1::Frame> {
    let turns = TurnYaws { straight: 0.0, left: PAPER_TURNED, right: -PAPER_TURNED };
    let actor = Actor::new(scene.seed, turns);
    let shots = Performance::scripted(actor, &scene.gestures, 10).shots;
    wire_frames(&film(&print, &turned_print(&shots), scene.seed))
}

/// Films a screen bent to a radius of 8 cm. It turns as paper does, but shows lids and lips.
fn film_bent_screen(scene: &Scene) -> Vec<FilmedFrame> {
    let turns = TurnYaws { straight: 0.0, left: 55.0, right: -55.0 };
    let actor = Actor::new(scene.seed, turns);
    let shots = Performance::scripted(actor, &scene.gestures, 10).shots;
    film(&bent_print(8.0), &shots, scene.seed)
}

/// Writes a number into a frame's file without changing a pixel.
fn insert_comment(frame: &mut FilmedFrame, number: u16) {
    let [high, low] = number.to_be_bytes();
    // A comment segment behind the two bytes that begin a JPEG: marker, length including itself,
    // text.
    frame.jpeg.splice(2..2, [0xFF, 0xFE, 0x00, 0x04, high, low]);
}

fn flag_as_mirrored(frame: v1::Frame) -> v1::Frame {
    v1::Frame { mirrored: true, ..frame }
}

/// Unusual cameras, each with the right flag.
const CAMERAS: [fn(&Scene) -> Vec<v1::Frame>; 2] = [
    |scene| {
        let frames = wire_frames(&mirrored(&scene.puppet, &scene.shots(), scene.seed));
        frames.into_iter().map(flag_as_mirrored).collect()
    },
    |scene| {
        let shoot = |shot: &Shot| {
            let picture = shoot(&scene.puppet, shot, scene.seed);
            FilmedFrame::new(shot.at_ms, &rotate_left(&picture))
        };
        let frames: Vec<FilmedFrame> = scene.shots().iter().map(shoot).collect();
        let rotated = |frame| v1::Frame { rotation_degrees: 90, ..frame };
        wire_frames(&frames).into_iter().map(rotated).collect()
    },
];

/// Rotates a picture by 90 degrees counterclockwise, so that 90 degrees clockwise set it upright.
fn rotate_left(picture: &Picture) -> Picture {
    let mut lying = Picture::filled(picture.height, picture.width, [0; 3]);
    for y in 0..lying.height {
        for x in 0..lying.width {
            lying.put(x, y, picture.get(picture.width - 1 - y, x).map(f32::from));
        }
    }
    lying
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_or_rotated_camera_that_says_so_passes() {
    let _shared = REAL_TIME_LOCK.read().await;
    let judge = |camera: usize| async move {
        // An index that no attack has.
        let index = 100 + camera;
        let frames = film_attack(index, TURN_FIRST, CAMERAS[camera]).await;
        evaluate_frames(&mut client().await, index, TURN_FIRST, &frames).await
    };
    for result in join_all((0..CAMERAS.len()).map(judge)).await {
        assert_eq!(result.decision(), v1::Decision::Pass, "{}", describe_result(&result));
    }
}

/// A cheat who acts at the wrong time, and what must stop the cheat.
struct Mistimed {
    name: &'static str,
    /// A portrait that no other case uses: the same person at the same moment would be a replayed
    /// frame.
    portrait: &'static str,
    react: fn(&mut Actor, Gesture, u64),
    reason: Code,
    /// Relaxes the limit that stops the cheat.
    relax: fn(&mut SessionLimits),
}

const MISTIMED: [Mistimed; 3] = [
    Mistimed {
        name: "recording that begins with the prompt",
        portrait: "grace_hopper.jpg",
        react: |actor, gesture, now_ms| match gesture {
            // Reaction times of blinks are not judged.
            Gesture::Blink => {
                actor.prompt(gesture, now_ms);
            }
            _ => {
                actor.perform(gesture, now_ms.saturating_sub(200));
            }
        },
        reason: Code::TooEarly,
        relax: |limits| limits.steps.reaction_min = Duration::ZERO,
    },
    Mistimed {
        name: "action after its time",
        portrait: "astronaut.png",
        react: |actor, gesture, now_ms| {
            let is_first = now_ms < 4000;
            actor.perform(gesture, now_ms + if is_first { 5500 } else { 500 });
        },
        reason: Code::StepTimeout,
        relax: |limits| {
            limits.steps.step_time_max = Duration::from_secs(12);
            // A longer step also takes more frames.
            limits.admission.frames_measured_max = 400;
        },
    },
    Mistimed {
        name: "action nobody asked for",
        portrait: "impostor_2.jpg",
        react: |actor, gesture, now_ms| {
            let unasked =
                if gesture == Gesture::OpenMouth { Gesture::TurnLeft } else { Gesture::OpenMouth };
            let free_ms = actor.perform(unasked, now_ms + 300);
            actor.perform(gesture, free_ms + 600);
        },
        reason: Code::WrongAction,
        relax: |limits| limits.steps.unprompted_actions_max = 1,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn acting_before_after_or_without_the_prompt_passes_only_without_the_check() {
    let _alone = REAL_TIME_LOCK.write().await;
    let (mut client, models) = (client().await, models());
    for (index, mistimed) in MISTIMED.iter().enumerate().filter(|(index, _)| is_in_part(*index)) {
        let name = mistimed.name;
        let stopped = run_mistimed(&mut client, mistimed, 10 + index as u64).await;
        assert_eq!(
            stopped.decision(),
            v1::Decision::Retry,
            "{name}: {}",
            describe_result(&stopped)
        );
        let first = reason_codes(&stopped.reasons).first().copied();
        assert_eq!(first, Some(mistimed.reason), "{name}: {}", describe_result(&stopped));
        let app = start_relaxed(mistimed.relax, &models).await;
        let mut lenient = liveness_client(channel(app.grpc_address()).await);
        let passed = run_mistimed(&mut lenient, mistimed, 10 + index as u64).await;
        assert_eq!(passed.decision(), v1::Decision::Pass, "{name}: {}", describe_result(&passed));
        drop(lenient);
        app.stop().await;
    }
}

async fn run_mistimed(client: &mut Client, mistimed: &Mistimed, seed: u64) -> v1::LivenessResult {
    let Mistimed { portrait, react, reason, .. } = mistimed;
    let request = session_request(&format!("mistimed-{reason:?}"), portrait, v1::Assurance::Stream);
    let session = create_session(client, request).await;
    let (_, result) =
        run_stream(client, &session, portrait, (puppet(portrait), seed), react).await.unwrap();
    result
}
