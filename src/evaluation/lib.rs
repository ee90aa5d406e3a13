//! How well a biometric system tells what it must tell apart: error rates, their bounds and plots,
//! from scores that were recorded elsewhere. Knows nothing of the server, and prints nothing.
//!
//! So far it judges presentation attack detection (PAD), by the metrics of ISO/IEC 30107-3. A
//! presentation passes when its score is at or above the threshold, as in a verification. Each
//! presentation that was answered is right or wrong; each that was not is counted on its own.
//!
//! | rate | share | of |
//! |---|---|---|
//! | APCER | attacks that pass | the answered attacks of one species |
//! | BPCER | living people who do not pass | the answered bona fide presentations |
//! | APNRR, BPNRR | presentations without an answer | all presentations of that kind |
//!
//! The APCER that counts is the worst species'. APNRR and BPNRR are to be read beside the errors,
//! as a system may keep silent where it would err.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`plot`] | the detection error trade-off as a picture (SVG) |
//! | `report` | all that is known about a file of scores, as JSON |
//! | `claims` | what a sample allows to claim |
//! | `rates` | the error rates at a threshold |
//! | `det` | the error rates at every threshold, and the points that reports quote |
//! | `bounds` | a rate and its exact binomial bounds |
//! | `scores`, `csv` | reads labelled presentations from a file |
//! | `presentation` | what was shown, and what was answered |
//! | [`width`] | how wide text is |
//!
//! A module imports only from modules further down this list.

mod bounds;
mod claims;
mod csv;
mod det;
pub mod plot;
mod presentation;
mod rates;
mod report;
mod scores;
pub mod width;

pub use bounds::{CONFIDENCE, Rate, error_free_needed, percent};
pub use claims::{APCER_CLAIMS, BPCER_CLAIMS, Claim, Shortfall};
pub use det::{Errors, OperatingPoint, TradeOff};
pub use presentation::{Class, Presentation, Score};
pub use rates::{Counts, Evaluation, Report};
pub use report::Findings;
pub use scores::{FILE_BYTES_MAX, ScoresError, read};
