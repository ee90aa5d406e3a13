//! Error rates of a biometric system, their bounds and their plots, computed from recorded scores.
//! The crate knows nothing of the server, and prints nothing.
//!
//! It judges presentation attack detection (PAD) by the metrics of ISO/IEC 30107-3. A presentation
//! passes if its score is at or above the threshold, as in a verification.
//!
//! | rate | share | of |
//! |---|---|---|
//! | APCER | attacks that pass | the answered attacks of one species |
//! | BPCER | living people who do not pass | the answered bona fide presentations |
//! | APNRR, BPNRR | presentations without an answer | all presentations of that kind |
//!
//! The APCER of the system is that of the worst species. No error rate counts presentations without
//! an answer. Reports therefore show APNRR and BPNRR beside the error rates: a system could refuse
//! to answer where it would err.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`plot`] | the detection error trade-off as a picture (SVG) |
//! | `findings` | the findings about a file of scores, and their JSON |
//! | `claims` | which limits a sample supports |
//! | `rates` | the error rates at a threshold |
//! | `det` | the error rates at every threshold, and the operating points that reports quote |
//! | `bounds` | a rate and its exact binomial bounds |
//! | `scores`, `csv` | labelled presentations from a file |
//! | `presentation` | what was presented to the camera, and the answer |
//! | [`svg`] | SVG pictures in the style of all plots |
//! | [`width`] | the width of text |
//!
//! A module imports only from modules further down this list.

mod bounds;
mod claims;
mod csv;
mod det;
mod findings;
pub mod plot;
mod presentation;
mod rates;
mod scores;
pub mod svg;
pub mod width;

pub use bounds::{CONFIDENCE, Rate, percent};
pub use claims::{APCER_CLAIMS, BPCER_CLAIMS, Claim, Shortfall};
pub use det::{ErrorRates, OperatingPoint, TradeOff};
pub use findings::Findings;
pub use presentation::{Presentation, Score};
pub use rates::{Evaluation, SampleCounts, ThresholdReport};
pub use scores::{FILE_BYTES_MAX, ScoresError, read_scores};
