//! Turns of the head, measured by the position of the nose between the eyes, and by depth.
//!
//! A print turned about its vertical axis hardly moves the nose. A print turned about a slanted
//! axis does, and fails for its lack of depth.

use super::GestureLimits;
use super::movement::MovementFsm;
use crate::liveness::baseline::Baseline;
use crate::liveness::planarity;
use crate::liveness::reading::Reading;

/// Returns how far the head is turned to the person's own left. The frame must not be mirrored.
pub(super) fn left_turn(reading: &Reading) -> f64 {
    reading.pose.turn
}

/// Depth of the face at its largest turn: the residual that no flat picture explains.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct TurnDepth {
    turn: f64,
    residual: f64,
}

impl TurnDepth {
    /// Measures the depth of a frame if it has the largest turn so far.
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

    /// Returns the residual in inter-eye distances, or 0 if nothing was measured.
    pub(super) fn value(&self) -> f64 {
        self.residual
    }
}
