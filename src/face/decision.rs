//! The vocabulary of decisions: the decision, its reasons, what each reason is about, and the
//! thresholds.

use std::fmt;

use super::{Check, ReasonCode};

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same, live person, at the false-match rate asked for.
    Pass,
    /// Not the same person, or not a live one.
    Fail,
    /// A person must decide.
    Review,
    /// Take the photograph again.
    Retry,
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The request as a whole.
    Request,
    /// The portrait of a `Verify`.
    Portrait,
    /// A live photograph of a `Verify`, by its place in the request.
    LivePhoto(usize),
    /// The image of a request about one image.
    Image,
    /// The first side of a `Compare`.
    SideA,
    /// The second side of a `Compare`.
    SideB,
}

/// Prints the field of the request that holds the image; nothing for the request itself.
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

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// Which of the fixed list.
    pub code: ReasonCode,
    /// What it is about.
    pub subject: Subject,
    /// What was measured, where the reason has a number.
    pub value: Option<f64>,
    /// What it was held against.
    pub limit: Option<f64>,
}

impl Reason {
    /// A reason without numbers.
    pub fn plain(code: ReasonCode, subject: Subject) -> Self {
        Self { code, subject, value: None, limit: None }
    }

    /// A reason with a value and its limit.
    pub fn limited(code: ReasonCode, subject: Subject, value: f64, limit: f64) -> Self {
        Self { code, subject, value: Some(value), limit: Some(limit) }
    }

    /// The reason behind a check that failed; `None` when it held.
    pub fn of_check(check: &Check, subject: Subject) -> Option<Self> {
        check.reason().map(|code| Self::limited(code, subject, check.value, check.limit))
    }
}

/// The similarities a comparison is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Thresholds {
    /// Thresholds of a calibration row.
    Calibrated {
        /// Least cosine that passes at the policy's false-match rate.
        pass_min: f64,
        /// Least cosine that goes to a person; not above `pass_min`.
        review_min: f64,
        /// The row was not measured on this deployment's own kind of pairs.
        generic: bool,
    },
    /// No row: nothing may pass.
    Uncalibrated,
}
