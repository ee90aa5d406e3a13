//! One movement: NEUTRAL → ONSET → PEAK → RETURN → done, with hysteresis.
//!
//! At about ten frames a second no moment is known better than to a frame. Times are therefore
//! bounds: a movement is too short only if even its longest reading is, and too long only if even
//! its shortest is.

use std::time::Duration;

use super::SwingLimits;
use crate::liveness::reading::Reading;

/// The state of one movement.
#[derive(Debug)]
pub(super) struct Swing {
    phase: Phase,
    hold: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Not neutral for long enough.
    Unsettled { since: Option<Duration> },
    /// Neutral, last on this frame.
    Neutral(Moment),
    /// Away from neutral.
    Onset(Start),
    /// As far as was asked for.
    Peak(Start, Held),
    /// On the way back, last seen away `at`.
    Return(Start, Duration),
}

/// When a frame was taken, and when it arrived.
#[derive(Debug, Clone, Copy)]
struct Moment {
    captured: Duration,
    arrived: Duration,
}

impl Moment {
    fn of(reading: &Reading) -> Self {
        Self { captured: reading.captured, arrived: reading.arrived }
    }
}

/// Where a movement began.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// The last frame before it: the movement began then, or a little later.
    neutral: Moment,
    /// Its first frame.
    away: Moment,
}

/// What a frame adds to a movement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Swung {
    Going,
    Done(Beginning),
}

/// When the frames arrived between which a movement began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::liveness) struct Beginning {
    /// The last frame that was neutral.
    pub(in crate::liveness) after: Duration,
    /// The first that was not.
    pub(in crate::liveness) by: Duration,
}

/// How long a peak has lasted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Held {
    since: Option<Duration>,
    until: Duration,
    frames: usize,
}

impl Held {
    pub(super) fn extend(&mut self, captured: Duration) {
        self.since.get_or_insert(captured);
        self.until = captured;
        self.frames += 1;
    }

    /// Long enough to be no slip of a detector.
    pub(super) fn is_long(&self, levels: &SwingLimits) -> bool {
        let Some(since) = self.since else { return false };
        let time = self.until.saturating_sub(since);
        self.frames >= levels.peak_frames_min || time >= levels.peak_time_min
    }
}

impl Swing {
    /// A movement of somebody who has been neutral since `neutral_since`, and who must be neutral
    /// for `hold` before a movement counts.
    pub(super) fn new(neutral_since: Duration, hold: Duration) -> Self {
        Self { phase: Phase::Unsettled { since: Some(neutral_since) }, hold }
    }

