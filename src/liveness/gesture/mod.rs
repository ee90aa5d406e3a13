//! Was the action done? Each action is one number per frame that goes away from neutral and comes
//! back; [`movement::MovementFsm`] follows it, and the files beside say what the number is.

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

/// Follows one action through the frames of its step.
#[derive(Debug)]
pub(super) struct Gesture {
    action: Action,
    movement: MovementFsm,
    done_count: usize,
    depth: TurnDepth,
}

/// What a frame adds to an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum GestureProgress {
    /// Not done yet.
    Ongoing,
    /// Done.
    Done {
        /// Of the movement, of the last one where there are several.
        start: StartInterval,
        /// What of the turned face no flat picture explains; of turns alone.
        depth: Option<f64>,
    },
}

impl Gesture {
    /// An action of a person who has been neutral since `neutral_since`.
    pub(super) fn new(action: Action, neutral_since: Duration, neutral_hold: Duration) -> Self {
        let movement = MovementFsm::new(neutral_since, neutral_hold);
        Self { action, movement, done_count: 0, depth: TurnDepth::default() }
    }

    /// A movement is on its way.
    pub(super) fn is_moving(&self) -> bool {
        self.movement.is_moving()
    }

    /// Forgets a movement that could not be followed to its end.
    pub(super) fn reset(&mut self) {
        self.movement.reset();
    }

    /// Looks at one more frame. `answer_from` is the first arrival of a movement that can be the
    /// answer to the prompt; earlier blinks are nobody's answer and do not count.
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
            // What an abandoned turn showed does not speak for the next one.
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

/// Counts actions that were not asked for. Blinks are not among them: people blink.
#[derive(Debug, Default)]
pub(super) struct UnpromptedActions {
    peaks: [PeakHold; Action::ALL.len()],
    count: usize,
}

impl UnpromptedActions {
    /// How many actions other than `asked` have come to their peak, with this frame.
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

/// The number that the action moves; `None` where a frame does not tell it.
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
