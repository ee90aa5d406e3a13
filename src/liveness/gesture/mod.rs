//! Gestures: detects that an action was performed.
//!
//! Each action has one value per frame, which moves away from neutral and back.
//! [`movement::MovementFsm`] tracks the movement. The other modules compute the value of each
//! action.

mod blink;
mod limits;
mod mouth;
mod movement;
mod nod;
mod turn;

use std::time::Duration;

pub use limits::{GestureLimits, MovementLimits};

use super::action::Action;
use super::baseline::Baseline;
use super::reading::Reading;
use movement::{MovementFsm, MovementProgress, PeakHold, StartInterval};
use turn::TurnDepth;

/// Tracks one action through the frames of its step.
#[derive(Debug)]
pub(super) struct Gesture {
    action: Action,
    movement: MovementFsm,
    done_count: usize,
    depth: TurnDepth,
}

/// Progress of an action after a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum GestureProgress {
    Ongoing,
    Done {
        /// Start of the action's last movement.
        start: StartInterval,
        /// Residual that no flat picture explains; only for turns.
        depth: Option<f64>,
    },
}

impl Gesture {
    /// Creates the gesture of a person who is neutral since `neutral_since`.
    pub(super) fn new(action: Action, neutral_since: Duration, neutral_hold: Duration) -> Self {
        let movement = MovementFsm::new(neutral_since, neutral_hold);
        Self { action, movement, done_count: 0, depth: TurnDepth::default() }
    }

    /// Returns true while a movement is under way.
    pub(super) fn is_moving(&self) -> bool {
        self.movement.is_moving()
    }

    /// Discards a movement that was not observed to its end.
    pub(super) fn reset(&mut self) {
        self.movement.reset();
    }

    /// Evaluates a frame. `answer_from` is the earliest arrival time of an answer to the prompt;
    /// blinks that start before it are spontaneous and do not count.
    pub(super) fn update(
        &mut self,
        reading: &Reading,
        baseline: &Baseline,
        limits: &GestureLimits,
        answer_from: Duration,
    ) -> GestureProgress {
        let Some(value) = action_value(self.action, reading, baseline, limits) else {
            if self.action == Action::Blink && !blink::is_measurable(reading, baseline, limits) {
                self.movement.reset();
            }
            return GestureProgress::Ongoing;
        };
        if !self.movement.is_moving() {
            // The depth of an abandoned turn must not count for the next one.
            self.depth = TurnDepth::default();
        }
        let movement_limits = movement_limits(self.action, limits);
        let progress = self.movement.advance(value, reading, movement_limits);
        if is_turn(self.action) {
            self.depth.measure(&self.movement, reading, baseline, limits);
        }
        match progress {
            MovementProgress::Ongoing => GestureProgress::Ongoing,
            MovementProgress::Done(start) => self.count_movement(start, limits, answer_from),
        }
    }

    fn count_movement(
        &mut self,
        start: StartInterval,
        limits: &GestureLimits,
        answer_from: Duration,
    ) -> GestureProgress {
        let is_spontaneous = self.action == Action::Blink && start.latest < answer_from;
        self.done_count += usize::from(!is_spontaneous);
        let needed = if self.action == Action::Blink { limits.blinks } else { 1 };
        if self.done_count < needed {
            return GestureProgress::Ongoing;
        }
        let depth = is_turn(self.action).then(|| self.depth.value());
        GestureProgress::Done { start, depth }
    }
}

/// Counts actions that were not prompted. Blinks are not counted, because people blink
/// spontaneously.
#[derive(Debug, Default)]
pub(super) struct UnpromptedActions {
    peaks: [PeakHold; Action::ALL.len()],
    count: usize,
}

impl UnpromptedActions {
    /// Returns the number of actions other than `asked` that reached their peak, up to this frame.
    pub(super) fn count_peaks(
        &mut self,
        asked: Action,
        reading: &Reading,
        baseline: &Baseline,
        limits: &GestureLimits,
    ) -> usize {
        for (peak, action) in self.peaks.iter_mut().zip(Action::ALL) {
            if action == asked || action == Action::Blink {
                continue;
            }
            let movement_limits = movement_limits(action, limits);
            let was_long_enough = peak.is_long_enough(movement_limits);
            match action_value(action, reading, baseline, limits) {
                Some(value) if value >= movement_limits.enter => peak.add_frame(reading.captured),
                _ => *peak = PeakHold::default(),
            }
            self.count += usize::from(!was_long_enough && peak.is_long_enough(movement_limits));
        }
        self.count
    }
}

fn is_turn(action: Action) -> bool {
    matches!(action, Action::TurnLeft | Action::TurnRight)
}

fn movement_limits(action: Action, limits: &GestureLimits) -> &MovementLimits {
    match action {
        Action::TurnLeft | Action::TurnRight => &limits.turn,
        Action::Blink => &limits.blink,
        Action::Nod => &limits.nod,
        Action::OpenMouth => &limits.mouth,
    }
}

/// Returns the value that the action moves, or `None` if the frame does not show it.
fn action_value(
    action: Action,
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> Option<f64> {
    let value = match action {
        Action::TurnLeft => turn::left_turn(reading),
        Action::TurnRight => -turn::left_turn(reading),
        Action::Blink => blink::closed_share(reading, baseline, limits)?,
        Action::Nod => nod::lowering(reading, baseline, limits)?,
        Action::OpenMouth => mouth::opening(reading)?,
    };
    value.is_finite().then_some(value)
}
