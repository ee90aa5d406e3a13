//! How well presentation attacks are told from living people, by the metrics of ISO/IEC 30107-3,
//! from scores of labelled presentations.
//!
//! A presentation passes when its score is at or above the threshold, as in a verification. APCER
//! is the share of the attacks of one species that pass, and the number that counts is the worst
//! species'; BPCER is the share of bona fide presentations that do not pass. A presentation
//! without an answer is in neither: it is counted by APNRR and BPNRR, to be read beside them, as a
//! system may keep silent where it would err.

mod binomial;
mod claim;
mod csv;
mod scores;
mod trade_off;

use std::collections::{BTreeMap, HashSet};

pub use binomial::{CONFIDENCE, Rate, error_free_needed};
pub use claim::{APCER_CLAIMS, BPCER_CLAIMS, Claim, Shortfall};
pub use scores::{FILE_BYTES_MAX, ScoresError, read};
pub use trade_off::{Errors, TradeOff};

/// A probability of a live person, known to lie in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(f64);

impl Score {
    /// `None` outside 0..=1 and for what is not a number.
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
pub enum Class {
    /// A person who wants to be recognised.
    BonaFide,
    /// An artefact.
    Attack {
        /// The kind of artefact (presentation attack instrument species), such as `print`.
        species: String,
    },
}

/// One presentation and how it was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    /// What was shown.
    pub class: Class,
    /// Unset when the system gave no answer.
    pub score: Option<Score>,
    /// Who, or whose likeness, was shown.
    pub subject: Option<String>,
    /// What it was captured with.
    pub device: Option<String>,
}

/// Scores of labelled presentations, to be judged at any threshold.
#[derive(Debug, Default)]
pub struct Evaluation {
    bona_fide: Sample,
    species: BTreeMap<String, Sample>,
}

/// The presentations of one kind.
#[derive(Debug, Default)]
struct Sample {
    /// Of the answered presentations, rising.
    scores: Vec<f64>,
    presentations: usize,
    subjects: HashSet<String>,
    devices: HashSet<String>,
}

impl Evaluation {
    /// Sorts presentations by what was shown.
    pub fn new(presentations: Vec<Presentation>) -> Self {
        let mut evaluation = Self::default();
        for presentation in presentations {
            match presentation.class {
                Class::BonaFide => &mut evaluation.bona_fide,
                Class::Attack { ref species } => {
                    evaluation.species.entry(species.clone()).or_default()
                }
            }
            .add(presentation);
        }
        for sample in evaluation.species.values_mut().chain([&mut evaluation.bona_fide]) {
            sample.scores.sort_by(f64::total_cmp);
        }
        evaluation
    }

    /// The rates at one threshold.
    pub fn at(&self, threshold: Score) -> Report {
        let threshold = threshold.value();
        let bona_fide = self.bona_fide.counts("bona fide", self.bona_fide.below(threshold));
        let mut attacks: Vec<Counts> = self
            .species
            .iter()
            .map(|(name, sample)| sample.counts(name, sample.at_or_above(threshold)))
            .collect();
        // The sort keeps the names' order where rates are equal; species without one come last.
        attacks.sort_by(|a, b| match (a.errors, b.errors) {
            (Some(a), Some(b)) => a.worse_first(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        Report { threshold, bona_fide, attacks }
    }

    /// How the two errors trade against each other; `None` unless presentations of both kinds were
    /// answered.
    pub fn trade_off(&self) -> Option<TradeOff<'_>> {
        let species = self.species.iter().map(|(name, sample)| (name.as_str(), &*sample.scores));
        TradeOff::new(&self.bona_fide.scores, species)
    }
}

impl Sample {
    fn add(&mut self, presentation: Presentation) {
        self.presentations += 1;
        self.scores.extend(presentation.score.map(Score::value));
        self.subjects.extend(presentation.subject);
        self.devices.extend(presentation.device);
    }

    fn below(&self, threshold: f64) -> usize {
        below(&self.scores, threshold)
    }

    fn at_or_above(&self, threshold: f64) -> usize {
        self.scores.len() - self.below(threshold)
    }

    fn counts(&self, name: &str, errors: usize) -> Counts {
        let answered = self.scores.len();
        Counts {
            name: name.to_owned(),
            presentations: self.presentations,
            subjects: self.subjects.len(),
            devices: self.devices.len(),
            errors: Rate::new(errors, answered),
            non_responses: Rate::new(self.presentations - answered, self.presentations),
        }
    }
}

/// How many of the rising `scores` lie below `threshold`.
fn below(scores: &[f64], threshold: f64) -> usize {
    scores.partition_point(|score| *score < threshold)
}

/// The rates at one threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// A score at or above it passes.
    pub threshold: f64,
    /// Errors are BPCER: living people who did not pass.
    pub bona_fide: Counts,
    /// By species, the worst first. Errors are APCER: attacks that passed.
    pub attacks: Vec<Counts>,
}

/// What happened to the presentations of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// The species; `bona fide` for living people.
    pub name: String,
    /// All of them, answered or not.
    pub presentations: usize,
    /// Different subjects named.
    pub subjects: usize,
    /// Different devices named.
    pub devices: usize,
    /// Wrong among the answered ones: APCER or BPCER. Unset when none was answered.
    pub errors: Option<Rate>,
    /// Without an answer among all: APNRR or BPNRR. Unset when there are none.
    pub non_responses: Option<Rate>,
}

