//! All limits of a session, with the source of each default. A check is switched off only by moving
//! its limit far away.
//!
//! A turn is a `Pose::turn`: 0.20 is 8°, 0.55 is 20°.

use std::time::Duration;

pub use super::gesture::GestureLimits;

/// All limits of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionLimits {
    /// Admission of frames.
    pub admission: AdmissionLimits,
    /// Tracking of one face through the session.
    pub track: TrackLimits,
    pub(super) guidance: GuidanceLimits,
    /// Order and times of the steps.
    pub steps: StepLimits,
    /// Criteria of a performed action.
    pub gestures: GestureLimits,
    /// Repeated pictures, and the identity of the person.
    pub continuity: ContinuityLimits,
    /// Selection of the frames that the embedder and the PAD networks judge.
    pub judging: JudgingLimits,
}

/// Limits checked on a frame before its picture is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionLimits {
    /// Longest session, from the start of `Run` to the end. In a recording: from the first frame.
    pub session_time_max: Duration,
    /// Most frames measured from the first prompt on.
    pub frames_measured_max: usize,
    /// Most frames admitted, measured or not.
    pub frames_admitted_max: usize,
    pub frame_bytes_max: usize,
    /// Most bytes of all frames together.
    pub session_bytes_max: usize,
    /// Most frames whose file was sent before.
    pub repeated_files_max: usize,
    /// Largest step back of the capture time. Zero requires that the time rises.
    pub clock_back_max: Duration,
    /// Largest drift between the client's and the server's clock.
    pub(super) clock_drift_max: Duration,
    /// Most changes of size, mirroring or rotation.
    pub format_changes_max: usize,
    /// Least frames per second, by the median of the last intervals.
    pub rate_min: f64,
    /// Number of intervals in that median.
    pub(super) rate_intervals: usize,
    /// Most frames measured per second. Further frames of a faster stream are left out (thinned).
    pub(super) rate_measured_max: f64,
    /// Longest time between two frames during an action.
    pub gap_max: Duration,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            // Three steps of five seconds with rests between them, doubled for people who need
            // guidance first.
            session_time_max: Duration::from_secs(45),
            // Fifteen seconds at `rate_measured_max`. Bounds the device time of a session.
            frames_measured_max: 150,
            // The whole session at 30 frames per second, the rate of telephones.
            frames_admitted_max: 1350,
            // A JPEG of 480×640 has 20 to 70 KiB. The largest one measured, at quality 100, had 240
            // KiB.
            frame_bytes_max: 256 * 1024,
            // The whole session at 10 frames per second of 70 KiB, or half of it at 30 of 50 KiB.
            session_bytes_max: 32 * 1024 * 1024,
            // The camera's noise makes every JPEG different.
            repeated_files_max: 0,
            clock_back_max: Duration::ZERO,
            // A poor mobile network delays by a second; a replayed recording is older.
            clock_drift_max: Duration::from_millis(1500),
            format_changes_max: 0,
            // 8 frames per second, less the jitter of telephone clocks. A slower stream can miss a
            // blink.
            rate_min: 7.5,
            // One second at the least rate.
            rate_intervals: 8,
            // The state machines need 8; 10 allows for a lost frame.
            rate_measured_max: 10.0,
            // Two frames at the least rate. A longer gap could hide a cut.
            gap_max: Duration::from_millis(250),
        }
    }
}

/// Limits of tracking one face.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackLimits {
    /// Least overlap of the face's box with the box of the frame before (intersection over union).
    pub(super) overlap_min: f64,
    /// Area of a second face, relative to the main face, above which the second face counts.
    pub second_area_max: f64,
    /// Longest time with a second face.
    pub(super) second_time_max: Duration,
    /// Longest time without the face before the step restarts.
    pub(super) lost_max: Duration,
    /// Most restarts of a session after the face was lost.
    pub(super) restarts_max: usize,
    /// Interval for which the jump limits hold. Over a longer interval the face may move
    /// proportionally farther, so leaving out frames does not hide a cut.
    pub(super) jump_interval: Duration,
    /// Largest movement of the middle of the eyes, in inter-eye distances.
    pub jump_eyes_max: f64,
    /// Additional movement allowed per unit of turn: turning moves the eyes along.
    pub(super) jump_eyes_per_turn: f64,
    /// Largest relative change of the distance of the eyes.
    pub jump_size_max: f64,
    /// Additional change allowed per unit of turn: the eyes of a turned face appear closer
    /// together.
    pub(super) jump_size_per_turn: f64,
    /// Largest change of turn.
    pub jump_turn_max: f64,
}

impl Default for TrackLimits {
    fn default() -> Self {
        Self {
            overlap_min: 0.3,
            // ISO/IEC 29794-5 "single face present". A person in the background has a tenth.
            second_area_max: 0.25,
            second_time_max: Duration::from_millis(300),
            lost_max: Duration::from_millis(400),
            restarts_max: 1,
            jump_interval: Duration::from_millis(120),
            jump_eyes_max: 0.35,
            // The eyes lie 9 cm in front of the neck's axis. A turn by 20° moves them by 3.1 cm,
            // half their distance, and is half a unit of turn.
            jump_eyes_per_turn: 1.0,
            jump_size_max: 0.15,
            // From 20° to 30°, a third of a unit of turn, the distance of the eyes shrinks by 8 %.
            jump_size_per_turn: 0.25,
            // 250° per second. A brisk turn of 200° per second has 0.5 at 10 frames per second.
            jump_turn_max: 0.70,
        }
    }
}

