//! Cheats fail for what they do, and pass once the limit that stops them is moved away.
//!
//! Where an attack is about one action, everything else is done honestly, as if the cheat had
//! solved it.

use std::time::Duration;

use futures_util::future::join_all;
use menshen::app::App;
use menshen::liveness::Limits;
use menshen::proto::v1;
use menshen::proto::v1::ReasonCode as Code;
use tempfile::TempDir;

use super::{
    Client, PACE, RECORDED_AFTER_MS, client, client_of, create, created_unix_ms, drawn, gesture,
    live_config, models, order, puppet, recording, run, story, wire,
};
use crate::puppet::attacks::{
    duplicated, looped, mirrored, moved_in_plane, second_face, splice, still, turned_print,
};
use crate::puppet::{
    Actor, FilmedFrame, Gesture, Performance, Picture, Puppet, Shot, TurnYaws, film, shoot,
};
use crate::support::{channel, codes, is_in_part, portrait};

/// The customer whose portrait it is, and somebody else.
const CUSTOMER: &str = "person_a_1.jpg";
const OTHER: &str = "impostor_1.jpg";

/// Rows that are judged at the same time.
const AT_ONCE: usize = 4;

const TURN_FIRST: [v1::Action; 3] =
    [v1::Action::TurnLeft, v1::Action::Blink, v1::Action::OpenMouth];
const BLINK_FIRST: [v1::Action; 3] =
    [v1::Action::Blink, v1::Action::TurnLeft, v1::Action::OpenMouth];

/// A recording of a cheat, and what must stop it.
struct Attack {
    name: &'static str,
    /// What the session asks for.
    actions: [v1::Action; 3],
    /// The frames, on a clock that starts at zero.
    film: fn(&Scene) -> Vec<v1::Frame>,
    /// The first reason is one of these.
    reasons: &'static [Code],
    decision: v1::Decision,
    /// Moves away the limit that stops it; `None` where no one limit does.
    relax: Option<fn(&mut Limits)>,
}

/// What an attack is made of.
struct Scene {
    puppet: Puppet,
    gestures: Vec<Gesture>,
    seed: u64,
}

impl Scene {
    fn actor(&self) -> Actor {
        Actor::new(self.seed, self.puppet.turn_yaws())
    }

