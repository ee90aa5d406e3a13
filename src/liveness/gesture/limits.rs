//! Levels and times of the actions: away from neutral, and back, with hysteresis.

use std::time::Duration;

/// Levels and times of one movement away from neutral and back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovementLimits {
    /// Neutral down to this below zero: a movement to the other side is none.
    pub neutral_min: f64,
    /// Neutral up to this.
    pub neutral_max: f64,
    /// The peak begins here.
    pub enter: f64,
    /// And ends below this.
    pub leave: f64,
    /// The movement is over at or below this.
    pub back: f64,
    /// The peak must last this long,
    pub peak_time_min: Duration,
    /// or this many frames.
    pub peak_frames_min: usize,
    /// Shortest movement.
    pub time_min: Duration,
    /// Longest movement.
    pub time_max: Duration,
}

/// What counts as doing an action.
#[derive(Debug, Clone, PartialEq)]
pub struct GestureLimits {
    /// On the turn of the head to the side that was asked for.
    pub turn: MovementLimits,
    /// A larger turn is the detector's mistake, and no frame to measure depth on.
    pub turn_max: f64,
    /// Least of a turned face that no flat picture explains.
    pub depth_min: f64,
    /// On the height of the nose above its own neutral one.
    pub nod: MovementLimits,
    /// A nod is measured up to this turn.
    pub nod_turn_max: f64,
    /// On the share by which the eyes are closed, the more open one counting.
    pub blink: MovementLimits,
    /// How often the eyes are to be closed.
    pub blinks: usize,
    /// Which of the neutral frames' values is an open eye.
    pub eye_open_percentile: f64,
    /// Least openness of a person's open eye; eyes that are narrower cannot be judged.
    pub eye_open_min: f64,
    /// An eye this open is open, whatever the person's own level.
    pub eye_open_always: f64,
    /// A blink is measured up to this turn,
    pub blink_turn_max: f64,
    /// and up to this nod, up or down.
    pub blink_nod_max: f64,
    /// On the opening of the mouth.
    pub mouth: MovementLimits,
}

impl Default for GestureLimits {
    fn default() -> Self {
        Self {
            turn: TURN,
            turn_max: 1.3,
            // A head has 0.087 at 20°, where a turn begins to count; rendered heads from 0.089 on
            // there, and from 0.128 on at their peak. Detected points give bent prints up to 0.23.
            depth_min: 0.070,
            nod: NOD,
            nod_turn_max: 0.35,
            blink: BLINK,
            blinks: 2,
            // Neutral frames contain blinks too; four of five are taken with open eyes.
            eye_open_percentile: 0.8,
            // 149 open faces: 1st percentile 0.176. Narrow eyes are normal.
            eye_open_min: 0.15,
            // Closed eyes have up to 0.085, a wink 0.135; open ones at least 0.18.
            eye_open_always: 0.18,
            blink_turn_max: 0.30,
            blink_nod_max: 0.06,
            mouth: MOUTH,
        }
    }
}

/// 0.50 is 18° to 21°, depending on the distance; 0.20 is 8°.
const TURN: MovementLimits = MovementLimits {
    neutral_min: -0.20,
    neutral_max: 0.20,
    enter: 0.50,
    leave: 0.35,
    back: 0.20,
    peak_time_min: Duration::from_millis(150),
    peak_frames_min: 2,
    time_min: Duration::from_millis(400),
    time_max: Duration::from_secs(4),
};

/// 0.10 is 10°; noise is 0.015.
const NOD: MovementLimits = MovementLimits {
    neutral_min: -0.10,
    neutral_max: 0.05,
    enter: 0.10,
    leave: 0.05,
    back: 0.04,
    peak_time_min: Duration::from_millis(150),
    peak_frames_min: 2,
    time_min: Duration::from_millis(300),
    time_max: Duration::from_secs(4),
};

/// Closed below 0.60 of the own level, open again above 0.80.
///
/// A spontaneous blink lasts 100 to 400 ms and is fully closed for half of that: at 10 frames a
/// second it shows on one to three frames, or on none. So the prompt asks to close the eyes *for a
/// moment*, twice, which takes 300 ms and more, and one closed frame counts.
const BLINK: MovementLimits = MovementLimits {
    // Eyes may open wider than their own level.
    neutral_min: f64::NEG_INFINITY,
    neutral_max: 0.20,
    enter: 0.40,
    leave: 0.20,
    back: 0.20,
    peak_time_min: Duration::from_millis(60),
    peak_frames_min: 1,
    time_min: Duration::from_millis(60),
    time_max: Duration::from_millis(1200),
};

/// On the distance of the lips over the width of the mouth.
const MOUTH: MovementLimits = MovementLimits {
    neutral_min: f64::NEG_INFINITY,
    // A smile that shows the teeth has up to 0.29.
    neutral_max: 0.30,
    enter: 0.40,
    leave: 0.34,
    back: 0.30,
    peak_time_min: Duration::from_millis(150),
    peak_frames_min: 2,
    time_min: Duration::from_millis(200),
    time_max: Duration::from_secs(3),
};
