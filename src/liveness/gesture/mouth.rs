//! Opening of the mouth, measured by the lips of the face mesh.

use crate::liveness::reading::Reading;

/// Returns the distance of the lips over the width of the mouth.
pub(super) fn opening(reading: &Reading) -> Option<f64> {
    reading.mouth_open
}
