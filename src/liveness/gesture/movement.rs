//! State machine of one movement: NEUTRAL → ONSET → PEAK → RETURN → done, with hysteresis.
//!
//! At about ten frames per second, times are only known to within one frame. They are therefore
//! bounds: a movement is too short only if its upper bound is too short, and too long only if its
//! lower bound is too long.

use std::time::Duration;

use super::MovementLimits;
use crate::liveness::reading::Reading;

/// State machine of one movement.
#[derive(Debug)]
pub(super) struct MovementFsm {
    phase: Phase,
    neutral_hold: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Not neutral for long enough.
    Unsettled { since: Option<Duration> },
    /// Neutral; the times of the last frame.
    Neutral(FrameTimes),
    /// Away from neutral.
    Onset(MovementStart),
    /// At or above the peak value.
    Peak(MovementStart, PeakHold),
    /// On the way back; the capture time of the last frame away from neutral.
    Return(MovementStart, Duration),
}

/// Capture and arrival time of a frame.
#[derive(Debug, Clone, Copy)]
struct FrameTimes {
    captured: Duration,
    arrived: Duration,
}

impl FrameTimes {
    fn of(reading: &Reading) -> Self {
        Self { captured: reading.captured, arrived: reading.arrived }
    }
}

#[derive(Debug, Clone, Copy)]
struct MovementStart {
    /// The last neutral frame. The movement started at this frame or after it.
    neutral: FrameTimes,
    /// The first frame of the movement.
    away: FrameTimes,
}

/// Progress of a movement after a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum MovementProgress {
    Ongoing,
    Done(StartInterval),
}

/// The start of a movement, as an interval of arrival times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::liveness) struct StartInterval {
    /// Arrival of the last neutral frame.
    pub(in crate::liveness) earliest: Duration,
    /// Arrival of the first frame of the movement.
    pub(in crate::liveness) latest: Duration,
}

/// Duration of a peak.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct PeakHold {
    since: Option<Duration>,
    until: Duration,
    frames: usize,
}

impl PeakHold {
    pub(super) fn add_frame(&mut self, captured: Duration) {
        self.since.get_or_insert(captured);
        self.until = captured;
        self.frames += 1;
    }

    /// Returns true if the peak is long enough not to be an error of the detector.
    pub(super) fn is_long_enough(&self, limits: &MovementLimits) -> bool {
        let Some(since) = self.since else { return false };
        let time = self.until.saturating_sub(since);
        self.frames >= limits.peak_frames_min || time >= limits.peak_time_min
    }
}

impl MovementFsm {
    /// Creates the state machine of a person who is neutral since `neutral_since`. A movement
    /// counts only after `neutral_hold` of neutral.
    pub(super) fn new(neutral_since: Duration, neutral_hold: Duration) -> Self {
        Self { phase: Phase::Unsettled { since: Some(neutral_since) }, neutral_hold }
    }

    /// Returns true between the onset and the end of the return.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Onset(_) | Phase::Peak(..) | Phase::Return(..))
    }

    pub(super) fn is_at_peak(&self) -> bool {
        matches!(self.phase, Phase::Peak(..))
    }

    /// Discards the movement. The next one needs neutral first.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Unsettled { since: None };
    }

    /// Processes the value of one frame; `value` must be finite.
    pub(super) fn advance(
        &mut self,
        value: f64,
        reading: &Reading,
        limits: &MovementLimits,
    ) -> MovementProgress {
        let now = reading.captured;
        let is_neutral = (limits.neutral_min..=limits.neutral_max).contains(&value);
        self.phase = match self.phase {
            Phase::Unsettled { since } => {
                self.wait_for_neutral(is_neutral.then(|| since.unwrap_or(now)), reading)
            }
            Phase::Neutral(_) if is_neutral => Phase::Neutral(FrameTimes::of(reading)),
            Phase::Neutral(_) if value < limits.neutral_min => Phase::Unsettled { since: None },
            Phase::Neutral(neutral) => {
                let away = FrameTimes::of(reading);
                onset_or_peak(MovementStart { neutral, away }, value, now, limits)
            }
            Phase::Onset(_) if is_neutral => Phase::Neutral(FrameTimes::of(reading)),
            Phase::Onset(_) if value < limits.neutral_min => Phase::Unsettled { since: None },
            Phase::Onset(start) => onset_or_peak(start, value, now, limits),
            Phase::Peak(start, hold) => {
                return self.advance_peak(start, hold, value, reading, limits);
            }
            Phase::Return(start, last_away) => {
                return self.advance_return(start, last_away, value, reading, limits);
            }
        };
        MovementProgress::Ongoing
    }

    fn wait_for_neutral(&self, since: Option<Duration>, reading: &Reading) -> Phase {
        match since {
            Some(since) if reading.captured.saturating_sub(since) >= self.neutral_hold => {
                Phase::Neutral(FrameTimes::of(reading))
            }
            since => Phase::Unsettled { since },
        }
    }

    fn advance_peak(
        &mut self,
        start: MovementStart,
        mut hold: PeakHold,
        value: f64,
        reading: &Reading,
        limits: &MovementLimits,
    ) -> MovementProgress {
        if value >= limits.leave {
            hold.add_frame(reading.captured);
            self.phase = Phase::Peak(start, hold);
            return MovementProgress::Ongoing;
        }
        if hold.is_long_enough(limits) {
            return self.advance_return(start, hold.until, value, reading, limits);
        }
        self.phase = match value <= limits.neutral_max {
            true => Phase::Neutral(FrameTimes::of(reading)),
            false => Phase::Onset(start),
        };
        MovementProgress::Ongoing
    }

    fn advance_return(
        &mut self,
        start: MovementStart,
        last_away: Duration,
        value: f64,
        reading: &Reading,
        limits: &MovementLimits,
    ) -> MovementProgress {
        if value > limits.back || value < limits.neutral_min {
            self.phase = match value >= limits.enter {
                true => onset_or_peak(start, value, reading.captured, limits),
                false => Phase::Return(start, reading.captured),
            };
            return MovementProgress::Ongoing;
        }
        self.phase = Phase::Neutral(FrameTimes::of(reading));
        let longest = reading.captured.saturating_sub(start.neutral.captured);
        let shortest = last_away.saturating_sub(start.away.captured);
        if longest < limits.time_min || shortest > limits.time_max {
            return MovementProgress::Ongoing;
        }
        MovementProgress::Done(StartInterval {
            earliest: start.neutral.arrived,
            latest: start.away.arrived,
        })
    }
}

