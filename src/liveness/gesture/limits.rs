//! Limits of the actions. Each action moves a value away from neutral and back, with hysteresis.
//!
//! The value of a turn is `Pose::turn`, to the prompted side. The value of a nod is the change of
//! `Pose::nod`. The value of a blink is the closed share of the eyes, 0 to 1. The value of the
//! mouth is its opening over its width.

use std::time::Duration;

/// Values and times of one movement away from neutral and back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovementLimits {
    /// Least neutral value. A movement to the other side does not count.
    pub(crate) neutral_min: f64,
    pub(crate) neutral_max: f64,
    /// The peak begins at this value.
    pub enter: f64,
    /// The peak ends below this value.
    pub leave: f64,
    /// The movement is done at or below this value.
    pub(crate) back: f64,
    /// Least duration of the peak. Either this or `peak_frames_min` must hold.
    pub(crate) peak_time_min: Duration,
    /// Least number of frames of the peak.
    pub(crate) peak_frames_min: usize,
    /// Shortest movement.
    pub(crate) time_min: Duration,
    /// Longest movement.
    pub(crate) time_max: Duration,
}

/// Criteria of a performed action.
#[derive(Debug, Clone, PartialEq)]
pub struct GestureLimits {
    /// Movement of the head's turn to the prompted side.
    pub turn: MovementLimits,
    /// Largest plausible turn. A larger one is an error of the detector, and depth is not measured
    /// on it.
    pub(super) turn_max: f64,
    /// Least residual of a turned face that no flat picture explains.
    pub(crate) depth_min: f64,
    /// Movement of the nose's height relative to the person's neutral height.
    pub(crate) nod: MovementLimits,
    /// Largest turn at which a nod is measured.
    pub(super) nod_turn_max: f64,
    /// Movement of the share by which the eyes are closed. The more open eye counts.
    pub(crate) blink: MovementLimits,
    pub(super) blinks: usize,
    /// Percentile of the neutral frames that counts as an open eye.
    pub(super) eye_open_percentile: f64,
    /// Least openness of a person's open eye. Narrower eyes cannot be judged.
    pub(super) eye_open_min: f64,
    /// From this openness on, an eye counts as open for every person.
    pub(crate) eye_open_always: f64,
    /// Largest turn at which a blink is measured.
    pub(super) blink_turn_max: f64,
    /// Largest nod, up or down, at which a blink is measured and a head counts as level.
    pub blink_nod_max: f64,
    /// Movement of the opening of the mouth.
    pub(crate) mouth: MovementLimits,
}

impl Default for GestureLimits {
    fn default() -> Self {
        Self {
            turn: TURN,
            turn_max: 1.3,
            // A head has 0.087 at 20°, where a turn begins to count. Rendered heads have at least
            // 0.089 there and at least 0.128 at their peak. Detected points give bent prints up to
            // 0.23.
            depth_min: 0.070,
            nod: NOD,
            nod_turn_max: 0.35,
            blink: BLINK,
            blinks: 2,
            // Neutral frames contain blinks. In four of five frames the eyes are open.
            eye_open_percentile: 0.8,
            // 149 faces with open eyes: 1st percentile 0.176. Narrow eyes are normal.
            eye_open_min: 0.15,
            // Closed eyes have up to 0.085, a wink has 0.135, open eyes have at least 0.18.
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

/// Closed below 0.60 of the person's own level, open again above 0.80.
///
/// A spontaneous blink lasts 100 to 400 ms and is fully closed for half of that time. At 10 frames
/// per second it appears on one to three frames, or on none. The prompt therefore asks to close the
/// eyes *for a moment*, twice. That takes at least 300 ms, and one closed frame counts.
const BLINK: MovementLimits = MovementLimits {
    // Eyes may open wider than their baseline.
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

/// The value is the distance of the lips over the width of the mouth.
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
