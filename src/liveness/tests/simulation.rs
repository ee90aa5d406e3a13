//! Simulation of a session: a synthetic customer or attacker reacts to prompts, and the frames are
//! sent, measured and judged.

use std::time::Duration;

use crate::face::decision::{Decision, Thresholds};
use crate::face::{Embedding, ReasonCode, SpaceId};
use crate::image::Orientation;
use crate::liveness::synthetic::{Head, difference_hash, measures_with};
use crate::liveness::{
    Action, Admission, Assurance, Detail, Event, FrameJudgement, FrameMeasures, FrameMeta, Session,
    SessionLimits, SessionVerdict, decide_session,
};

/// A frame that is captured and sent.
pub(super) struct SimulatedFrame {
    /// Seconds since the camera started.
    pub(super) time: f64,
    /// Seconds since the prompt of the current action, and the action.
    pub(super) action_since: Option<(f64, Action)>,
    /// Steps done so far.
    pub(super) done: usize,
    pub(super) head: Head,
    pub(super) measures: FrameMeasures,
    pub(super) meta: FrameMeta,
    /// Digest of the file.
    pub(super) digest: [u8; 32],
    /// Seconds from capture to arrival.
    pub(super) delay: f64,
    /// The frame is lost on the network.
    pub(super) is_lost: bool,
    /// Index of the person that the embedder recognises.
    pub(super) person: usize,
}

/// Parameters of a simulated session.
#[derive(Clone, Copy)]
pub(super) struct Simulation {
    pub(super) assurance: Assurance,
    pub(super) frames_a_second: f64,
    /// Seconds from a prompt to the start of the movement.
    pub(super) reaction: f64,
    /// Seconds of a turn or a nod from neutral to neutral.
    pub(super) movement_seconds: f64,
    /// Standard deviation of the points, in inter-eye distances.
    pub(super) noise: f64,
    pub(super) seed: u64,
    /// The actions performed, one after the other, for a prompted action.
    pub(super) answer: fn(Action) -> Vec<Action>,
    /// The judgements arrive only after the end of the session.
    pub(super) is_judged_late: bool,
    /// Changes that an attacker makes to the frame.
    pub(super) tamper: fn(&mut SimulatedFrame),
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            assurance: Assurance::Stream,
            frames_a_second: 10.0,
            reaction: 0.5,
            movement_seconds: 1.4,
            // The limits were chosen for 1.5 %. With that noise, 3 of 646 honest sessions at 10
            // frames per second are taken for a cut. Tests must not depend on such luck.
            noise: 0.01,
            seed: 1,
            answer: |asked| vec![asked],
            is_judged_late: false,
            tamper: |_| (),
        }
    }
}

/// The result of a simulated session.
#[derive(Debug)]
pub(super) struct SimulationResult {
    pub(super) verdict: SessionVerdict,
    pub(super) events: Vec<Event>,
    pub(super) judged: usize,
    pub(super) thinned: usize,
    /// Number of steps that were done when the session last needed the iris network.
    pub(super) eyes_wanted: Option<usize>,
}

impl SimulationResult {
    pub(super) fn is_passed(&self) -> bool {
        self.verdict.decision == Decision::Pass
    }

    pub(super) fn first_reason(&self) -> Option<ReasonCode> {
        self.verdict.reasons.first().map(|reason| reason.code)
    }
}

/// Limits whose identity check fits the persons of the simulation.
pub(super) fn limits() -> SessionLimits {
    let mut limits = SessionLimits::default();
    limits.continuity.identity_min = Some(0.5);
    limits
}

/// Longer than any session.
const SECONDS_MAX: f64 = 60.0;

impl Simulation {
    /// Runs the session with these actions to its end.
    pub(super) fn run(&self, actions: [Action; 3], limits: &SessionLimits) -> SimulationResult {
        let mut running = RunningSession {
            session: Session::new(actions, self.assurance, limits.clone(), Duration::ZERO),
            prompted: None,
            done: 0,
            events: Vec::new(),
            chosen: Vec::new(),
            eyes_wanted: None,
        };
        let mut random = SeededRng(self.seed);
        for sequence in 0..(SECONDS_MAX * self.frames_a_second) as u32 {
            if !running.session.is_open() {
                break;
            }
            let time = f64::from(sequence) / self.frames_a_second;
            let mut frame = self.make_frame(sequence, time, &running, &mut random);
            (self.tamper)(&mut frame);
            running.send(frame);
            if !self.is_judged_late {
                running.submit_judgements();
            }
        }
        running.finish()
    }