/// Returns the phase of a value beyond neutral: onset or peak.
fn onset_or_peak(
    start: MovementStart,
    value: f64,
    now: Duration,
    limits: &MovementLimits,
) -> Phase {
    if value < limits.enter {
        return Phase::Onset(start);
    }
    let mut hold = PeakHold::default();
    hold.add_frame(now);
    Phase::Peak(start, hold)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::GestureLimits;
    use super::*;
    use crate::liveness::pose::Pose;
    use crate::liveness::synthetic::{Head, measures_of};

    const HOLD: Duration = Duration::from_millis(300);

    /// Returns the indices of the frames on which a movement is done, at ten frames per second.
    fn done_at(values: &[f64], limits: &MovementLimits) -> Vec<usize> {
        let pose = Pose::new(&measures_of(&Head::default()).faces[0].points).unwrap();
        let mut movement = MovementFsm::new(Duration::ZERO, HOLD);
        let mut done = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let captured = Duration::from_millis(100 * at as u64);
            let reading = Reading {
                captured,
                arrived: captured,
                pose,
                nod: pose.nod,
                mouth_open: None,
                eyes: None,
            };
            if movement.advance(*value, &reading, limits) != MovementProgress::Ongoing {
                done.push(at);
            }
        }
        done
    }

    const TURN: [f64; 12] = [0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.6, 0.7, 0.6, 0.3, 0.1, 0.0];

    fn turn() -> MovementLimits {
        GestureLimits::default().turn
    }

    #[test]
    fn a_movement_is_done_when_it_is_back() {
        assert_eq!(done_at(&TURN, &turn()), [10]);
    }

    #[test]
    fn a_movement_without_neutral_before_it_does_not_count() {
        assert!(done_at(&TURN[3..], &turn()).is_empty());
        let from_the_other_side = [-0.5, -0.5, -0.5, -0.5, 0.6, 0.7, 0.6, 0.1];
        assert!(done_at(&from_the_other_side, &turn()).is_empty());
    }

    #[test]
    fn one_frame_is_no_peak_and_half_a_movement_none() {
        let slip = TURN.map(|value| if value == 0.6 { 0.3 } else { value });
        assert!(done_at(&slip, &turn()).is_empty());
        let half = TURN.map(|value| value.min(0.49));
        assert!(done_at(&half, &turn()).is_empty());
    }

    #[test]
    fn a_peak_on_the_edge_is_one_peak() {
        let edge = [0.0, 0.0, 0.0, 0.0, 0.5, 0.45, 0.5, 0.4, 0.3, 0.55, 0.4, 0.3, 0.25, 0.1, 0.0];
        assert_eq!(done_at(&edge, &turn()), [13]);
    }

    #[test]
    fn a_movement_may_be_neither_too_quick_nor_too_slow() {
        let quick = [0.0, 0.0, 0.0, 0.0, 0.6, 0.6, 0.0, 0.0];
        assert!(done_at(&quick, &turn()).is_empty());
        let slow = [&[0.0; 4][..], &[0.6; 44], &[0.0; 4]].concat();
        assert!(done_at(&slow, &turn()).is_empty());
        let long_enough = [&[0.0; 4][..], &[0.6; 30], &[0.0; 4]].concat();
        assert_eq!(done_at(&long_enough, &turn()), [34]);
    }

    proptest! {
        #[test]
        fn nothing_is_done_without_neutral_peak_and_return(
            values in prop::collection::vec(prop::sample::select(
                vec![-0.6, -0.1, 0.0, 0.1, 0.19, 0.21, 0.34, 0.4, 0.5, 0.7, 1.2],
            ), 0..80),
        ) {
            let limits = turn();
            let mut from = 0;
            for end in done_at(&values, &limits) {
                // Since the last movement: neutral, then a peak of two frames, then neutral again.
                let part = &values[from..=end];
                let is_neutral = |value: &f64| value.abs() <= limits.neutral_max;
                prop_assert!(is_neutral(&values[end]));
                let start = part.iter().position(is_neutral);
                let rest = &part[start.unwrap()..part.len() - 1];
                let is_peak = |pair: &[f64]| pair[0] >= limits.enter && pair[1] >= limits.leave;
                prop_assert!(rest.windows(2).any(is_peak), "{part:?}");
                from = end;
            }
        }

        #[test]
        fn any_values_are_accepted(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let gestures = GestureLimits::default();
            for limits in [gestures.turn, gestures.nod, gestures.blink, gestures.mouth] {
                done_at(&values, &limits);
            }
        }
    }
}
