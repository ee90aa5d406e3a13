//! Detection error trade-off (DET): both error rates as functions of the threshold, and the
//! operating points that reports quote.
//!
//! Points are not interpolated: each is a result of the sample at one threshold. A threshold that
//! was chosen on a sample makes this sample look better than it is. New presentations must confirm
//! the threshold.

use crate::bounds::Rate;

/// Scores of answered bona fide presentations and of answered attacks. Each has at least one score.
#[derive(Debug)]
pub struct TradeOff<'a> {
    bona_fide: &'a [f64],
    species: Vec<(&'a str, &'a [f64])>,
    /// Rising: every score, and one threshold above all scores. No rate changes between two
    /// neighbours.
    thresholds: Vec<f64>,
}

/// Both error rates at one threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRates {
    /// A score at or above the threshold passes. It is above 1 if a score of 1 must not pass.
    pub threshold: f64,
    /// The species with the highest APCER.
    pub worst_species: String,
    /// Share of the attacks of the worst species that pass.
    pub apcer: Rate,
    /// Share of living people who do not pass.
    pub bpcer: Rate,
}

/// A point of the trade-off that reports quote, such as BPCER20.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatingPoint {
    /// Name in reports for people.
    pub name: &'static str,
    /// Key in JSON.
    pub key: &'static str,
    /// Both error rates at the threshold of the point.
    pub error_rates: ErrorRates,
    /// The error rate that the point is about.
    pub quoted_rate: Rate,
}

impl<'a> TradeOff<'a> {
    /// Both lists of scores must be rising. Leaves out species without scores. Returns `None`
    /// unless both bona fide presentations and attacks have scores.
    pub(crate) fn new(
        bona_fide: &'a [f64],
        species: impl Iterator<Item = (&'a str, &'a [f64])>,
    ) -> Option<Self> {
        let species: Vec<_> = species.filter(|(_, scores)| !scores.is_empty()).collect();
        if bona_fide.is_empty() || species.is_empty() {
            return None;
        }
        let attacks = species.iter().flat_map(|(_, scores)| *scores);
        let mut thresholds: Vec<f64> = bona_fide.iter().chain(attacks).copied().collect();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        thresholds.extend(thresholds.last().map(|score| threshold_above(*score)));
        Some(Self { bona_fide, species, thresholds })
    }

    /// Returns both error rates at `threshold`.
    fn rates_at(&self, threshold: f64) -> ErrorRates {
        let (worst_species, apcer) = self.worst_species_at(threshold);
        ErrorRates {
            threshold,
            worst_species: worst_species.to_owned(),
            apcer,
            bpcer: self.bpcer_at(threshold),
        }
    }

    /// Returns the rates at the lowest threshold at which the APCER of every species is at most
    /// `limit`. This threshold has the least BPCER.
    fn bpcer_at_apcer(&self, limit: f64) -> ErrorRates {
        let first = self.first_threshold(|t| self.worst_species_at(t).1.value() <= limit);
        self.rates_at(self.threshold(first))
    }

    /// Returns the rates at the highest threshold at which BPCER is at most `limit`. This threshold
    /// has the least APCER.
    fn apcer_at_bpcer(&self, limit: f64) -> ErrorRates {
        let beyond = self.first_threshold(|t| self.bpcer_at(t).value() > limit);
        // The lowest threshold rejects nobody, so it is never beyond the limit.
        self.rates_at(self.threshold(beyond.saturating_sub(1)))
    }

    /// Returns the rates at the threshold where the larger of both rates is least. That rate is the
    /// equal error rate. The curves cross between two scores, at or below that rate.
    fn equal_error(&self) -> ErrorRates {
        let larger = |t: f64| self.worst_species_at(t).1.value().max(self.bpcer_at(t).value());
        let crossed = self
            .first_threshold(|t| self.worst_species_at(t).1.value() <= self.bpcer_at(t).value());
        let before = self.threshold(crossed.saturating_sub(1));
        let after = self.threshold(crossed);
        self.rates_at(if larger(before) < larger(after) { before } else { after })
    }

