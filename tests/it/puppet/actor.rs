//! What a person does when prompted, and the small movements nobody can leave out.

use std::f32::consts::TAU;

use super::raster::Stance;
use super::seeded::Seeded;
use super::surface::smooth;
use super::{Pose, Turns};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    TurnLeft,
    TurnRight,
    /// Twice.
    Blink,
    Nod,
    OpenMouth,
}

impl Action {
    pub const ALL: [Self; 5] =
        [Self::TurnLeft, Self::TurnRight, Self::Blink, Self::Nod, Self::OpenMouth];
}

/// A pose and the time it is filmed at.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    pub at_ms: u64,
    pub pose: Pose,
}

/// Degrees of pitch at the peak of a nod.
const NOD: f32 = 14.0;
/// People start to move this long after a prompt.
const REACTION_MS: [f32; 2] = [400.0, 700.0];
/// Deviation of the sensor's noise, in levels of 255.
const NOISE: f32 = 2.0;
/// In a fixed schedule: the first prompt, and the rest between a movement and the next prompt.
const FIRST_PROMPT_MS: u64 = 1500;
const REST_MS: u64 = 900;

/// A movement: rises, stays, falls.
#[derive(Debug, Clone, Copy)]
struct Bump {
    start_ms: u64,
    rise_ms: u64,
    hold_ms: u64,
    fall_ms: u64,
}

impl Bump {
    /// How far the movement is at a time, 0 to 1.
    fn at(&self, now_ms: u64) -> f32 {
        let since = now_ms as f32 - self.start_ms as f32;
        let rise = smooth(since / self.rise_ms as f32);
        let fall = smooth((since - (self.rise_ms + self.hold_ms) as f32) / self.fall_ms as f32);
        rise - fall
    }

    fn end_ms(&self) -> u64 {
        self.start_ms + self.rise_ms + self.hold_ms + self.fall_ms
    }
}

/// A person in front of the camera. Give it prompts as they come; ask for its pose at any time.
#[derive(Debug, Clone)]
pub struct Actor {
    random: Seeded,
    sway: Sway,
    turns: Turns,
    bumps: Vec<(Action, Bump)>,
}

impl Actor {
    /// `turns` are the puppet's.
    pub fn new(seed: u64, turns: Turns) -> Self {
        let mut random = Seeded::new(seed);
        let sway = Sway::new(&mut random);
        Self { random, sway, turns, bumps: Vec::new() }
    }

    /// Reacts to a prompt sent at `now_ms`; the answer is when the movement will be over.
    pub fn prompt(&mut self, action: Action, now_ms: u64) -> u64 {
        let reaction_ms = self.random.between(REACTION_MS[0], REACTION_MS[1]) as u64;
        self.perform(action, now_ms + reaction_ms)
    }

    /// Moves at `start_ms`, prompted or not; the answer is when the movement will be over.
    pub fn perform(&mut self, action: Action, start_ms: u64) -> u64 {
        let [rise_ms, hold_ms, fall_ms] = match action {
            Action::TurnLeft | Action::TurnRight => [800, 600, 800],
            Action::Blink => [100, 300, 100],
            Action::Nod => [400, 400, 400],
            Action::OpenMouth => [300, 600, 300],
        };
        let bump = Bump { start_ms, rise_ms, hold_ms, fall_ms };
        self.bumps.push((action, bump));
        if action != Action::Blink {
            return bump.end_ms();
        }
        let second = Bump { start_ms: bump.end_ms() + 500, ..bump };
        self.bumps.push((action, second));
        second.end_ms()
    }

    pub fn pose(&self, now_ms: u64) -> Pose {
        let mut pose = self.sway.pose(now_ms);
        let Turns { straight, left, right } = self.turns;
        pose.stance.yaw += straight;
        for (action, bump) in &self.bumps {
            let part = bump.at(now_ms);
            match action {
                Action::TurnLeft => pose.stance.yaw += (left - straight) * part,
                Action::TurnRight => pose.stance.yaw += (right - straight) * part,
                Action::Blink => pose.eyes_closed = pose.eyes_closed.map(|eye| eye.max(part)),
                Action::Nod => pose.stance.pitch += NOD * part,
                Action::OpenMouth => pose.mouth_open = pose.mouth_open.max(part),
            }
        }
        pose
    }

    pub fn shot(&self, at_ms: u64) -> Shot {
        Shot { at_ms, pose: self.pose(at_ms) }
    }

    /// Shots at a steady rate up to `until_ms`.
    pub fn track(&self, until_ms: u64, frames_per_second: u64) -> Vec<Shot> {
        let count = until_ms * frames_per_second / 1000 + 1;
        (0..count).map(|frame| self.shot(frame * 1000 / frames_per_second)).collect()
    }
}

/// A whole session on a fixed schedule.
#[derive(Debug, Clone)]
pub struct Session {
    pub shots: Vec<Shot>,
    /// When each action was asked for.
    pub prompts: Vec<(Action, u64)>,
}

impl Session {
    /// Each action is prompted once the one before is over and the person at rest.
    pub fn scripted(mut actor: Actor, actions: &[Action], frames_per_second: u64) -> Self {
        let mut prompts = Vec::new();
        let mut now_ms = FIRST_PROMPT_MS;
        for action in actions {
            prompts.push((*action, now_ms));
            now_ms = actor.prompt(*action, now_ms) + REST_MS;
        }
        Self { shots: actor.track(now_ms, frames_per_second), prompts }
    }
}

/// Slow waves of every part of a pose, out of step with each other.
#[derive(Debug, Clone)]
struct Sway {
    /// Per wave: seconds and phase.
    waves: [[f32; 2]; 7],
}

impl Sway {
    fn new(random: &mut Seeded) -> Self {
        let mut wave = || [random.between(2.5, 6.0), random.between(0.0, TAU)];
        Self { waves: std::array::from_fn(|_| wave()) }
    }

    fn pose(&self, now_ms: u64) -> Pose {
        let seconds = now_ms as f32 / 1000.0;
        let [yaw, pitch, roll, scale, x, y, light] =
            self.waves.map(|[period, phase]| (TAU * seconds / period + phase).sin());
        let stance = Stance {
            yaw: 1.2 * yaw,
            pitch: 0.8 * pitch,
            roll: 0.8 * roll,
            scale: 1.0 + 0.01 * scale,
            shift: [3.0 * x, 3.0 * y],
        };
        Pose { stance, gain: 1.0 + 0.02 * light, noise: NOISE, ..Pose::REST }
    }
}
