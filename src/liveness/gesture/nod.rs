//! Nodding, by the height of the nose between eyes and mouth.

use super::GestureLimits;
use crate::liveness::baseline::Baseline;
use crate::liveness::reading::Reading;

/// How far the head is down from its own neutral height. `None` of a turned head, whose heights
/// say little.
pub(super) fn lowering(
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> Option<f64> {
    let is_frontal = reading.pose.turn.abs() <= limits.nod_turn_max;
    baseline.nod_median().filter(|_| is_frontal).map(|neutral| reading.nod - neutral)
}
