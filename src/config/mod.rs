//! Validated settings. Read once, then passed down as values.

mod quality;

pub use quality::{QualityLimits, SourceLimits};
