//! Calibration: tables that map a similarity to a false-match rate, measured on labelled pairs.
//!
//! A threshold is valid only for one embedding space and one kind of pair. A [`CalibrationEntry`]
//! holds measured points (false-match rate, similarity) and their sample sizes. It refuses a policy
//! that its sample cannot support.

mod file;

use serde::Deserialize;

pub use file::{CalibrationFile, parse_entries};

use super::ImageSource;

/// Least number of false matches expected among the impostor pairs at a supported rate: with 30
/// errors the rate is known to ±30 % at 90 % confidence (the "rule of 30", ISO/IEC 19795-1).
const FALSE_MATCHES_MIN: f64 = 30.0;

/// Most points of an entry; a table needs about two per decade.
const POINTS_MAX: usize = 64;

/// Longest identifier or source in bytes. Both appear in answers and records.
const TEXT_BYTES_MAX: usize = 256;

/// False-match rates with a fixed score on the 0..100 scale of registration backends.
const SCORE_ANCHORS: [(f64, f64); 4] = [(1e-2, 60.0), (1e-3, 80.0), (1e-4, 90.0), (1e-5, 95.0)];

/// Reasons for refusing a calibration entry or file.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// A value of an entry breaks a rule.
    #[error("calibration entry `{id}`: `{key}` {reason}")]
    Entry {
        /// The entry's identifier, as written.
        id: String,
        /// The key, with the index of the point if there is one.
        key: String,
        /// The rule.
        reason: &'static str,
    },
    /// Two entries have the same identifier.
    #[error("calibration entry `{0}`: `id` is used twice")]
    DuplicateId(String),
    /// The file has too many bytes or entries.
    #[error("calibration file: {what} {actual}, the limit is {limit}")]
    TooLarge {
        /// The unit that was counted.
        what: &'static str,
        /// The actual number.
        actual: usize,
        /// The largest allowed number.
        limit: usize,
    },
    /// The file names no embedding space.
    #[error("calibration file: `space` is empty or longer than {TEXT_BYTES_MAX} bytes")]
    Space,
    /// The file is not TOML of the expected form.
    #[error("calibration file: not TOML of the expected form")]
    Syntax {
        /// The parser's message, with the line.
        #[from]
        source: toml::de::Error,
    },
}

/// The requested false-match rate is one that the entry cannot support.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("false-match rate {asked:e} is outside {min:e}..={max:e}, which the calibration supports")]
pub struct PolicyError {
    /// The requested rate.
    pub asked: f64,
    /// The smallest rate that the entry supports.
    pub min: f64,
    /// The largest rate that the entry measured.
    pub max: f64,
}

/// The sources of the two photographs of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairType {
    /// An identity card's chip portrait and a live photograph.
    ChipLive,
    /// A portrait from a document scan or a registry file, and a live photograph.
    FileLive,
    /// Two live photographs.
    LiveLive,
    /// Public photographs. They are not the pairs of any deployment, so the rates are optimistic.
    Generic,
}

impl PairType {
    /// Returns the type of a pair of an image from `source` and a live photograph.
    pub fn against_live(source: ImageSource) -> Self {
        match source {
            ImageSource::IdChip => Self::ChipLive,
            ImageSource::IdFile => Self::FileLive,
            ImageSource::LivePhoto => Self::LiveLive,
        }
    }

    /// The name in manifests, calibration files and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChipLive => "chip-live",
            Self::FileLive => "file-live",
            Self::LiveLive => "live-live",
            Self::Generic => "generic",
        }
    }
}

/// One measured operating point.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// Fraction of impostor pairs with at least this `similarity`.
    pub fmr: f64,
    /// Cosine of unit embeddings, -1..1.
    pub similarity: f64,
    /// Fraction of genuine pairs below `similarity`, if it was measured.
    pub fnmr: Option<f64>,
}

/// A calibration entry as written. [`CalibrationEntry::new`] validates it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCalibrationEntry {
    /// Identifier, unique among the entries of a space.
    pub id: String,
    /// Kind of the pairs.
    pub pair_type: PairType,
    /// Origin of the pairs.
    pub source: String,
    /// Number of pairs of different persons.
    pub impostor_pairs: u64,
    /// Number of pairs of one person.
    pub genuine_pairs: u64,
    /// Measured points, from the largest false-match rate to the smallest.
    pub points: Vec<OperatingPoint>,
}

