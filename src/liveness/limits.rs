//! Every limit of a session, with the source of its default. A limit that is set far away switches
//! its check off; nothing else does.

use std::time::Duration;

pub use super::gesture::GestureLimits;

/// The limits of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionLimits {
    /// What a session may take, and what its frames may be.
    pub admission: AdmissionLimits,
    /// One face from the beginning to the end.
    pub track: TrackLimits,
    /// When the customer is told to do something about the picture.
    pub guidance: GuidanceLimits,
    /// The order of a session.
    pub steps: StepLimits,
    /// What counts as doing an action.
    pub gestures: GestureLimits,
    /// One stream, of one person.
    pub continuity: ContinuityLimits,
    /// Which frames the embedder and the liveness networks see.
    pub judging: JudgingLimits,
}

/// Limits that a frame is held against before a pixel of it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionLimits {
    /// From the creation of the session to its end.
    pub session_time_max: Duration,
    /// Frames that are looked at from the first prompt on.
    pub frames_measured_max: usize,
    /// Frames that are taken, looked at or not.
    pub frames_admitted_max: usize,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
    /// Bytes of all frames.
    pub session_bytes_max: usize,
    /// Frames whose bytes were sent before.
    pub repeated_files_max: usize,
    /// How far the capture time may go back.
    pub clock_back_max: Duration,
    /// How far the client's clock may run away from the server's.
    pub clock_drift_max: Duration,
    /// Changes of size, mirroring or rotation.
    pub format_changes_max: usize,
    /// Least frames a second, by the median of the last intervals.
    pub rate_min: f64,
    /// Intervals that median is taken of.
    pub rate_intervals: usize,
    /// Frames a second that are looked at; what comes faster is thinned.
    pub rate_measured_max: f64,
    /// Longest time between two frames while an action is under way.
    pub gap_max: Duration,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            // Three steps of five seconds, rests between them, and twice that for people who need
            // guidance first.
            session_time_max: Duration::from_secs(45),
            // Fifteen seconds at the rate that is looked at; bounds the device time of a session.
            frames_measured_max: 150,
            // The whole session at 30 frames a second, as telephones send them.
            frames_admitted_max: 1350,
            // A JPEG of 480×640 has 20 to 70 KiB, the largest seen at quality 100 was 240.
            frame_bytes_max: 256 * 1024,
            // The whole session at 10 frames a second of 70 KiB, or half of it at 30 of 50.
            session_bytes_max: 32 * 1024 * 1024,
            // A camera's noise makes every JPEG different.
            repeated_files_max: 0,
            clock_back_max: Duration::ZERO,
            // A bad mobile network delays by a second; a recording is older.
            clock_drift_max: Duration::from_millis(1500),
            format_changes_max: 0,
            // 8 a second less the jitter of telephone clocks: a slower stream can miss a blink.
            rate_min: 7.5,
            // One second at the least rate.
            rate_intervals: 8,
            // The state machines need 8; 10 leaves room for a lost frame.
            rate_measured_max: 10.0,
            // Two frames at the least rate: longer gaps have room for a cut.
            gap_max: Duration::from_millis(250),
        }
    }
}

/// Limits of following one face.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackLimits {
    /// Least overlap of the face's box with that of the frame before (intersection over union).
    pub overlap_min: f64,
    /// Area of a second face relative to the main one, above which it counts.
    pub second_area_max: f64,
    /// How long a second face may stay.
    pub second_time_max: Duration,
    /// How long the face may be gone before the step starts again.
    pub lost_max: Duration,
    /// How often a step may start again because the face was gone.
    pub restarts_max: usize,
    /// The interval that the limits of a jump are for. Over a longer one the face may move farther
    /// in proportion, so that leaving out frames hides no cut.
    pub jump_interval: Duration,
    /// Longest way of the middle of the eyes, in distances of the eyes.
    pub jump_eyes_max: f64,
    /// How much longer that way may be for each unit of turn: turning carries the eyes along.
    pub jump_eyes_per_turn: f64,
    /// Largest relative change of the distance of the eyes.
    pub jump_size_max: f64,
    /// How much larger that change may be for each unit of turn: turned eyes look nearer together.
    pub jump_size_per_turn: f64,
    /// Largest change of turn.
    pub jump_turn_max: f64,
}

impl Default for TrackLimits {
    fn default() -> Self {
        Self {
            overlap_min: 0.3,
            // ISO/IEC 29794-5 "single face present"; a person in the background has a tenth.
            second_area_max: 0.25,
            second_time_max: Duration::from_millis(300),
            lost_max: Duration::from_millis(400),
            restarts_max: 1,
            jump_interval: Duration::from_millis(120),
            jump_eyes_max: 0.35,
            // The eyes lie 9 cm before the neck's axis: 20° carry them 3.1 cm, half their distance,
            // and are half a unit of turn.
            jump_eyes_per_turn: 1.0,
            jump_size_max: 0.15,
            // From 20° to 30°, a third of a unit of turn, their distance shrinks by 8 %.
            jump_size_per_turn: 0.25,
            // 250° a second; a brisk turn of 200° a second has 0.5 at 10 frames a second.
            jump_turn_max: 0.70,
        }
    }
}