    fn make_frame(
        &self,
        sequence: u32,
        time: f64,
        running: &RunningSession,
        random: &mut SeededRng,
    ) -> SimulatedFrame {
        let done = running.done;
        let action_since =
            running.prompted.map(|(since, action)| self.current_action(time - since, action));
        let mut head = action_since.map_or_else(Head::default, |(since, action)| {
            self.head_at(action, since - self.reaction)
        });
        // No person sits perfectly still.
        head.moved = [2.0 * (time * 1.3).sin(), 2.0 * (time * 0.9).cos()];
        head.eyes *= 1.0 + 0.05 * random.normal();
        let deviation = self.noise * 75.0;
        let points =
            head.points().map(|point| point.map(|value| value + deviation * random.normal()));
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&sequence.to_be_bytes());
        let meta = FrameMeta {
            sequence,
            captured: Duration::from_secs_f64(1000.0 + time),
            bytes: 7_000,
            orientation: Orientation::UPRIGHT,
        };
        let mut measures = measures_with(&head, points);
        measures.difference_hash = difference_hash(sequence);
        SimulatedFrame {
            time,
            action_since,
            done,
            head,
            measures,
            meta,
            digest,
            delay: 0.0,
            is_lost: false,
            person: 0,
        }
    }

    /// Returns the action performed `since` seconds after the prompt, and how many seconds ago it
    /// would have been prompted if it had a prompt of its own.
    fn current_action(&self, since: f64, asked: Action) -> (f64, Action) {
        let each = self.movement_seconds + 0.3;
        let actions = (self.answer)(asked);
        let at = (((since - self.reaction) / each).max(0.0) as usize).min(actions.len() - 1);
        (since - each * at as f64, actions[at])
    }

    /// Returns the head `since` seconds after a movement started.
    fn head_at(&self, action: Action, since: f64) -> Head {
        let bump = smooth_bump(since / self.movement_seconds);
        let neutral = Head::default();
        match action {
            Action::TurnLeft => Head { yaw: 27.0 * bump, ..neutral },
            Action::TurnRight => Head { yaw: -27.0 * bump, ..neutral },
            Action::Nod => Head { pitch: 17.0 * bump, ..neutral },
            Action::OpenMouth => Head { mouth: 0.03 + 0.6 * bump, ..neutral },
            Action::Blink => {
                let is_closed = |start: f64| (start..start + 0.35).contains(&since);
                let eyes = if is_closed(0.0) || is_closed(0.9) { 0.07 } else { neutral.eyes };
                Head { eyes, ..neutral }
            }
        }
    }
}

/// A session while it is simulated.
struct RunningSession {
    session: Session,
    /// Time of the last prompt, and its action.
    prompted: Option<(f64, Action)>,
    done: usize,
    events: Vec<Event>,
    /// Sequence number of each frame to be judged, and the person on it.
    chosen: Vec<(u32, usize)>,
    eyes_wanted: Option<usize>,
}

impl RunningSession {
    /// Sends a frame, measured in the detail that the session needs.
    fn send(&mut self, mut frame: SimulatedFrame) {
        let now = Duration::from_secs_f64(frame.time + frame.delay);
        let sequence = frame.meta.sequence;
        let is_measured = !frame.is_lost
            && self.session.admit(&frame.meta, frame.digest, now) == Ok(Admission::Measure);
        if !is_measured {
            self.events.extend(self.session.check_time_limits(now));
            return;
        }
        let detail = self.session.detail();
        if detail >= Detail::Eyes {
            self.eyes_wanted = Some(self.done);
        }
        if let Some(main) = &mut frame.measures.main {
            main.mesh = main.mesh.filter(|_| detail >= Detail::Mesh);
            main.eyes = main.eyes.filter(|_| detail >= Detail::Eyes);
        }
        let result = self.session.observe(sequence, &frame.measures, now);
        for event in &result.events {
            match event {
                Event::Prompt(prompt) => self.prompted = Some((frame.time, prompt.action)),
                Event::StepDone(_) => self.done += 1,
                Event::Guidance(_) | Event::Finished => {}
            }
        }
        self.events.extend(result.events);
        if result.is_chosen {
            self.chosen.push((sequence, frame.person));
        }
    }

    fn submit_judgements(&mut self) {
        for (sequence, person) in std::mem::take(&mut self.chosen) {
            self.events.extend(self.session.add_judgement(sequence, judgement_of(person)));
        }
    }

    fn finish(mut self) -> SimulationResult {
        self.submit_judgements();
        assert!(!self.session.is_open(), "the simulation was shorter than the session");
        let outcome = self.session.outcome();
        let thresholds = Thresholds::Calibrated { pass_min: 0.4, review_min: 0.3, generic: false };
        let similarity = self.session.matched_embedding().map(|_| 0.7);
        SimulationResult {
            verdict: decide_session(&outcome, similarity, thresholds, 0.8),
            events: self.events,
            judged: outcome.pad.frames,
            thinned: outcome.thinned,
            eyes_wanted: self.eyes_wanted,
        }
    }
}

/// Goes smoothly from 0 to 1 and back while `share` goes from 0 to 1, with a plateau at 1.
fn smooth_bump(share: f64) -> f64 {
    if !(0.0..1.0).contains(&share) {
        return 0.0;
    }
    (1.3 * (share * std::f64::consts::PI).sin().powi(2)).min(1.0)
}

fn judgement_of(person: usize) -> FrameJudgement {
    let mut raw = [0.1_f32; 4];
    raw[person] = 1.0;
    let (embedding, _) = Embedding::from_raw(&raw, SpaceId::new("synthetic")).unwrap();
    FrameJudgement { embedding, norm: 12.0, pad_score: 0.95 }
}

/// A seeded generator, so that every run is the same (Numerical Recipes' 64-bit LCG).
struct SeededRng(u64);

impl SeededRng {
    fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a nearly normal number: the sum of twelve uniform numbers, less its mean.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
