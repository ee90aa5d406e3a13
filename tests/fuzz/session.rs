//! Fuzzes a liveness session: the rules of a session hold for any frames that a client claims to
//! send and any values that are measured on them.
#![no_main]

mod mutation;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use menshen::face::decision::{Decision, Thresholds};
use menshen::face::{Embedding, SpaceId};
use menshen::image::{Orientation, Rotation};
use menshen::liveness::synthetic::{Head, difference_hash, measures_of};
use menshen::liveness::{
    Action, Admission, Assurance, Event, FrameJudgement, FrameMeta, STEPS, Session, SessionEnd,
    SessionLimits, decide_session, draw_actions,
};
use mutation::mutate;

/// Bytes that describe one movement of the head.
const MOVEMENT: usize = 12;

/// A session, with the events it has sent so far and the head of its client.
struct CheckedSession {
    session: Session,
    limits: SessionLimits,
    prompted: usize,
    done: usize,
    is_finished: bool,
    /// Sequence number and capture time of the last admitted frame.
    last: Option<(u32, Duration)>,
    /// Total bytes of the admitted frames.
    bytes: usize,
    head: Head,
    sequence: u32,
    now: Duration,
}

impl CheckedSession {
    fn new(header: u8) -> Self {
        let assurance = if header & 1 == 0 { Assurance::Stream } else { Assurance::Batch };
        let mut limits = SessionLimits::default();
        limits.continuity.identity_min = Some(0.5);
        // The head of a fuzzer jumps. Without these limits the fuzzer reaches more of the rules.
        if header & 2 == 0 {
            limits.track.jump_eyes_max = f64::INFINITY;
            limits.track.jump_size_max = f64::INFINITY;
            limits.track.jump_turn_max = f64::INFINITY;
            limits.continuity.repeated_pictures_max = usize::MAX;
            limits.continuity.loops_max = usize::MAX;
        }
        let actions: [Action; STEPS] = draw_actions(u128::from(header >> 2));
        Self {
            session: Session::new(actions, assurance, limits.clone(), Duration::ZERO),
            limits,
            prompted: 0,
            done: 0,
            is_finished: false,
            last: None,
            bytes: 0,
            head: Head::default(),
            sequence: 0,
            now: Duration::from_secs(1),
        }
    }

    /// Moves the head to another pose, frame by frame, and sends these frames.
    fn send_movement(&mut self, movement: &[u8; MOVEMENT]) {
        let [flags, wait, frames, yaw, pitch, eyes, mouth, x, y, step, lead, live] = *movement;
        let signed = |byte: u8| f64::from(byte as i8);
        let (from, frames) = (self.head, u32::from(frames % 32) + 1);
        let to = Head {
            yaw: signed(yaw) / 3.0,
            pitch: signed(pitch) / 5.0,
            eyes: f64::from(eyes) / 400.0,
            mouth: f64::from(mouth) / 300.0,
            moved: [signed(x) / 4.0, signed(y) / 4.0],
        };
        for at in 1..=frames {
            self.now += Duration::from_millis(u64::from(wait));
            self.head = interpolate(&from, &to, f64::from(at) / f64::from(frames));
            self.sequence = self
                .sequence
                .wrapping_add(1 + u32::from(step >> 4))
                .wrapping_sub((step & 15).into());
            let (late, early) = (u64::from(lead >> 4) * 150, u64::from(lead & 15) * 150);
            let rotation = if flags & 4 == 0 { Rotation::None } else { Rotation::Quarter };
            let orient =
                if flags & 2 == 0 { Orientation::turned } else { Orientation::turned_and_mirrored };
            let meta = FrameMeta {
                sequence: self.sequence,
                captured: (self.now + Duration::from_millis(early))
                    .saturating_sub(Duration::from_millis(late)),
                bytes: 5_000 << (flags >> 5),
                orientation: orient(rotation),
            };
            let digest = if flags & 1 == 0 { digest(self.sequence) } else { [live; 32] };
            self.send_frame(&meta, digest, live);
        }
    }

    fn send_frame(&mut self, meta: &FrameMeta, digest: [u8; 32], live: u8) {
        let admitted = self.session.admit(meta, digest, self.now);
        if admitted.is_ok() {
            self.check_admitted(meta);
        }
        if admitted == Ok(Admission::Measure) {
            let mut measures = measures_of(&self.head);
            measures.difference_hash = difference_hash(self.sequence);
            let result = self.session.observe(meta.sequence, &measures, self.now);
            self.check_events(&result.events);
            if result.is_chosen {
                let events = self.session.add_judgement(meta.sequence, judged_frame(live));
                self.check_events(&events);
            }
        }
        let events = self.session.check_time_limits(self.now);
        self.check_events(&events);
    }

