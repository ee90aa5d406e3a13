//! The error rates of labelled presentations at a threshold, by ISO/IEC 30107-3.

use std::collections::{BTreeMap, HashSet};

use crate::bounds::Rate;
use crate::det::{TradeOff, count_below};
use crate::presentation::{Presentation, PresentationKind, Score};

/// Scores of labelled presentations, to be judged at any threshold.
#[derive(Debug, Default)]
pub struct Evaluation {
    bona_fide: Sample,
    species: BTreeMap<String, Sample>,
}

/// The bona fide presentations, or the attacks of one species.
#[derive(Debug, Default)]
struct Sample {
    /// Scores of the answered presentations, rising.
    scores: Vec<f64>,
    presentations: usize,
    subjects: HashSet<String>,
    devices: HashSet<String>,
}

impl Evaluation {
    /// Groups presentations by their kind and species.
    pub fn new(presentations: Vec<Presentation>) -> Self {
        let mut evaluation = Self::default();
        for presentation in presentations {
            match presentation.kind {
                PresentationKind::BonaFide => &mut evaluation.bona_fide,
                PresentationKind::Attack { ref species } => {
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

    /// Computes all rates at `threshold`.
    pub fn report_at(&self, threshold: Score) -> ThresholdReport {
        let threshold = threshold.value();
        let bona_fide = self.bona_fide.counts("bona fide", self.bona_fide.count_below(threshold));
        let mut attacks: Vec<SampleCounts> = self
            .species
            .iter()
            .map(|(name, sample)| sample.counts(name, sample.count_at_or_above(threshold)))
            .collect();
        // The sort is stable: species with equal rates stay in the order of their names. Species
        // without a rate come last.
        attacks.sort_by(|a, b| match (a.error_rate, b.error_rate) {
            (Some(a), Some(b)) => a.worse_first(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        ThresholdReport { threshold, bona_fide, attacks }
    }

    /// Returns the trade-off of both error rates, or `None` unless presentations of both kinds were
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

    fn count_below(&self, threshold: f64) -> usize {
        count_below(&self.scores, threshold)
    }

    fn count_at_or_above(&self, threshold: f64) -> usize {
        self.scores.len() - self.count_below(threshold)
    }

    fn counts(&self, name: &str, errors: usize) -> SampleCounts {
        let answered = self.scores.len();
        SampleCounts {
            name: name.to_owned(),
            presentations: self.presentations,
            subjects: self.subjects.len(),
            devices: self.devices.len(),
            error_rate: Rate::new(errors, answered),
            non_response_rate: Rate::new(self.presentations - answered, self.presentations),
        }
    }
}

/// The rates at one threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct ThresholdReport {
    /// A score at or above the threshold passes.
    pub threshold: f64,
    /// Bona fide presentations. Their error rate is BPCER: the share that did not pass.
    pub bona_fide: SampleCounts,
    /// Attacks by species, the worst first. Their error rate is APCER: the share that passed.
    pub attacks: Vec<SampleCounts>,
}

/// Counts and rates of the bona fide presentations, or of the attacks of one species.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleCounts {
    /// The species, or `bona fide`.
    pub name: String,
    /// Presentations, answered or not.
    pub presentations: usize,
    /// Number of distinct subjects.
    pub subjects: usize,
    /// Number of distinct devices.
    pub devices: usize,
    /// Share of wrong answers among the answered presentations: APCER or BPCER. `None` if none was
    /// answered.
    pub error_rate: Option<Rate>,
    /// Share of missing answers among all presentations: APNRR or BPNRR. `None` without
    /// presentations.
    pub non_response_rate: Option<Rate>,
}

impl ThresholdReport {
    /// Returns the worst species and its APCER, which is the APCER of the system.
    pub fn apcer(&self) -> Option<(&str, Rate)> {
        let worst = self.attacks.first()?;
        Some((&worst.name, worst.error_rate?))
    }

    /// Returns BPCER: the share of answered bona fide presentations that did not pass.
    pub fn bpcer(&self) -> Option<Rate> {
        self.bona_fide.error_rate
    }

    /// Returns ACER, in 0..=1: the mean of BPCER and the worst species' APCER. It hides both rates,
    /// and serves only for comparison with papers that give no other number.
    pub fn acer(&self) -> Option<f64> {
        let (_, apcer) = self.apcer()?;
        Some(f64::midpoint(apcer.value(), self.bpcer()?.value()))
    }

    /// Describes the numbers of presentations and species in one phrase.
    pub fn describe_contents(&self) -> String {
        let attacks: usize = self.attacks.iter().map(|species| species.presentations).sum();
        format!(
            "{} bona fide presentations, {attacks} attacks of {} species",
            self.bona_fide.presentations,
            self.attacks.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::read_scores;

    fn rate(errors: usize, presentations: usize) -> Option<Rate> {
        Rate::new(errors, presentations)
    }

    fn evaluation(lines: &[&str]) -> Evaluation {
        let file = format!("score,label,species,subject,device,outcome\n{}", lines.join("\n"));
        Evaluation::new(read_scores(file.as_bytes()).unwrap())
    }

    fn half() -> Score {
        Score::new(0.5).unwrap()
    }

    /// Counted by hand. One of four answered people is rejected; a fifth gets no answer. One of two
    /// prints and two of two answered videos pass; a third video gets no answer.
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
        let report = evaluation(&LINES).report_at(half());
        let bona_fide = &report.bona_fide;
        assert_eq!((bona_fide.error_rate, bona_fide.non_response_rate), (rate(1, 4), rate(1, 5)));
        assert_eq!((bona_fide.presentations, bona_fide.subjects, bona_fide.devices), (5, 4, 2));
        let attacks: Vec<_> = report
            .attacks
            .iter()
            .map(|species| (species.name.as_str(), species.error_rate, species.non_response_rate))
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
        let report = evaluation(&LINES).report_at(Score::new(0.0).unwrap());
        assert_eq!(report.bpcer(), rate(0, 4));
        assert!(report.attacks.iter().all(|species| species.error_rate.unwrap().value() == 1.0));
    }

    #[test]
    fn one_kind_alone_has_no_rate_of_the_other() {
        let people = evaluation(&LINES[..5]);
        assert_eq!(people.report_at(half()).apcer(), None);
        assert_eq!(people.report_at(half()).acer(), None);
        assert_eq!(people.report_at(half()).apcer_claims(), []);
        assert!(people.trade_off().is_none());
        let attacks = evaluation(&LINES[5..]);
        assert_eq!(attacks.report_at(half()).bpcer(), None);
        assert_eq!(attacks.report_at(half()).bona_fide.non_response_rate, None);
        assert!(attacks.report_at(half()).bpcer_claims().iter().all(|claim| !claim.is_supported()));
        assert!(attacks.trade_off().is_none());
    }

    #[test]
    fn a_species_that_was_never_answered_has_no_rate_and_comes_last() {
        let report =
            evaluation(&[",attack,a mask,anna,a,non-response", "0.1,attack,print,anna,a,"])
                .report_at(half());
        let names: Vec<_> = report.attacks.iter().map(|species| &species.name[..]).collect();
        assert_eq!(names, ["print", "a mask"]);
        assert_eq!(report.attacks[1].error_rate, None);
        assert_eq!(report.attacks[1].non_response_rate, rate(1, 1));
        assert_eq!(report.apcer(), rate(0, 1).map(|rate| ("print", rate)));
    }
}