    /// What the customer would do.
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

fn sent(frames: &[FilmedFrame]) -> Vec<v1::Frame> {
    (0..).zip(frames).map(|(sequence, frame)| wire(frame, sequence, 0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_fails_for_its_reason_and_passes_without_the_check() {
    let _shared = PACE.read().await;
    let models = models();
    let attacks = pictures().into_iter().chain(orders()).chain(cuts()).chain(streams());
    let attacks: Vec<(usize, Attack)> =
        attacks.enumerate().filter(|(row, _)| is_in_part(*row)).collect();
    let mut wrong = Vec::new();
    for some in attacks.chunks(AT_ONCE) {
        let judged = some.iter().map(|(row, attack)| judge(*row, attack, &models));
        wrong.extend(join_all(judged).await.into_iter().flatten());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the answers to an attack.
async fn judge(row: usize, attack: &Attack, models: &TempDir) -> Vec<String> {
    let frames = filmed(row, attack.actions, attack.film).await;
    let stopped = evaluate(&mut client().await, row, attack.actions, &frames).await;
    let first = codes(&stopped.reasons).first().copied();
    let is_stopped = stopped.decision() == attack.decision
        && first.is_some_and(|code| attack.reasons.contains(&code));
    let mut wrong = Vec::new();
    if !is_stopped {
        wrong.push(format!("{}: {}", attack.name, story(&stopped)));
    }
    if let Some(relax) = attack.relax {
        let app = relaxed(relax, models).await;
        let mut client = client_of(channel(app.grpc_address()).await);
        let passed = evaluate(&mut client, row, attack.actions, &frames).await;
        if passed.decision() != v1::Decision::Pass {
            wrong.push(format!("{}, without the check: {}", attack.name, story(&passed)));
        }
        drop(client);
        app.stop().await;
    }
    wrong
}

async fn filmed(
    row: usize,
    actions: [v1::Action; 3],
    film: fn(&Scene) -> Vec<v1::Frame>,
) -> Vec<v1::Frame> {
    let filming = move || {
        // No seed of another test: a frame that was shown before is an attack of its own.
        let seed = 1000 + row as u64;
        film(&Scene { puppet: puppet(CUSTOMER), gestures: actions.map(gesture).into(), seed })
    };
    tokio::task::spawn_blocking(filming).await.unwrap()
}

/// Sends frames as the recording of a session that asks for these actions.
async fn evaluate(
    client: &mut Client,
    row: usize,
    actions: [v1::Action; 3],
    frames: &[v1::Frame],
) -> v1::LivenessResult {
    let session = drawn(client, &format!("attack-{row}"), CUSTOMER, actions).await;
    let begun_unix_ms = created_unix_ms(&session) + RECORDED_AFTER_MS;
    let mut request = recording(&session, CUSTOMER, &[]);
    request.frames = frames.to_vec();
    for frame in &mut request.frames {
        frame.capture_unix_ms += begun_unix_ms;
    }
    client.evaluate(request).await.unwrap().into_inner()
}

/// A server with other limits.
async fn relaxed(relax: fn(&mut Limits), models: &TempDir) -> App {
    let mut config = live_config(models);
    config.server.drain_grace_ms = 0;
    let mut app = App::bind(config).await.unwrap();
    relax(&mut app.limits);
    app.load().await.unwrap();
    app
}

/// Photographs instead of a head.
fn pictures() -> Vec<Attack> {
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
        attack("still photo", |s| sent(&s.film(&still(&s.shots()))), &[Code::StepTimeout], retry),
        attack(
            "photo moved and rotated in its plane",
            |s| sent(&s.film(&moved_in_plane(&s.shots()))),
            &[Code::StepTimeout],
            retry,
        ),
        attack("flat print turned", |s| turned(s, flat_print()), &[Code::StepTimeout], retry),
        attack(
            "print bent about 8 cm turned",
            |s| turned(s, bent_print(8.0)),
            &[Code::StepTimeout, Code::PlanarFace],
            retry,
        ),
        attack(
            "print bent about 5 cm turned",
            |s| turned(s, bent_print(5.0)),
            &[Code::StepTimeout, Code::PlanarFace],
            retry,
        ),
        Attack {
            name: "bent screen turned, with lids and lips",
            actions: TURN_FIRST,
            film: |scene| sent(&bent_screen(scene)),
            reasons: &[Code::StepTimeout],
            decision: v1::Decision::Retry,
            // It does not look turned far enough.
            relax: Some(|limits| {
                limits.gestures.turn.enter = 0.25;
                limits.gestures.turn.leave = 0.22;
            }),
        },
    ]
}

/// The wrong thing, or the right one for another session.
fn orders() -> Vec<Attack> {
    vec![
        Attack {
            name: "wrong order of actions",
            actions: TURN_FIRST,
            film: |scene| {
                let gestures = [Gesture::OpenMouth, Gesture::Blink, Gesture::TurnLeft];
                sent(&scene.film(&Performance::scripted(scene.actor(), &gestures, 10).shots))
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
                sent(&scene.film(&actor.track(free_ms, 10)))
            },
            reasons: &[Code::WrongAction],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.steps.wrong_actions_max = 1),
        },
        Attack {
            name: "mirrored stream whose flag says otherwise",
            actions: TURN_FIRST,
            film: |scene| sent(&mirrored(&scene.puppet, &scene.shots(), scene.seed)),
            reasons: &[Code::WrongAction],
            decision: v1::Decision::Retry,
            relax: None,
        },
    ]
}

/// Streams that are not of one piece.
fn cuts() -> Vec<Attack> {
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
                sent(&splice(&scene.film(&shots), &scene.film(&aside), 2700))
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
                // While both rest, and the eyes are not looked at any more.
                sent(&splice(&scene.honest(), &second, 7650))
            },
            reasons: &[Code::IdentitySwitch, Code::JumpCut],
            decision: v1::Decision::Fail,
            // Two heads are not at one place either, and have other levels at rest, for which
            // there are checks of their own.
            relax: Some(|limits| {
                limits.continuity.identity_min = Some(-1.0);
                limits.track.jump_eyes_max = 9.0;
                limits.track.jump_size_max = 9.0;
                limits.track.jump_turn_max = 9.0;
                limits.gestures.blink_nod_max = 9.0;
                limits.steps.wrong_actions_max = 9;
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
                sent(&splice(&waiting, &scene.film(&shots), 3000))
            },
            reasons: &[Code::LoopSuspect],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.continuity.loops_max = 1000),
        },
        Attack {
            name: "frames sent twice",
            actions: TURN_FIRST,
            film: |scene| sent(&duplicated(&scene.honest(), 8, 3)),
            reasons: &[Code::DuplicateFrames],
            decision: v1::Decision::Fail,
            // Equal bytes are equal pictures, for which there is a check of its own.
            relax: Some(|limits| {
                limits.admission.repeated_bytes_max = 3;
                limits.continuity.repeated_pictures_max = 3;
            }),
        },
        Attack {
            name: "one picture in different files",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = duplicated(&scene.honest(), 8, 3);
                (0..).zip(&mut frames).for_each(|(number, frame)| comment(frame, number));
                sent(&frames)
            },
            reasons: &[Code::DuplicateFrames],
            decision: v1::Decision::Fail,
            relax: Some(|limits| limits.continuity.repeated_pictures_max = 3),
        },
        Attack {
            name: "frames missing in a movement",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = sent(&scene.honest());
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

/// Streams that are not what a camera at the counter sends.
fn streams() -> Vec<Attack> {
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
                sent(&splice(&scene.film(&aside), &two, 2500))
            },
            reasons: &[Code::MultipleFaces],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.track.second_area_max = 2.0),
        },
        Attack {
            name: "4 frames a second",
            actions: TURN_FIRST,
            film: |scene| sent(&scene.film(&scene.shots_at(4))),
            reasons: &[Code::FpsTooLow],
            decision: v1::Decision::Retry,
            // Four frames a second are also gaps.
            relax: Some(|limits| {
                limits.admission.rate_min = 3.0;
                limits.admission.gap_max = Duration::from_secs(1);
            }),
        },
        Attack {
            name: "6 frames a second",
            actions: TURN_FIRST,
            film: |scene| sent(&scene.film(&scene.shots_at(6))),
            reasons: &[Code::FpsTooLow],
            decision: v1::Decision::Retry,
            relax: Some(|limits| limits.admission.rate_min = 5.0),
        },
        Attack {
            name: "clock that goes back",
            actions: TURN_FIRST,
            film: |scene| {
                let mut frames = sent(&scene.honest());
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
                let plain = sent(&scene.film(&shots[..60]));
                let rest = mirrored(&scene.puppet, &shots, scene.seed);
                let rest = sent(&rest).into_iter().skip(60);
                plain.into_iter().chain(rest.map(flagged)).collect()
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

/// Degrees that paper is turned by.
const PAPER_TURNED: f32 = 45.0;

fn turned(scene: &Scene, print: Puppet) -> Vec<v1::Frame> {
    let turns = TurnYaws { straight: 0.0, left: PAPER_TURNED, right: -PAPER_TURNED };
    let actor = Actor::new(scene.seed, turns);
    let shots = Performance::scripted(actor, &scene.gestures, 10).shots;
    sent(&film(&print, &turned_print(&shots), scene.seed))
}

/// A screen bent about 8 cm: it turns as paper does, and what it shows has lids and lips.
fn bent_screen(scene: &Scene) -> Vec<FilmedFrame> {
    let turns = TurnYaws { straight: 0.0, left: 55.0, right: -55.0 };
    let actor = Actor::new(scene.seed, turns);
    let shots = Performance::scripted(actor, &scene.gestures, 10).shots;
    film(&bent_print(8.0), &shots, scene.seed)
}

/// Writes a number into the file of a frame that no pixel shows.
fn comment(frame: &mut FilmedFrame, number: u16) {
    let [high, low] = number.to_be_bytes();
    // Behind the two bytes that begin a JPEG: marker, length with itself, text.
    frame.jpeg.splice(2..2, [0xFF, 0xFE, 0x00, 0x04, high, low]);
}

fn flagged(frame: v1::Frame) -> v1::Frame {
    v1::Frame { mirrored: true, ..frame }
}

/// Ways to hold a camera, each honest about it.
const CAMERAS: [fn(&Scene) -> Vec<v1::Frame>; 2] = [
    |scene| {
        let frames = sent(&mirrored(&scene.puppet, &scene.shots(), scene.seed));
        frames.into_iter().map(flagged).collect()
    },
    |scene| {
        let shoot = |shot: &Shot| {
            let picture = shoot(&scene.puppet, shot, scene.seed);
            FilmedFrame::new(shot.at_ms, &lying(&picture))
        };
        let frames: Vec<FilmedFrame> = scene.shots().iter().map(shoot).collect();
        let rotated = |frame| v1::Frame { rotation_degrees: 90, ..frame };
        sent(&frames).into_iter().map(rotated).collect()
    },
];

/// What 90 degrees clockwise set upright.
fn lying(picture: &Picture) -> Picture {
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
    let _shared = PACE.read().await;
    let judge = |row: usize| async move {
        // Rows that no attack has.
        let row = 100 + row;
        let frames = filmed(row, TURN_FIRST, CAMERAS[row - 100]).await;
        evaluate(&mut client().await, row, TURN_FIRST, &frames).await
    };
    for result in join_all((0..CAMERAS.len()).map(judge)).await {
        assert_eq!(result.decision(), v1::Decision::Pass, "{}", story(&result));
    }
}

/// A cheat who acts at the wrong time, and what must stop him.
struct Mistimed {
    name: &'static str,
    /// Of its own: the same person at the same moment would be a replayed frame.
    portrait: &'static str,
    react: fn(&mut Actor, Gesture, u64),
    reason: Code,
    /// Moves away the limit that stops it.
    relax: fn(&mut Limits),
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
            limits.steps.step = Duration::from_secs(12);
            // It also takes more frames.
            limits.admission.frames_max = 400;
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
        relax: |limits| limits.steps.wrong_actions_max = 1,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn whoever_acts_before_after_or_without_the_prompt_passes_only_without_the_check() {
    let _alone = PACE.write().await;
    let (mut client, models) = (client().await, models());
    for (row, mistimed) in MISTIMED.iter().enumerate().filter(|(row, _)| is_in_part(*row)) {
        let name = mistimed.name;
        let stopped = mistime(&mut client, mistimed, 10 + row as u64).await;
        assert_eq!(stopped.decision(), v1::Decision::Retry, "{name}: {}", story(&stopped));
        let first = codes(&stopped.reasons).first().copied();
        assert_eq!(first, Some(mistimed.reason), "{name}: {}", story(&stopped));
        let app = relaxed(mistimed.relax, &models).await;
        let mut lenient = client_of(channel(app.grpc_address()).await);
        let passed = mistime(&mut lenient, mistimed, 10 + row as u64).await;
        assert_eq!(passed.decision(), v1::Decision::Pass, "{name}: {}", story(&passed));
        drop(lenient);
        app.stop().await;
    }
}

async fn mistime(client: &mut Client, mistimed: &Mistimed, seed: u64) -> v1::LivenessResult {
    let Mistimed { portrait, react, reason, .. } = mistimed;
    let order = order(&format!("mistimed-{reason:?}"), portrait, v1::Assurance::Stream);
    let session = create(client, order).await;
    let (_, result) =
        run(client, &session, portrait, (puppet(portrait), seed), react).await.unwrap();
    result
}