    /// Checks that an admitted frame is new, in order, and within the limits of a session.
    fn check_admitted(&mut self, meta: &FrameMeta) {
        if let Some((sequence, captured)) = self.last {
            assert!(meta.sequence > sequence && meta.captured >= captured, "{meta:?}");
        }
        self.last = Some((meta.sequence, meta.captured));
        self.bytes += meta.bytes;
        let limits = &self.limits.admission;
        assert!(meta.bytes <= limits.frame_bytes_max && self.bytes <= limits.session_bytes_max);
    }

    /// Checks that each prompt follows the end of the one before, and that no event follows the
    /// end.
    fn check_events(&mut self, events: &[Event]) {
        for event in events {
            assert!(!self.is_finished, "{event:?} behind the end");
            match event {
                Event::Prompt(prompt) => {
                    // A step during which the face was lost is prompted again.
                    assert_eq!(prompt.step, self.done);
                    self.prompted = prompt.step + 1;
                }
                Event::StepDone(step) => {
                    assert_eq!((*step, self.prompted), (self.done, self.done + 1));
                    self.done += 1;
                }
                Event::Guidance(_) => {}
                Event::Finished => self.is_finished = true,
            }
        }
    }

    /// Checks that only a session with all steps done can pass, and returns the decision.
    fn check_end(&self) -> Decision {
        let outcome = self.session.outcome();
        if outcome.ending == SessionEnd::Done {
            assert_eq!(self.done, STEPS);
        }
        let thresholds = Thresholds::Calibrated { pass_min: 0.4, review_min: 0.3, generic: false };
        let similarity = self.session.matched_embedding().map(|_| 0.7);
        let verdict = decide_session(&outcome, similarity, thresholds, 0.8);
        if verdict.decision == Decision::Pass {
            assert!(self.done == STEPS && outcome.pad.frames >= self.limits.judging.frames_min);
            assert!(similarity.is_some() && outcome.checks.iter().all(|check| check.passed));
        }
        if !self.session.is_open() {
            assert_eq!(self.session.prompt(), None);
        }
        verdict.decision
    }
}

fn judged_frame(live: u8) -> FrameJudgement {
    let (embedding, _) = Embedding::from_raw(&[1.0, 0.1], SpaceId::new("fuzz")).unwrap();
    // A network may also output NaN.
    let pad_score = if live == 0 { f64::NAN } else { f64::from(live) / 255.0 };
    FrameJudgement { embedding, norm: 12.0, pad_score }
}

/// Returns the pose at `share` of the way between two poses.
fn interpolate(from: &Head, to: &Head, share: f64) -> Head {
    let mix = |from: f64, to: f64| from + (to - from) * share;
    Head {
        yaw: mix(from.yaw, to.yaw),
        pitch: mix(from.pitch, to.pitch),
        eyes: mix(from.eyes, to.eyes),
        mouth: mix(from.mouth, to.mouth),
        moved: [mix(from.moved[0], to.moved[0]), mix(from.moved[1], to.moved[1])],
    }
}

fn digest(sequence: u32) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&sequence.to_be_bytes());
    digest
}

/// Returns movements that pass, for the fuzzer to mutate: the actions of a session with this
/// header, each half a second after its prompt.
fn honest_movements(header: u8) -> Vec<u8> {
    const REST: [u8; 5] = [0, 0, 120, 9, 0];
    let movement = |frames: u8, [yaw, pitch, eyes, mouth, x]: [u8; 5]| {
        [0, 100, frames - 1, yaw, pitch, eyes, mouth, x, 0, 0, 0, 242]
    };
    let there_and_back = |pose: [u8; 5]| {
        vec![movement(5, pose), movement(2, pose), movement(5, REST), movement(1, REST)]
    };
    let closed = [0, 0, 28, 9, 0];
    let blink = [movement(1, closed), movement(3, closed), movement(1, REST), movement(4, REST)];
    let mut movements = Vec::new();
    for action in draw_actions(u128::from(header >> 2)) {
        movements.push(movement(20, REST));
        movements.extend(match action {
            Action::TurnLeft => there_and_back([81, 0, 120, 9, 0]),
            Action::TurnRight => there_and_back([81_u8.wrapping_neg(), 0, 120, 9, 0]),
            Action::Nod => there_and_back([0, 85, 120, 9, 0]),
            Action::OpenMouth => there_and_back([0, 0, 120, 189, 0]),
            Action::Blink => [blink, blink].concat(),
        });
    }
    movements.push(movement(20, REST));
    movements.concat()
}

fn run_session(header: u8, movements: &[u8]) -> Decision {
    let mut session = CheckedSession::new(header);
    for movement in movements.as_chunks::<MOVEMENT>().0 {
        session.send_movement(movement);
    }
    session.check_end()
}

fuzz_target!(
    init: for header in (0..=u8::MAX).filter(|header| header & 3 == 0) {
        assert_eq!(run_session(header, &honest_movements(header)), Decision::Pass, "{header}");
    },
    |bytes: &[u8]| {
        if let Some((header, movements)) = bytes.split_first() {
            run_session(*header, movements);
            run_session(*header, &mutate(honest_movements(*header), movements));
        }
    }
);