    /// Between neutral and neutral.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Onset(_) | Phase::Peak(..) | Phase::Return(..))
    }

    pub(super) fn is_at_peak(&self) -> bool {
        matches!(self.phase, Phase::Peak(..))
    }

    /// Forgets the movement; the next needs neutral again.
    pub(super) fn unsettle(&mut self) {
        self.phase = Phase::Unsettled { since: None };
    }

    /// Looks at the value of one more frame, which is finite.
    pub(super) fn follow(&mut self, value: f64, at: &Reading, levels: &SwingLimits) -> Swung {
        let now = at.captured;
        let is_neutral = (levels.neutral_min..=levels.neutral_max).contains(&value);
        self.phase = match self.phase {
            Phase::Unsettled { since } => self.settle(is_neutral.then(|| since.unwrap_or(now)), at),
            Phase::Neutral(_) if is_neutral => Phase::Neutral(Moment::of(at)),
            Phase::Neutral(_) if value < levels.neutral_min => Phase::Unsettled { since: None },
            Phase::Neutral(neutral) => {
                let away = Moment::of(at);
                rise(Start { neutral, away }, value, now, levels)
            }
            Phase::Onset(_) if is_neutral => Phase::Neutral(Moment::of(at)),
            Phase::Onset(_) if value < levels.neutral_min => Phase::Unsettled { since: None },
            Phase::Onset(start) => rise(start, value, now, levels),
            Phase::Peak(start, held) => {
                return self.hold_peak(start, held, value, at, levels);
            }
            Phase::Return(start, away_at) => {
                return self.come_back(start, away_at, value, at, levels);
            }
        };
        Swung::Going
    }

    fn settle(&self, since: Option<Duration>, at: &Reading) -> Phase {
        match since {
            Some(since) if at.captured.saturating_sub(since) >= self.hold => {
                Phase::Neutral(Moment::of(at))
            }
            since => Phase::Unsettled { since },
        }
    }

    fn hold_peak(
        &mut self,
        start: Start,
        mut held: Held,
        value: f64,
        at: &Reading,
        levels: &SwingLimits,
    ) -> Swung {
        if value >= levels.leave {
            held.extend(at.captured);
            self.phase = Phase::Peak(start, held);
            return Swung::Going;
        }
        if held.is_long(levels) {
            return self.come_back(start, held.until, value, at, levels);
        }
        self.phase = match value <= levels.neutral_max {
            true => Phase::Neutral(Moment::of(at)),
            false => Phase::Onset(start),
        };
        Swung::Going
    }

    fn come_back(
        &mut self,
        start: Start,
        away_at: Duration,
        value: f64,
        at: &Reading,
        levels: &SwingLimits,
    ) -> Swung {
        if value > levels.back || value < levels.neutral_min {
            self.phase = match value >= levels.enter {
                true => rise(start, value, at.captured, levels),
                false => Phase::Return(start, at.captured),
            };
            return Swung::Going;
        }
        self.phase = Phase::Neutral(Moment::of(at));
        let longest = at.captured.saturating_sub(start.neutral.captured);
        let shortest = away_at.saturating_sub(start.away.captured);
        if longest < levels.time_min || shortest > levels.time_max {
            return Swung::Going;
        }
        Swung::Done(Beginning { after: start.neutral.arrived, by: start.away.arrived })
    }
}

/// A value beyond neutral: the peak, or not yet.
fn rise(start: Start, value: f64, now: Duration, levels: &SwingLimits) -> Phase {
    if value < levels.enter {
        return Phase::Onset(start);
    }
    let mut held = Held::default();
    held.extend(now);
    Phase::Peak(start, held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::GestureLimits;
    use super::*;
    use crate::liveness::pose::Pose;
    use crate::liveness::synthetic::{Head, measures_of};

    const HOLD: Duration = Duration::from_millis(300);

    /// The frames on which a movement of these values, ten a second, is done.
    fn done_at(values: &[f64], levels: &SwingLimits) -> Vec<usize> {
        let pose = Pose::new(&measures_of(&Head::default()).faces[0].points).unwrap();
        let mut swing = Swing::new(Duration::ZERO, HOLD);
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
            if swing.follow(*value, &reading, levels) != Swung::Going {
                done.push(at);
            }
        }
        done
    }

    const TURN: [f64; 12] = [0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.6, 0.7, 0.6, 0.3, 0.1, 0.0];

    fn turn() -> SwingLimits {
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
            let levels = turn();
            let mut from = 0;
            for end in done_at(&values, &levels) {
                // Since the last one: neutral, then a peak of two frames, then neutral again.
                let part = &values[from..=end];
                let is_neutral = |value: &f64| value.abs() <= levels.neutral_max;
                prop_assert!(is_neutral(&values[end]));
                let start = part.iter().position(is_neutral);
                let rest = &part[start.unwrap()..part.len() - 1];
                let is_peak = |pair: &[f64]| pair[0] >= levels.enter && pair[1] >= levels.leave;
                prop_assert!(rest.windows(2).any(is_peak), "{part:?}");
                from = end;
            }
        }

        #[test]
        fn any_values_are_followed(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let limits = GestureLimits::default();
            for levels in [limits.turn, limits.nod, limits.blink, limits.mouth] {
                done_at(&values, &levels);
            }
        }
    }
}