/// A validated table from similarity to false-match rate, for one kind of pair.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationEntry {
    id: String,
    pair_type: PairType,
    source: String,
    impostor_pairs: u64,
    genuine_pairs: u64,
    points: Vec<OperatingPoint>,
}

impl CalibrationEntry {
    /// Validates `raw`. It needs at least two points, rates strictly falling inside (0, 1),
    /// similarities strictly rising inside [-1, 1], pairs of both kinds, and an id and a source.
    ///
    /// # Errors
    /// [`CalibrationError::Entry`] names the key and the rule.
    pub fn new(raw: RawCalibrationEntry) -> Result<Self, CalibrationError> {
        let id = raw.id.clone();
        let refuse = |key: &str, reason| {
            Err(CalibrationError::Entry { id: printable_start(&id), key: key.to_owned(), reason })
        };
        if !is_printable(&raw.id) {
            return refuse("id", "must have 1 to 256 printable bytes");
        }
        if !is_printable(&raw.source) {
            return refuse("source", "must have 1 to 256 printable bytes");
        }
        if raw.impostor_pairs == 0 {
            return refuse("impostor_pairs", "must be at least 1");
        }
        if raw.genuine_pairs == 0 {
            return refuse("genuine_pairs", "must be at least 1");
        }
        if let Err((key, reason)) = check_points(&raw.points) {
            return refuse(&key, reason);
        }
        let entry = Self {
            id: raw.id,
            pair_type: raw.pair_type,
            source: raw.source,
            impostor_pairs: raw.impostor_pairs,
            genuine_pairs: raw.genuine_pairs,
            points: raw.points,
        };
        if entry.fmr_min() > entry.fmr_max() {
            return refuse(
                "impostor_pairs",
                "support no point: 30 / pairs exceeds the largest fmr",
            );
        }
        Ok(entry)
    }

    /// Returns the identifier, unique among the entries of a space.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the kind of the pairs.
    pub fn pair_type(&self) -> PairType {
        self.pair_type
    }

    /// Returns true if the entry was measured on public photographs instead of a deployment's
    /// pairs.
    pub fn is_generic(&self) -> bool {
        self.pair_type == PairType::Generic
    }

    /// Returns the origin of the pairs.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the number of pairs of different persons.
    pub fn impostor_pairs(&self) -> u64 {
        self.impostor_pairs
    }

    /// Returns the number of pairs of one person.
    pub fn genuine_pairs(&self) -> u64 {
        self.genuine_pairs
    }

    /// Returns the measured points: rates strictly falling, similarities strictly rising.
    pub fn points(&self) -> &[OperatingPoint] {
        &self.points
    }

    /// Returns the smallest false-match rate that the entry supports. It requires 30 expected false
    /// matches among the impostor pairs, and is not below the rate of the last point.
    pub fn fmr_min(&self) -> f64 {
        (FALSE_MATCHES_MIN / self.impostor_pairs as f64).max(self.last().fmr)
    }

    /// Returns the largest measured false-match rate.
    pub fn fmr_max(&self) -> f64 {
        self.first().fmr
    }

    /// Returns the least similarity that keeps the false-match rate at `fmr`. It is linear in log
    /// FMR between the measured points.
    ///
    /// # Errors
    /// [`PolicyError`] when `fmr` lies outside [`Self::fmr_min`]..=[`Self::fmr_max`].
    pub fn threshold(&self, fmr: f64) -> Result<f64, PolicyError> {
        let (min, max) = (self.fmr_min(), self.fmr_max());
        if !(min..=max).contains(&fmr) {
            return Err(PolicyError { asked: fmr, min, max });
        }
        Ok(self.similarity_at(fmr))
    }

    /// Returns the false-match rate of a threshold at `similarity`, the inverse of
    /// [`Self::threshold`]. It is never below [`Self::fmr_min`]. Below the first measured point it
    /// is 1, because the entry has no better bound there.
    pub fn fmr_at(&self, similarity: f64) -> f64 {
        let inside = similarity >= self.first().similarity;
        if !inside {
            return 1.0;
        }
        let fmr = self.points.windows(2).find(|pair| similarity <= pair[1].similarity).map_or(
            self.last().fmr,
            |pair| {
                let (a, b) = (&pair[0], &pair[1]);
                let part = (similarity - a.similarity) / (b.similarity - a.similarity);
                10_f64.powf(interpolate(a.fmr.log10(), b.fmr.log10(), part))
            },
        );
        fmr.clamp(self.fmr_min(), self.fmr_max())
    }

