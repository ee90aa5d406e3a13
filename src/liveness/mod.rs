//! Is it a live person? Passive rules: what the network sees, and what its numbers mean.

mod measures;
mod pad;

pub use measures::{FaceMeasures, Judged, Measures, MeshMeasures};
pub use pad::{Fusion, LivenessError, LivenessOutput, PassiveScore, crop_rect};
