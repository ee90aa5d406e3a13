//! Labelled presentations: what was presented to the camera, and the answer of the system.

/// The probability that the person is live, in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(f64);

impl Score {
    /// Returns `None` for values outside 0..=1 and for NaN.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    pub(crate) fn value(self) -> f64 {
        self.0
    }
}

/// The label of a presentation: what was presented to the camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PresentationKind {
    /// A person who wants to be recognised.
    BonaFide,
    /// An artefact.
    Attack {
        /// The kind of artefact (presentation attack instrument species), such as `print`.
        species: String,
    },
}

/// One presentation, and the answer of the system.
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    pub(crate) kind: PresentationKind,
    /// The answer. `None` if the system gave no answer.
    pub(crate) score: Option<Score>,
    /// The person in front of the camera, or the person that an artefact shows.
    pub(crate) subject: Option<String>,
    /// The camera or device that captured it.
    pub(crate) device: Option<String>,
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