    /// Returns `similarity` on the scale 0..100 of registration backends: 60 at FMR 1e-2, 80 at
    /// 1e-3, 90 at 1e-4 and 95 at 1e-5, as far as these rates were measured. A cosine of 1 gives
    /// 100, a cosine of 0 or less gives 0. Between these points the scale is linear. It never falls
    /// as the similarity rises.
    pub fn score100(&self, similarity: f64) -> f64 {
        let mut below = (0.0, 0.0);
        for above in self.score_anchors().chain([(1.0, 100.0)]) {
            if similarity <= above.0 {
                let part = (similarity - below.0) / (above.0 - below.0);
                return interpolate(below.1, above.1, part.max(0.0));
            }
            below = above;
        }
        // A NaN compares false with every anchor, so it must not reach the top of the scale.
        if similarity.is_nan() { 0.0 } else { 100.0 }
    }

    /// Returns the fixed points of the 0..100 scale that this entry measured, strictly inside (0,
    /// 1).
    fn score_anchors(&self) -> impl Iterator<Item = (f64, f64)> {
        SCORE_ANCHORS
            .iter()
            .filter(|(fmr, _)| (self.last().fmr..=self.first().fmr).contains(fmr))
            .map(|&(fmr, score)| (self.similarity_at(fmr), score))
            .filter(|(similarity, _)| *similarity > 0.0 && *similarity < 1.0)
    }

    /// Returns the similarity at `fmr`, which must lie within the measured points.
    fn similarity_at(&self, fmr: f64) -> f64 {
        self.points.windows(2).find(|pair| fmr >= pair[1].fmr).map_or(
            self.last().similarity,
            |pair| {
                let (a, b) = (&pair[0], &pair[1]);
                let part = (fmr.log10() - a.fmr.log10()) / (b.fmr.log10() - a.fmr.log10());
                interpolate(a.similarity, b.similarity, part)
            },
        )
    }

    fn first(&self) -> &OperatingPoint {
        self.points.first().expect("an entry has at least two points")
    }

    fn last(&self) -> &OperatingPoint {
        self.points.last().expect("an entry has at least two points")
    }
}

/// Returns the entry for a pair of type `wanted`: one measured on that type, else a generic one
/// unless `own_pair_type_required`. The first of several entries wins.
pub fn select_entry(
    entries: &[CalibrationEntry],
    wanted: PairType,
    own_pair_type_required: bool,
) -> Option<&CalibrationEntry> {
    let own = entries.iter().find(|entry| entry.pair_type == wanted);
    let generic = || entries.iter().find(|entry| entry.is_generic());
    own.or_else(|| if own_pair_type_required { None } else { generic() })
}

fn check_points(points: &[OperatingPoint]) -> Result<(), (String, &'static str)> {
    if !(2..=POINTS_MAX).contains(&points.len()) {
        return Err(("points".to_owned(), "must have 2 to 64 points"));
    }
    for (k, point) in points.iter().enumerate() {
        check_point(point).map_err(|(key, reason)| (format!("points[{k}].{key}"), reason))?;
    }
    for (k, pair) in points.windows(2).enumerate() {
        check_order(&pair[0], &pair[1])
            .map_err(|(key, reason)| (format!("points[{}].{key}", k + 1), reason))?;
    }
    Ok(())
}

fn check_point(point: &OperatingPoint) -> Result<(), (&'static str, &'static str)> {
    if !(point.fmr > 0.0 && point.fmr < 1.0) {
        return Err(("fmr", "must lie between 0 and 1, both excluded"));
    }
    if !(-1.0..=1.0).contains(&point.similarity) {
        return Err(("similarity", "must lie in -1..=1"));
    }
    if point.fnmr.is_some_and(|fnmr| !(0.0..=1.0).contains(&fnmr)) {
        return Err(("fnmr", "must lie in 0..=1"));
    }
    Ok(())
}

fn check_order(
    before: &OperatingPoint,
    after: &OperatingPoint,
) -> Result<(), (&'static str, &'static str)> {
    if after.fmr >= before.fmr {
        return Err(("fmr", "must be less than in the point before"));
    }
    if after.similarity <= before.similarity {
        return Err(("similarity", "must be more than in the point before"));
    }
    let falls = before.fnmr.zip(after.fnmr).is_some_and(|(a, b)| b < a);
    if falls {
        return Err(("fnmr", "must not be less than in the point before"));
    }
    Ok(())
}

