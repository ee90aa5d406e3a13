//! Labelled presentations: what was shown to the camera, and what the system answered.

/// A probability of a live person, known to lie in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(f64);

impl Score {
    /// Returns `None` for values outside 0..=1 and for NaN.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The probability.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// What was shown to the camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresentationKind {
    /// A person who wants to be recognised.
    BonaFide,
    /// An artefact.
    Attack {
        /// The kind of artefact (presentation attack instrument species), such as `print`.
        species: String,
    },
}

/// One presentation and the answer of the system.
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    /// What was shown.
    pub kind: PresentationKind,
    /// Unset when the system gave no answer.
    pub score: Option<Score>,
    /// The person who was shown, or whose likeness was.
    pub subject: Option<String>,
    /// The camera or device that captured it.
    pub device: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_probability_is_no_score() {
        for value in [-0.001, 1.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Score::new(value), None);
        }
    }
}