/// A limit with hysteresis: a problem starts at one value and ends at another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hysteresis {
    /// The problem starts beyond this value.
    pub(super) enter: f64,
    /// The problem ends within this value.
    pub(super) leave: f64,
}

/// Limits of the guidance. The second value of each limit is up to a fifth stricter, so that a
/// value near the limit does not toggle the message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GuidanceLimits {
    /// Least distance of the eyes in pixels.
    pub(super) eye_distance_min: Hysteresis,
    /// Largest distance of the eyes, as a share of the frame's shorter side.
    pub(super) eye_share_max: Hysteresis,
    /// Largest distance of the middle of the eyes from the frame's centre, as a share of the
    /// frame's side.
    pub(super) off_center_max: Hysteresis,
    /// Largest turn of a face that looks into the camera.
    pub(super) turn_max: Hysteresis,
    /// Least brightness of the face.
    pub(super) brightness_min: Hysteresis,
    /// Largest brightness of the face.
    pub(super) brightness_max: Hysteresis,
    /// Largest movement of the eyes while the person holds still, in inter-eye distances per frame.
    pub(super) still_max: Hysteresis,
    /// Largest change of turn per frame that can be measured well.
    pub(super) turn_speed_max: Hysteresis,
    /// Least duration of a problem before it is announced, and of its absence before it is
    /// withdrawn.
    pub(super) hold: Duration,
}

impl Default for GuidanceLimits {
    fn default() -> Self {
        let limit = |enter, leave| Hysteresis { enter, leave };
        Self {
            // The limit of live photographs.
            eye_distance_min: limit(60.0, 66.0),
            // Closer to the camera, a turned head leaves the frame and perspective distorts the
            // ratios.
            eye_share_max: limit(0.36, 0.33),
            off_center_max: limit(0.30, 0.24),
            // The limit of a neutral head, and the value at which noise no longer crosses that
            // limit.
            turn_max: limit(0.20, 0.16),
            // The limits of live photographs.
            brightness_min: limit(0.22, 0.25),
            brightness_max: limit(0.80, 0.77),
            // Half of the limit of a jump.
            still_max: limit(0.17, 0.14),
            // Two thirds of the limit of a jump.
            turn_speed_max: limit(0.47, 0.40),
            hold: Duration::from_millis(300),
        }
    }
}

/// Limits of the order and the times of the steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLimits {
    /// Least duration of a neutral face before a prompt.
    pub(super) neutral_hold: Duration,
    /// Least neutral frames for a person's baseline.
    pub(super) neutral_frames_min: usize,
    /// Longest time from a prompt to the end of its action, and from there to the next prompt or to
    /// the end of the session.
    pub step_time_max: Duration,
    /// Least time from a prompt to the start of the movement.
    pub reaction_min: Duration,
    /// Most actions of a step that reach their peak without being prompted. Blinks do not count.
    pub unprompted_actions_max: usize,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self {
            neutral_hold: Duration::from_millis(300),
            neutral_frames_min: 5,
            // Comparable services allow 2 to 5 seconds.
            step_time_max: Duration::from_secs(5),
            // Simple visual reactions take 180 to 250 ms in the laboratory.
            reaction_min: Duration::from_millis(150),
            unprompted_actions_max: 0,
        }
    }
}

/// Limits of repeated pictures and of the identity of the person.
#[derive(Debug, Clone, PartialEq)]
pub struct ContinuityLimits {
    /// Most pictures with the same hash and the same points as an earlier one.
    pub repeated_pictures_max: usize,
    /// Most pictures with the same hash and nearly the same points as one from long before.
    pub loops_max: usize,
    /// Time between two pictures above which the first counts as long before.
    pub(super) loop_time_min: Duration,
    /// Largest distance of a point from its first position in a loop, in pixels.
    pub(super) loop_distance_max: f64,
    /// Least cosine of any two judged frames. If it is `None`, the caller sets it from the
    /// calibration. Without a calibration entry the caller sets −1, which every pair reaches: no
    /// session passes without an entry, so the identity need not fail it.
    pub identity_min: Option<f64>,
}

impl ContinuityLimits {
    /// Returns the least cosine. If it was not set, returns 1, which fails every session.
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
            // For a person who sits still, the detector alone moves the points by more between two
            // frames.
            loop_distance_max: 0.1,
            identity_min: None,
        }
    }
}

/// Limits of judging: selection of the frames, and their PAD scores.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgingLimits {
    /// Least judged frames of a session.
    pub frames_min: usize,
    /// Most judged frames of a session in which the face is never lost. After each loss the step
    /// is prompted again, and the frame before that prompt is one more.
    pub(super) frames_max: usize,
    /// Largest turn of a judged frame.
    pub(super) turn_max: f64,
    /// Factor by which a frame must be sharper than all before to be judged for its sharpness.
    pub(super) sharper_min: f64,
    /// A PAD score below this value counts as low.
    pub(super) low_score_below: f64,
    /// Largest share of frames with a low PAD score.
    pub(super) low_share_max: f64,
}

impl Default for JudgingLimits {
    fn default() -> Self {
        Self {
            frames_min: 5,
            // One before and one after each action, the last, and five of increasing sharpness.
            frames_max: 12,
            // The embedder and the PAD networks were measured on near-frontal faces.
            turn_max: 0.35,
            sharper_min: 1.2,
            low_score_below: 0.20,
            low_share_max: 0.20,
        }
    }
}
