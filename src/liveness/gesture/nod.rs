//! Nods, measured by the height of the nose between eyes and mouth.

use super::GestureLimits;
use crate::liveness::baseline::Baseline;
use crate::liveness::reading::Reading;

/// Returns how far the head is below its neutral height, or `None` if the head is turned: heights
/// of a turned head are not reliable.
pub(super) fn lowering(
    reading: &Reading,
    baseline: &Baseline,
    limits: &GestureLimits,
) -> Option<f64> {
    let is_frontal = reading.pose.turn.abs() <= limits.nod_turn_max;
    baseline.nod_median().filter(|_| is_frontal).map(|neutral| reading.nod - neutral)
}
