//! Opening the mouth, by the lips of the face mesh.

use crate::liveness::reading::Reading;

/// Distance of the lips over the width of the mouth.
pub(super) fn opening(reading: &Reading) -> Option<f64> {
    reading.mouth_open
}
