//! The actor: performs gestures when prompted, and sways a little all the time.

use std::f32::consts::TAU;

use crate::raster::Transform;
use crate::split_mix::SplitMix64;
use crate::surface::smooth;
use crate::{Pose, TurnYaws};

/// A movement of the head or the face, from rest back to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gesture {
    /// A turn of the head to the person's own left.
    TurnLeft,
    /// A turn of the head to the person's own right.
    TurnRight,
    /// Two blinks.
    Blink,
    /// A nod, down and up.
    Nod,
    /// A wide opening of the mouth.
    OpenMouth,
}

/// A pose, and the time at which the camera films it.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    /// Time of the shot, in milliseconds since the recording began.
    pub at_ms: u64,
    /// The pose at that time.
    pub pose: Pose,
}

/// Pitch at the peak of a nod, in degrees.
const NOD_PITCH: f32 = 14.0;
/// Range of the time from a prompt to the start of the movement.
const REACTION_MS: [f32; 2] = [400.0, 700.0];
/// Standard deviation of the sensor's noise, in levels of 255.
const NOISE: f32 = 2.0;
/// Fixed schedule: the time of the first prompt, and the rest between a movement and the next
/// prompt.
const FIRST_PROMPT_MS: u64 = 1500;
const REST_MS: u64 = 900;

/// The course of one movement: it rises, holds and falls.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    start_ms: u64,
    rise_ms: u64,
    hold_ms: u64,
    fall_ms: u64,
}

impl Envelope {
    /// Returns the level of the movement at a time, 0 to 1.
    fn level_at(&self, now_ms: u64) -> f32 {
        let since = now_ms as f32 - self.start_ms as f32;
        let rise = smooth(since / self.rise_ms as f32);
        let fall = smooth((since - (self.rise_ms + self.hold_ms) as f32) / self.fall_ms as f32);
        rise - fall
    }

    fn end_ms(&self) -> u64 {
        self.start_ms + self.rise_ms + self.hold_ms + self.fall_ms
    }
}

/// A person in front of the camera. It takes prompts as they come and gives its pose at any time.
#[derive(Debug, Clone)]
pub struct Actor {
    random: SplitMix64,
    sway: Sway,
    turns: TurnYaws,
    movements: Vec<(Gesture, Envelope)>,
}

impl Actor {
    /// Creates an actor with the yaws of its puppet. The seed fixes its sway and its reaction
    /// times.
    pub fn new(seed: u64, turns: TurnYaws) -> Self {
        let mut random = SplitMix64::new(seed);
        let sway = Sway::new(&mut random);
        Self { random, sway, turns, movements: Vec::new() }
    }

    /// Reacts to a prompt sent at `now_ms`. Returns the time at which the movement ends.
    pub fn prompt(&mut self, gesture: Gesture, now_ms: u64) -> u64 {
        let reaction_ms = self.random.between(REACTION_MS[0], REACTION_MS[1]) as u64;
        self.perform(gesture, now_ms + reaction_ms)
    }

    /// Performs a gesture from `start_ms` on, prompted or not. Returns the time at which it ends.
    pub fn perform(&mut self, gesture: Gesture, start_ms: u64) -> u64 {
        let [rise_ms, hold_ms, fall_ms] = match gesture {
            Gesture::TurnLeft | Gesture::TurnRight => [800, 600, 800],
            Gesture::Blink => [100, 300, 100],
            Gesture::Nod => [400, 400, 400],
            Gesture::OpenMouth => [300, 600, 300],
        };
        let envelope = Envelope { start_ms, rise_ms, hold_ms, fall_ms };
        self.movements.push((gesture, envelope));
        if gesture != Gesture::Blink {
            return envelope.end_ms();
        }
        let second = Envelope { start_ms: envelope.end_ms() + 500, ..envelope };
        self.movements.push((gesture, second));
        second.end_ms()
    }

    /// Returns the pose at `now_ms`.
    pub(crate) fn pose(&self, now_ms: u64) -> Pose {
        let mut pose = self.sway.pose(now_ms);
        let TurnYaws { straight, left, right } = self.turns;
        pose.transform.yaw += straight;
        for (gesture, envelope) in &self.movements {
            let level = envelope.level_at(now_ms);
            match gesture {
                Gesture::TurnLeft => pose.transform.yaw += (left - straight) * level,
                Gesture::TurnRight => pose.transform.yaw += (right - straight) * level,
                Gesture::Blink => pose.eyes_closed = pose.eyes_closed.map(|eye| eye.max(level)),
                Gesture::Nod => pose.transform.pitch += NOD_PITCH * level,
                Gesture::OpenMouth => pose.mouth_open = pose.mouth_open.max(level),
            }
        }
        pose
    }

    /// Returns the shot at `at_ms`.
    pub fn shot(&self, at_ms: u64) -> Shot {
        Shot { at_ms, pose: self.pose(at_ms) }
    }

    /// Returns shots at a steady rate up to `until_ms`.
    pub fn track(&self, until_ms: u64, frames_per_second: u64) -> Vec<Shot> {
        let count = until_ms * frames_per_second / 1000 + 1;
        (0..count).map(|frame| self.shot(frame * 1000 / frames_per_second)).collect()
    }
}

/// A whole performance on a fixed schedule.
#[derive(Debug, Clone)]
pub struct Performance {
    /// Shots at a steady rate, in order.
    pub shots: Vec<Shot>,
    /// Each gesture, with the time of its prompt in milliseconds.
    pub prompts: Vec<(Gesture, u64)>,
}

impl Performance {
    /// Prompts each gesture when the gesture before is over and the person has rested.
    pub fn scripted(mut actor: Actor, gestures: &[Gesture], frames_per_second: u64) -> Self {
        let mut prompts = Vec::new();
        let mut now_ms = FIRST_PROMPT_MS;
        for gesture in gestures {
            prompts.push((*gesture, now_ms));
            now_ms = actor.prompt(*gesture, now_ms) + REST_MS;
        }
        Self { shots: actor.track(now_ms, frames_per_second), prompts }
    }
}

/// Slow sine waves of every part of a pose, out of step with each other.
#[derive(Debug, Clone)]
struct Sway {
    /// Period in seconds and phase of each wave.
    waves: [[f32; 2]; 7],
}

impl Sway {
    fn new(random: &mut SplitMix64) -> Self {
        let mut wave = || [random.between(2.5, 6.0), random.between(0.0, TAU)];
        Self { waves: std::array::from_fn(|_| wave()) }
    }

    fn pose(&self, now_ms: u64) -> Pose {
        let seconds = now_ms as f32 / 1000.0;
        let [yaw, pitch, roll, scale, x, y, light] =
            self.waves.map(|[period, phase]| (TAU * seconds / period + phase).sin());
        let transform = Transform {
            yaw: 1.2 * yaw,
            pitch: 0.8 * pitch,
            roll: 0.8 * roll,
            scale: 1.0 + 0.01 * scale,
            shift: [3.0 * x, 3.0 * y],
        };
        Pose { transform, gain: 1.0 + 0.02 * light, noise: NOISE, ..Pose::REST }
    }
}
