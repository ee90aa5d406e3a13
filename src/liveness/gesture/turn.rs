//! Turning the head, by the nose between the eyes, and by the depth that a turn shows.
//!
//! A print that is turned about its vertical axis hardly moves the nose; one that is turned about
//! a slanted axis does, and is stopped by its depth.

use super::GestureLimits;
use super::movement::MovementFsm;
use crate::liveness::baseline::Baseline;
use crate::liveness::planarity;
use crate::liveness::reading::Reading;

/// How far the head is turned to the person's own left. Mirrored frames would swap the sides.
pub(super) fn left_turn(reading: &Reading) -> f64 {
    reading.pose.turn
}

/// What of the face no flat picture explains, where it is turned most.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct TurnDepth {
    turn: f64,
    residual: f64,
}

impl TurnDepth {
    /// Looks at one more frame of a turn.
    pub(super) fn measure(
        &mut self,
        movement: &MovementFsm,
        reading: &Reading,
        baseline: &Baseline,
        limits: &GestureLimits,
    ) {
        let turn = reading.pose.turn.abs();
        let is_best = movement.is_at_peak() && turn > self.turn && turn <= limits.turn_max;
        if let Some(neutral) = baseline.mean_shape().filter(|_| is_best) {
            let residual = planarity::residual(&neutral, &reading.pose.shape);
            *self = Self { turn, residual };
        }
    }

    /// In distances of the eyes; 0 where nothing was measured.
    pub(super) fn value(&self) -> f64 {
        self.residual
    }
}
