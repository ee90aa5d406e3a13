//! Was the action done? Each action is one number per frame that goes away from neutral and comes
//! back; [`swing::Swing`] follows it, and the files beside say what the number is.

mod blink;
mod limits;
mod mouth;
mod nod;
mod swing;
mod turn;

use std::time::Duration;

pub use limits::{GestureLimits, SwingLimits};

use super::action::Action;
use super::baseline::Baseline;
use super::reading::Reading;
use swing::{Beginning, Swing, Swung};

/// Follows one action through the frames of its step.
#[derive(Debug)]
pub(super) struct Gesture {
    action: Action,
    swing: Swing,
    done: usize,
    depth: turn::Depth,
}

/// What a frame adds to an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Progress {
    /// Not done yet.
    Going,
    /// Done.
    Done {
        /// Of the movement, of the last one where there are several.
        beginning: Beginning,
        /// What of the turned face no flat picture explains; of turns alone.
        depth: Option<f64>,
    },
}

impl Gesture {
    /// An action of a person who has been neutral since `neutral_since`.
    pub(super) fn new(action: Action, neutral_since: Duration, neutral_hold: Duration) -> Self {
        let swing = Swing::new(neutral_since, neutral_hold);
        Self { action, swing, done: 0, depth: turn::Depth::default() }
    }

    /// A movement is on its way.
    pub(super) fn is_moving(&self) -> bool {
        self.swing.is_moving()
    }

    /// Forgets a movement that could not be followed to its end.
    pub(super) fn start_again(&mut self) {
        self.swing.unsettle();
    }

    /// Looks at one more frame. `earliest` is the first arrival of a movement that can be the
    /// answer to the prompt; earlier blinks are nobody's answer and do not count.
    pub(super) fn follow(
        &mut self,
        reading: &Reading,
        baseline: &Baseline,
        limits: &GestureLimits,
        earliest: Duration,
    ) -> Progress {
        let Some(value) = value(self.action, reading, baseline, limits) else {
            if self.action == Action::Blink && !blink::is_posed(reading, baseline, limits) {
                self.swing.unsettle();
            }
            return Progress::Going;
        };
        if !self.swing.is_moving() {
            // What an abandoned turn showed does not speak for the next one.
            self.depth = turn::Depth::default();
        }
        let levels = levels(self.action, limits);
        let swung = self.swing.follow(value, reading, levels);
        if is_turn(self.action) {
            self.depth.follow(&self.swing, reading, baseline, limits);
        }
        match swung {
            Swung::Going => Progress::Going,
            Swung::Done(beginning) => self.finish(beginning, limits, earliest),
        }
    }

    fn finish(
        &mut self,
        beginning: Beginning,
        limits: &GestureLimits,
        earliest: Duration,
    ) -> Progress {
        let is_spontaneous = self.action == Action::Blink && beginning.by < earliest;
        self.done += usize::from(!is_spontaneous);
        let wanted = if self.action == Action::Blink { limits.blinks } else { 1 };
        if self.done < wanted {
            return Progress::Going;
        }
        let depth = is_turn(self.action).then(|| self.depth.value());
        Progress::Done { beginning, depth }
    }
}

/// Counts actions that were not asked for. Blinks are not among them: people blink.
#[derive(Debug, Default)]
pub(super) struct Watch {
    peaks: [swing::Held; Action::ALL.len()],
    count: usize,
}

impl Watch {
    /// How many actions other than `asked` have come to their peak, with this frame.
    pub(super) fn follow(
        &mut self,
        asked: Action,
        reading: &Reading,
        baseline: &Baseline,
        limits: &GestureLimits,
    ) -> usize {
        for (held, action) in self.peaks.iter_mut().zip(Action::ALL) {
            if action == asked || action == Action::Blink {
                continue;
            }
            let levels = levels(action, limits);
            let was_long = held.is_long(levels);
            match value(action, reading, baseline, limits) {
                Some(value) if value >= levels.enter => held.extend(reading.captured),
                _ => *held = swing::Held::default(),
            }
            self.count += usize::from(!was_long && held.is_long(levels));
        }
        self.count
    }
}

fn is_turn(action: Action) -> bool {
    matches!(action, Action::TurnLeft | Action::TurnRight)
}

fn levels(action: Action, limits: &GestureLimits) -> &SwingLimits {
    match action {
        Action::TurnLeft | Action::TurnRight => &limits.turn,
        Action::Blink => &limits.blink,
        Action::Nod => &limits.nod,
        Action::OpenMouth => &limits.mouth,
    }
}

/// The number that the action moves; `None` where a frame does not tell it.
fn value(
    action: Action,
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> Option<f64> {
    let value = match action {
        Action::TurnLeft => turn::to_the_left(reading),
        Action::TurnRight => -turn::to_the_left(reading),
        Action::Blink => blink::closed(reading, baseline, limits)?,
        Action::Nod => nod::down(reading, baseline, limits)?,
        Action::OpenMouth => mouth::open(reading)?,
    };
    value.is_finite().then_some(value)
}
