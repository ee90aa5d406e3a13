//! Is it a live person? Passive rules: what the network sees, and what its numbers mean.

mod pad;

pub use pad::{LivenessError, LivenessOutput, PassiveScore, crop_rect};