    /// Returns the operating points that reports quote: BPCER20 and BPCER100 (APCER of at most 1 in
    /// 20 and 1 in 100), APCER at three limits of BPCER, and the equal error rate.
    pub fn operating_points(&self) -> Vec<OperatingPoint> {
        let bpcer = [
            ("bpcer20", "BPCER20, at APCER ≤ 5 %", 0.05),
            ("bpcer100", "BPCER100, at APCER ≤ 1 %", 0.01),
        ];
        let bpcer = bpcer.into_iter().map(|(key, name, limit)| {
            let error_rates = self.bpcer_at_apcer(limit);
            OperatingPoint { name, key, quoted_rate: error_rates.bpcer, error_rates }
        });
        let apcer = [
            ("apcer_at_bpcer_1", "APCER at BPCER ≤ 1 %", 0.01),
            ("apcer_at_bpcer_5", "APCER at BPCER ≤ 5 %", 0.05),
            ("apcer_at_bpcer_15", "APCER at BPCER ≤ 15 %", 0.15),
        ];
        let apcer = apcer.into_iter().map(|(key, name, limit)| {
            let error_rates = self.apcer_at_bpcer(limit);
            OperatingPoint { name, key, quoted_rate: error_rates.apcer, error_rates }
        });
        let error_rates = self.equal_error();
        let equal = OperatingPoint {
            name: "equal error rate",
            key: "equal_error",
            quoted_rate: error_rates.larger_rate(),
            error_rates,
        };
        bpcer.chain(apcer).chain([equal]).collect()
    }

    /// Returns the distinct points `[APCER, BPCER]` of one species, from the lowest threshold to
    /// the highest. Empty for an unknown species.
    pub(crate) fn curve(&self, species: &str) -> Vec<[f64; 2]> {
        let scores = self.species.iter().find(|(name, _)| *name == species);
        scores.map_or(Vec::new(), |(_, scores)| self.points(|t| passing_rate(scores, t).value()))
    }

    /// Returns the same points for the species that is worst at each threshold.
    pub(crate) fn worst_curve(&self) -> Vec<[f64; 2]> {
        self.points(|t| self.worst_species_at(t).1.value())
    }

    fn points(&self, apcer: impl Fn(f64) -> f64) -> Vec<[f64; 2]> {
        let point = |&t: &f64| [apcer(t), self.bpcer_at(t).value()];
        let mut points: Vec<[f64; 2]> = self.thresholds.iter().map(point).collect();
        points.dedup();
        points
    }

    /// Returns the index of the first threshold at which `holds`, or the number of thresholds.
    /// `holds` must stay true for all higher thresholds.
    fn first_threshold(&self, holds: impl Fn(f64) -> bool) -> usize {
        self.thresholds.partition_point(|&threshold| !holds(threshold))
    }

    /// Returns the threshold at `index`, or the highest one if `index` is past the end.
    fn threshold(&self, index: usize) -> f64 {
        self.thresholds[index.min(self.thresholds.len() - 1)]
    }

    fn worst_species_at(&self, threshold: f64) -> (&'a str, Rate) {
        let rates =
            self.species.iter().map(|(name, scores)| (*name, passing_rate(scores, threshold)));
        rates
            .min_by(|(_, a), (_, b)| a.worse_first(*b))
            .expect("a trade-off has at least one species")
    }

    fn bpcer_at(&self, threshold: f64) -> Rate {
        let rejected = count_below(self.bona_fide, threshold);
        Rate::new(rejected, self.bona_fide.len()).expect("a trade-off has bona fide scores")
    }
}

impl ErrorRates {
    /// Returns the larger of both rates. If they are equal, returns that of fewer presentations.
    fn larger_rate(&self) -> Rate {
        if self.bpcer.worse_first(self.apcer).is_lt() { self.bpcer } else { self.apcer }
    }
}

/// Returns the number of `scores` below `threshold`. The scores must be rising.
pub(crate) fn count_below(scores: &[f64], threshold: f64) -> usize {
    scores.partition_point(|score| *score < threshold)
}