/// A level above which something is wrong, and one below which it is right again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hysteresis {
    /// The customer is told from here on.
    pub enter: f64,
    /// Until here.
    pub leave: f64,
}

/// When the customer is told to do something about the picture. The second number of each limit is
/// a fifth nearer to good, so that a value on the edge does not chatter.
#[derive(Debug, Clone, PartialEq)]
pub struct GuidanceLimits {
    /// Least distance of the eyes in pixels.
    pub eye_distance_min: Hysteresis,
    /// Largest distance of the eyes as a share of the shorter side of the frame.
    pub eye_share_max: Hysteresis,
    /// Largest distance of the middle of the eyes from the middle of the frame, in frame sides.
    pub off_center_max: Hysteresis,
    /// Largest turn of a face that looks into the camera.
    pub turn_max: Hysteresis,
    /// Least brightness of the face.
    pub brightness_min: Hysteresis,
    /// Largest brightness of the face.
    pub brightness_max: Hysteresis,
    /// Longest way of the eyes of a person who holds still, in distances of the eyes per frame.
    pub still_max: Hysteresis,
    /// Largest change of turn per frame that can be followed well.
    pub turn_speed_max: Hysteresis,
    /// How long something must be wrong before the customer is told, and right before silence.
    pub hold: Duration,
}

impl Default for GuidanceLimits {
    fn default() -> Self {
        let limit = |enter, leave| Hysteresis { enter, leave };
        Self {
            // The limit of live photographs: below it the picture for the embedder is enlarged.
            eye_distance_min: limit(60.0, 66.0),
            // Nearer, a turned head leaves the frame, and perspective bends the ratios.
            eye_share_max: limit(0.36, 0.33),
            off_center_max: limit(0.30, 0.24),
            // The limit of a neutral head, and the level where noise no longer crosses it.
            turn_max: limit(0.20, 0.16),
            // The limits of live photographs.
            brightness_min: limit(0.22, 0.25),
            brightness_max: limit(0.80, 0.77),
            // Half of what counts as a jump.
            still_max: limit(0.17, 0.14),
            // Two thirds of what counts as a jump.
            turn_speed_max: limit(0.47, 0.40),
            hold: Duration::from_millis(300),
        }
    }
}

/// Limits of the order of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLimits {
    /// How long the customer must be neutral before an action is asked for.
    pub neutral_hold: Duration,
    /// Neutral frames that a person's own levels are taken from.
    pub neutral_frames_min: usize,
    /// From a prompt to the end of its action, and from there to neutral again.
    pub step_time_max: Duration,
    /// Nobody reacts faster to a prompt.
    pub reaction_min: Duration,
    /// Actions of a step that come to their peak unasked.
    pub unprompted_actions_max: usize,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self {
            neutral_hold: Duration::from_millis(300),
            neutral_frames_min: 5,
            // Comparable services give 2 to 5 seconds.
            step_time_max: Duration::from_secs(5),
            // Simple visual reactions take 180 to 250 ms in the laboratory.
            reaction_min: Duration::from_millis(150),
            unprompted_actions_max: 0,
        }
    }
}

/// One stream, of one person.
#[derive(Debug, Clone, PartialEq)]
pub struct ContinuityLimits {
    /// Decoded frames that equal an earlier one in every bit.
    pub repeated_pictures_max: usize,
    /// Frames that nearly equal one of long before.
    pub loops_max: usize,
    /// From here on, long before.
    pub loop_time_min: Duration,
    /// Farthest that a point of a looped frame lies from its first showing, in pixels.
    pub loop_distance_max: f64,
    /// Least cosine of any two judged frames. Left out, the caller sets it from the calibration;
    /// without a row to −1, because nothing passes then, and nobody is to fail for it.
    pub identity_min: Option<f64>,
}

impl ContinuityLimits {
    /// Who forgets to set it passes nobody.
    pub(super) fn identity_min(&self) -> f64 {
        self.identity_min.unwrap_or(1.0)
    }
}

impl Default for ContinuityLimits {
    fn default() -> Self {
        Self {
            repeated_pictures_max: 0,
            loops_max: 0,
            loop_time_min: Duration::from_secs(1),
            // The detector alone moves by more on two frames of a person who sits still.
            loop_distance_max: 0.1,
            identity_min: None,
        }
    }
}

/// Which frames the embedder and the liveness networks see.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgingLimits {
    /// Judged frames that a session needs.
    pub frames_min: usize,
    /// Judged frames of a session without interruption at most; each repeated prompt adds one.
    pub frames_max: usize,
    /// Largest turn of a judged frame.
    pub turn_max: f64,
    /// How much sharper than the best so far a frame must be to be judged for that.
    pub sharper_min: f64,
    /// A frame with a lower probability of a live person counts as a picture.
    pub low_score_below: f64,
    /// Largest share of such frames.
    pub low_share_max: f64,
}

impl Default for JudgingLimits {
    fn default() -> Self {
        Self {
            frames_min: 5,
            // One before and one behind each action, the last, and five of rising sharpness.
            frames_max: 12,
            // Embedder and liveness networks were measured on near-frontal faces.
            turn_max: 0.35,
            sharper_min: 1.2,
            low_score_below: 0.20,
            low_share_max: 0.20,
        }
    }
}
