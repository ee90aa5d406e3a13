//! Vocabulary of decisions: decision, reason, the subject of a reason, and thresholds.

use std::fmt;

use super::{Check, ReasonCode};

/// Recommendation to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same, live person, at the requested false-match rate.
    Pass,
    /// Not the same person, or not a live one.
    Fail,
    /// A person must decide.
    Review,
    /// Repeat the capture: the photograph or the session.
    Retry,
}

/// The part of a request that a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The whole request.
    Request,
    /// The portrait of a `Verify` or of a session.
    Portrait,
    /// A live photograph of a `Verify`, by its index in the request.
    LivePhoto(usize),
    /// The image of a request with one image.
    Image,
    /// The first side of a `Compare`.
    SideA,
    /// The second side of a `Compare`.
    SideB,
}

/// Prints the request field that holds the image, or nothing for the whole request.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Portrait => f.write_str("portrait"),
            Self::LivePhoto(index) => write!(f, "live_photos[{index}]"),
            Self::Image => f.write_str("image"),
            Self::SideA => f.write_str("a.image"),
            Self::SideB => f.write_str("b.image"),
        }
    }
}

/// A reason of a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// The code, from the fixed list.
    pub code: ReasonCode,
    /// The part of the request that the reason is about.
    pub subject: Subject,
    /// The measured value, if the reason has one.
    pub value: Option<f64>,
    /// The limit of the value.
    pub limit: Option<f64>,
}

impl Reason {
    /// Creates a reason without numbers.
    pub fn plain(code: ReasonCode, subject: Subject) -> Self {
        Self { code, subject, value: None, limit: None }
    }

    /// Creates a reason with a value and its limit.
    pub fn limited(code: ReasonCode, subject: Subject, value: f64, limit: f64) -> Self {
        Self { code, subject, value: Some(value), limit: Some(limit) }
    }

    /// Returns the reason of a failed check, or `None` if the check passed.
    pub fn of_check(check: &Check, subject: Subject) -> Option<Self> {
        check.reason().map(|code| Self::limited(code, subject, check.value, check.limit))
    }
}

/// Similarity thresholds of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Thresholds {
    /// Thresholds of a calibration entry.
    Calibrated {
        /// Least cosine that passes at the policy's false-match rate.
        pass_min: f64,
        /// Least cosine that goes to review; not above `pass_min`.
        review_min: f64,
        /// True if the entry was not measured on this deployment's own kind of pairs.
        generic: bool,
    },
    /// There is no calibration entry: nothing may pass.
    Uncalibrated,
}