/// Returns a threshold above the `highest` score. It is 1, which a user can set, unless that score
/// is 1.
fn threshold_above(highest: f64) -> f64 {
    if highest < 1.0 { 1.0 } else { highest.next_up() }
}

/// Returns the share of an attack's `scores` that pass.
fn passing_rate(scores: &[f64], threshold: f64) -> Rate {
    let passed = scores.len() - count_below(scores, threshold);
    Rate::new(passed, scores.len()).expect("a trade-off's species have scores")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scores of ten living people and of two species with five attacks each. The counts by hand:
    ///
    /// | threshold | above .2 | .3 | .4 | .5 | .6 | .7 | .8 |
    /// |---|---|---|---|---|---|---|---|
    /// | print passes | 3 | 2 | 1 | 1 | 0 | 0 | 0 |
    /// | video passes | 5 | 5 | 4 | 3 | 2 | 1 | 0 |
    /// | people rejected | 0 | 0 | 1 | 1 | 2 | 2 | 3 |
    const PEOPLE: [f64; 10] = [0.3, 0.5, 0.75, 0.8, 0.85, 0.9, 0.9, 0.95, 0.95, 1.0];
    const PRINT: [f64; 5] = [0.1, 0.2, 0.25, 0.35, 0.55];
    const VIDEO: [f64; 5] = [0.35, 0.45, 0.5, 0.65, 0.7];

    fn by_hand() -> TradeOff<'static> {
        let species = [("print", &PRINT[..]), ("video", &VIDEO[..]), ("mask", &[])];
        TradeOff::new(&PEOPLE, species.into_iter()).unwrap()
    }

    fn rate(errors: usize, presentations: usize) -> Rate {
        Rate::new(errors, presentations).unwrap()
    }

    #[test]
    fn a_score_at_the_threshold_passes() {
        let rates = by_hand().rates_at(0.5);
        assert_eq!((rates.apcer, rates.bpcer), (rate(3, 5), rate(1, 10)));
        let rates = by_hand().rates_at(0.500001);
        assert_eq!((rates.apcer, rates.bpcer), (rate(2, 5), rate(2, 10)));
    }

    #[test]
    fn the_species_that_passes_most_is_the_worst() {
        assert_eq!(by_hand().rates_at(0.4).worst_species, "video");
        let same = TradeOff::new(&PEOPLE, [("a", &PRINT[..]), ("b", &PRINT[1..])].into_iter());
        let worst = same.unwrap().rates_at(0.9).worst_species;
        assert_eq!(worst, "b", "of equal rates that of fewer presentations is worse");
    }

    #[test]
    fn fixed_points_are_those_of_the_table() {
        let trade_off = by_hand();
        let at_5 = trade_off.bpcer_at_apcer(0.05);
        assert_eq!((at_5.threshold, at_5.bpcer, at_5.apcer), (0.75, rate(2, 10), rate(0, 5)));
        let at_20 = trade_off.bpcer_at_apcer(0.2);
        assert_eq!((at_20.threshold, at_20.bpcer, at_20.apcer), (0.7, rate(2, 10), rate(1, 5)));
        let none = trade_off.apcer_at_bpcer(0.01);
        assert_eq!((none.threshold, none.bpcer, none.apcer), (0.3, rate(0, 10), rate(5, 5)));
        let at_15 = trade_off.apcer_at_bpcer(0.15);
        assert_eq!((at_15.threshold, at_15.bpcer, at_15.apcer), (0.5, rate(1, 10), rate(3, 5)));
        let equal = trade_off.equal_error();
        assert_eq!((equal.threshold, equal.bpcer, equal.apcer), (0.7, rate(2, 10), rate(1, 5)));
    }

    #[test]
    fn extreme_limits_give_the_first_or_last_threshold() {
        let trade_off = by_hand();
        assert_eq!(trade_off.bpcer_at_apcer(-1.0).apcer, rate(0, 5));
        assert_eq!(trade_off.bpcer_at_apcer(1.0).threshold, 0.1);
        assert_eq!(trade_off.apcer_at_bpcer(1.0).bpcer, rate(10, 10));
        assert_eq!(trade_off.apcer_at_bpcer(-1.0).bpcer, rate(0, 10));
    }

    #[test]
    fn a_perfect_system_has_no_equal_error() {
        let perfect = TradeOff::new(&[1.0, 1.0], [("print", &[0.0, 0.5][..])].into_iter()).unwrap();
        let equal = perfect.equal_error();
        assert_eq!((equal.threshold, equal.apcer, equal.bpcer), (1.0, rate(0, 2), rate(0, 2)));
        assert_eq!(perfect.curve("print"), [[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.0, 1.0]]);
        assert_eq!(perfect.curve("video"), Vec::<[f64; 2]>::new());
    }

    #[test]
    fn the_threshold_that_nothing_reaches_can_be_set_unless_a_score_is_1() {
        let nothing_passes = |scores: &[f64]| {
            let trade_off = TradeOff::new(&[0.5], [("print", scores)].into_iter()).unwrap();
            trade_off.bpcer_at_apcer(0.0).threshold
        };
        assert_eq!(nothing_passes(&[0.9]), 1.0);
        assert_eq!(nothing_passes(&[1.0]), 1.0_f64.next_up());
    }

    #[test]
    fn one_kind_alone_has_no_trade_off() {
        assert!(TradeOff::new(&[], [("print", &PRINT[..])].into_iter()).is_none());
        assert!(TradeOff::new(&PEOPLE, [("print", &[][..])].into_iter()).is_none());
    }

    fn scores() -> impl Strategy<Value = Vec<f64>> {
        // Only 21 distinct values, so that scores are often equal.
        prop::collection::vec((0..=20_u8).prop_map(|step| f64::from(step) / 20.0), 1..40).prop_map(
            |mut scores| {
                scores.sort_by(f64::total_cmp);
                scores
            },
        )
    }

    proptest! {
        #[test]
        fn curves_are_monotone_from_all_pass_to_none_and_the_worst_covers_all(
            people in scores(), print in scores(), video in scores(),
        ) {
            let species = [("print", &print[..]), ("video", &video[..])];
            let trade_off = TradeOff::new(&people, species.into_iter()).unwrap();
            for curve in [trade_off.curve("print"), trade_off.worst_curve()] {
                prop_assert_eq!(curve.first(), Some(&[1.0, 0.0]));
                prop_assert_eq!(curve.last(), Some(&[0.0, 1.0]));
                for pair in curve.windows(2) {
                    prop_assert!(pair[1][0] <= pair[0][0] && pair[1][1] >= pair[0][1]);
                }
            }
            for &threshold in &trade_off.thresholds {
                let worst = trade_off.rates_at(threshold).apcer.value();
                for scores in [&print, &video] {
                    prop_assert!(worst >= passing_rate(scores, threshold).value());
                }
            }
        }

        #[test]
        fn fixed_points_keep_their_limit_and_no_threshold_does_better(
            people in scores(), print in scores(), limit in 0.0..1.0_f64,
        ) {
            let trade_off = TradeOff::new(&people, [("print", &print[..])].into_iter()).unwrap();
            let by_apcer = trade_off.bpcer_at_apcer(limit);
            let by_bpcer = trade_off.apcer_at_bpcer(limit);
            let equal = trade_off.equal_error();
            let larger = |rates: &ErrorRates| rates.apcer.value().max(rates.bpcer.value());
            prop_assert!(by_apcer.apcer.value() <= limit && by_bpcer.bpcer.value() <= limit);
            for &threshold in &trade_off.thresholds {
                let rates = trade_off.rates_at(threshold);
                let (apcer, bpcer) = (rates.apcer.value(), rates.bpcer.value());
                prop_assert!(apcer > limit || bpcer >= by_apcer.bpcer.value());
                prop_assert!(bpcer > limit || apcer >= by_bpcer.apcer.value());
                prop_assert!(larger(&rates) >= larger(&equal));
            }
        }
    }
}