impl Report {
    /// The worst species and its rate: the APCER of the system.
    pub fn apcer(&self) -> Option<(&str, Rate)> {
        let worst = self.attacks.first()?;
        Some((&worst.name, worst.errors?))
    }

    /// Living people who did not pass.
    pub fn bpcer(&self) -> Option<Rate> {
        self.bona_fide.errors
    }

    /// The mean of the worst species' APCER and BPCER. It hides both, and serves only to compare
    /// with papers that give nothing else.
    pub fn acer(&self) -> Option<f64> {
        let (_, apcer) = self.apcer()?;
        Some(f64::midpoint(apcer.value(), self.bpcer()?.value()))
    }

    /// Which of [`APCER_CLAIMS`] the answered attacks support.
    pub fn apcer_claims(&self) -> Vec<Claim> {
        claim::judge(&APCER_CLAIMS, &self.attacks)
    }

    /// Which of [`BPCER_CLAIMS`] the answered bona fide presentations support.
    pub fn bpcer_claims(&self) -> Vec<Claim> {
        claim::judge(&BPCER_CLAIMS, std::slice::from_ref(&self.bona_fide))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(errors: usize, presentations: usize) -> Option<Rate> {
        Rate::new(errors, presentations)
    }

    fn evaluation(lines: &[&str]) -> Evaluation {
        let file = format!("score,label,species,subject,device,outcome\n{}", lines.join("\n"));
        Evaluation::new(read(file.as_bytes()).unwrap())
    }

    fn half() -> Score {
        Score::new(0.5).unwrap()
    }

    /// By hand: of four people one is rejected and a fifth gets no answer; one of two prints and
    /// two of two videos pass, a third video gets no answer.
    const LINES: [&str; 10] = [
        "0.9,bona fide,,anna,a,",
        "0.5,bona fide,,anna,b,",
        "0.8,bona fide,,bert,a,",
        "0.4999,bona fide,,carl,a,",
        ",bona fide,,dora,a,non-response",
        "0.5,attack,print,anna,a,",
        "0.1,attack,print,anna,a,",
        "0.6,attack,video,anna,a,",
        "0.7,attack,video,bert,a,",
        ",attack,video,bert,a,non-response",
    ];

    #[test]
    fn rates_are_those_counted_by_hand() {
        let report = evaluation(&LINES).at(half());
        let bona_fide = &report.bona_fide;
        assert_eq!((bona_fide.errors, bona_fide.non_responses), (rate(1, 4), rate(1, 5)));
        assert_eq!((bona_fide.presentations, bona_fide.subjects, bona_fide.devices), (5, 4, 2));
        let attacks: Vec<_> = report
            .attacks
            .iter()
            .map(|species| (species.name.as_str(), species.errors, species.non_responses))
            .collect();
        assert_eq!(
            attacks,
            [("video", rate(2, 2), rate(1, 3)), ("print", rate(1, 2), rate(0, 2)),]
        );
        assert_eq!(report.apcer(), rate(2, 2).map(|rate| ("video", rate)));
        assert_eq!(report.acer(), Some((1.0 + 0.25) / 2.0));
    }

    #[test]
    fn a_threshold_of_0_lets_all_pass() {
        let report = evaluation(&LINES).at(Score::new(0.0).unwrap());
        assert_eq!(report.bpcer(), rate(0, 4));
        assert!(report.attacks.iter().all(|species| species.errors.unwrap().value() == 1.0));
    }

    #[test]
    fn one_kind_alone_has_no_rate_of_the_other() {
        let people = evaluation(&LINES[..5]);
        assert_eq!(people.at(half()).apcer(), None);
        assert_eq!(people.at(half()).acer(), None);
        assert_eq!(people.at(half()).apcer_claims(), []);
        assert!(people.trade_off().is_none());
        let attacks = evaluation(&LINES[5..]);
        assert_eq!(attacks.at(half()).bpcer(), None);
        assert_eq!(attacks.at(half()).bona_fide.non_responses, None);
        assert!(attacks.at(half()).bpcer_claims().iter().all(|claim| !claim.is_supported()));
        assert!(attacks.trade_off().is_none());
    }

    #[test]
    fn a_species_that_was_never_answered_has_no_rate_and_comes_last() {
        let report =
            evaluation(&[",attack,a mask,anna,a,non-response", "0.1,attack,print,anna,a,"])
                .at(half());
        let names: Vec<_> = report.attacks.iter().map(|species| &species.name[..]).collect();
        assert_eq!(names, ["print", "a mask"]);
        assert_eq!(report.attacks[1].errors, None);
        assert_eq!(report.attacks[1].non_responses, rate(1, 1));
        assert_eq!(report.apcer(), rate(0, 1).map(|rate| ("print", rate)));
    }

    #[test]
    fn what_is_no_probability_is_no_score() {
        for value in [-0.001, 1.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Score::new(value), None);
        }
    }
}