fn is_printable(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Returns the printable start of an identifier of any length, for error messages.
fn printable_start(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Interpolates from `a` at `part` 0 to `b` at `part` 1, exact at both ends.
fn interpolate(a: f64, b: f64, part: f64) -> f64 {
    a * (1.0 - part) + b * part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The points of SFace on LFW's cross pairs, as in its manifest.
    const LFW: [(f64, f64); 6] =
        [(1e-2, 0.30), (1.3e-3, 0.363), (3e-4, 0.40), (1e-4, 0.425), (3e-5, 0.45), (1e-5, 0.477)];

    fn raw(pair_type: PairType, points: &[(f64, f64)]) -> RawCalibrationEntry {
        RawCalibrationEntry {
            id: pair_type.name().to_owned(),
            pair_type,
            source: "a test".to_owned(),
            impostor_pairs: 1_250_180,
            genuine_pairs: 1_973,
            points: points
                .iter()
                .map(|&(fmr, similarity)| OperatingPoint { fmr, similarity, fnmr: None })
                .collect(),
        }
    }

    fn lfw() -> CalibrationEntry {
        CalibrationEntry::new(raw(PairType::Generic, &LFW)).unwrap()
    }

    #[test]
    fn a_threshold_is_a_measured_point_or_lies_between_two() {
        let entry = lfw();
        assert_eq!(entry.threshold(1e-2).unwrap(), 0.30);
        assert_eq!(entry.threshold(1e-4).unwrap(), 0.425);
        let between = entry.threshold(1e-3).unwrap();
        assert!(between > 0.363 && between < 0.40, "{between}");
    }

    #[test]
    fn a_rate_the_sample_cannot_support_is_refused_with_numbers() {
        let entry = lfw();
        let error = entry.threshold(1e-5).unwrap_err();
        assert_eq!(error.min, 30.0 / 1_250_180.0);
        assert_eq!(
            error.to_string(),
            "false-match rate 1e-5 is outside 2.3996544497592348e-5..=1e-2, \
             which the calibration supports"
        );
        for asked in [0.02, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(entry.threshold(asked).is_err(), "{asked}");
        }
    }

    #[test]
    fn a_rate_beyond_the_last_point_is_refused_however_large_the_sample() {
        let mut raw = raw(PairType::Generic, &LFW[..4]);
        raw.impostor_pairs = 1_000_000_000;
        let entry = CalibrationEntry::new(raw).unwrap();
        assert_eq!(entry.fmr_min(), 1e-4);
        assert!(entry.threshold(9e-5).is_err());
    }

    #[test]
    fn a_similarity_outside_the_points_claims_no_more_than_was_measured() {
        let entry = lfw();
        assert_eq!(entry.fmr_at(0.99), entry.fmr_min());
        assert_eq!(entry.fmr_at(0.2999), 1.0);
        assert_eq!(entry.fmr_at(f64::NAN), 1.0);
    }

    #[test]
    fn score100_passes_through_its_fixed_points() {
        let entry = lfw();
        let cases = [
            (-0.5, 0.0),
            (0.0, 0.0),
            (0.15, 30.0),
            (0.30, 60.0),
            (0.425, 90.0),
            (0.477, 95.0),
            (1.0, 100.0),
            (1.5, 100.0),
            (f64::NAN, 0.0),
        ];
        for (similarity, score) in cases {
            assert!((entry.score100(similarity) - score).abs() < 1e-9, "at {similarity}");
        }
        let at_one_in_a_thousand = entry.threshold(1e-3).unwrap();
        assert!((entry.score100(at_one_in_a_thousand) - 80.0).abs() < 1e-9);
    }

    #[test]
    fn score100_uses_only_fixed_points_that_were_measured() {
        let entry = CalibrationEntry::new(raw(PairType::Generic, &LFW[1..4])).unwrap();
        assert!((entry.score100(0.425) - 90.0).abs() < 1e-9);
        assert!(
            entry.score100(0.30) > 60.0,
            "no place at 1e-2: a line from 0 to the place at 1e-3"
        );
    }

    #[test]
    fn the_own_pair_type_is_preferred_to_a_generic_entry() {
        let entry = |kind| CalibrationEntry::new(raw(kind, &LFW)).unwrap();
        let entries = [entry(PairType::Generic), entry(PairType::ChipLive)];
        let id =
            |wanted, required| select_entry(&entries, wanted, required).map(CalibrationEntry::id);
        assert_eq!(id(PairType::ChipLive, false), Some("chip-live"));
        assert_eq!(id(PairType::ChipLive, true), Some("chip-live"));
        assert_eq!(id(PairType::FileLive, false), Some("generic"));
        assert_eq!(id(PairType::FileLive, true), None);
        assert!(select_entry(&entries[1..], PairType::LiveLive, false).is_none());
    }

    #[test]
    fn every_broken_entry_is_refused_by_the_key_that_breaks_it() {
        type Edit = fn(&mut RawCalibrationEntry);
        let cases: [(&str, Edit); 14] = [
            ("`id`", |r| r.id.clear()),
            ("`id`", |r| r.id = "a\nb".to_owned()),
            ("`source`", |r| r.source.clear()),
            ("`impostor_pairs`", |r| r.impostor_pairs = 0),
            ("`impostor_pairs`", |r| r.impostor_pairs = 2_999),
            ("`genuine_pairs`", |r| r.genuine_pairs = 0),
            ("`points`", |r| r.points.truncate(1)),
            ("`points[0].fmr`", |r| r.points[0].fmr = 1.0),
            ("`points[5].fmr`", |r| r.points[5].fmr = 0.0),
            ("`points[2].fmr`", |r| r.points[2].fmr = r.points[1].fmr),
            ("`points[2].similarity`", |r| r.points[2].similarity = f64::NAN),
            ("`points[3].similarity`", |r| r.points[3].similarity = 0.40),
            ("`points[1].fnmr`", |r| r.points[1].fnmr = Some(1.5)),
            ("`points[1].fnmr`", |r| {
                r.points[0].fnmr = Some(0.2);
                r.points[1].fnmr = Some(0.1);
            }),
        ];
        for (key, edit) in cases {
            let mut entry = raw(PairType::Generic, &LFW);
            edit(&mut entry);
            let message = CalibrationEntry::new(entry).unwrap_err().to_string();
            assert!(message.contains(key), "{message} does not name {key}");
        }
    }

    /// Entries with 2 to 8 points. Each rate is 1.01 to 10 times smaller than the one before, each
    /// similarity larger by 0.001 to 0.1.
    fn any_entry() -> impl Strategy<Value = CalibrationEntry> {
        let steps = prop::collection::vec((1.01_f64..10.0, 0.001_f64..0.1), 1..8);
        (0.01_f64..0.5, -0.2_f64..0.3, steps).prop_map(|(fmr, similarity, steps)| {
            let mut points = vec![(fmr, similarity)];
            for (divisor, rise) in steps {
                let (fmr, similarity) = points[points.len() - 1];
                points.push((fmr / divisor, similarity + rise));
            }
            CalibrationEntry::new(raw(PairType::LiveLive, &points)).unwrap()
        })
    }

    proptest! {
        #[test]
        fn threshold_and_rate_are_inverse_and_monotone(
            entry in any_entry(), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
        ) {
            let at = |part| {
                let log = interpolate(entry.fmr_min().log10(), entry.fmr_max().log10(), part);
                10_f64.powf(log).clamp(entry.fmr_min(), entry.fmr_max())
            };
            let (low, high) = (at(a.min(b)), at(a.max(b)));
            let threshold = entry.threshold(low).unwrap();
            prop_assert!(entry.threshold(high).unwrap() <= threshold);
            let back = entry.fmr_at(threshold);
            prop_assert!((back / low - 1.0).abs() < 1e-9, "{low} {back}");
        }

        #[test]
        fn a_higher_similarity_never_means_a_higher_rate_or_a_lower_score(
            entry in any_entry(), a in -1.0_f64..=1.0, b in -1.0_f64..=1.0,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(entry.fmr_at(high) <= entry.fmr_at(low));
            prop_assert!((entry.fmr_min()..=1.0).contains(&entry.fmr_at(a)));
            prop_assert!(entry.score100(low) <= entry.score100(high));
            prop_assert!((0.0..=100.0).contains(&entry.score100(a)));
        }
    }
}
