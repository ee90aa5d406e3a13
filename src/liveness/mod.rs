//! Is it a live person? Passive rules: what the network sees, and what its numbers mean; and how
//! well they tell attacks from people.

pub mod evaluation;
mod measures;
mod pad;

pub use measures::{FaceMeasures, Judged, Measures, MeshMeasures};
pub use pad::{LivenessError, LivenessOutput, PassiveScore, crop_rect};
