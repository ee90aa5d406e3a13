//! Calibration entries together: those of a manifest, and those of an operator's own file.

use serde::Deserialize;

use super::{CalibrationEntry, CalibrationError, RawCalibrationEntry, is_text};

/// Most entries of a calibration file: a few kinds of pairs, each measured a few times.
const ENTRIES_MAX: usize = 64;

/// Largest calibration file in bytes: [`ENTRIES_MAX`] entries of [`POINTS_MAX`] points fit.
const FILE_BYTES_MAX: usize = 1 << 20;

/// An operator's own calibration: entries for the embedding space they were measured in.
///
/// ```toml
/// space = "sface-2021dec-f32-0123456789ab"
///
/// [[calibration]]
/// id = "counters-2026"
/// pair_type = "chip-live"
/// source = "own counters, spring"
/// impostor_pairs = 4_000_000
/// genuine_pairs = 20_000
/// points = [{ fmr = 1e-2, similarity = 0.28 }, { fmr = 1e-5, similarity = 0.5, fnmr = 0.04 }]
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationFile {
    /// Identifier of the embedding space: weights, alignment, preprocessing and precision.
    pub space: String,
    /// The entries, in the file's order, with distinct identifiers.
    pub entries: Vec<CalibrationEntry>,
}

impl CalibrationFile {
    /// Reads a calibration file.
    ///
    /// # Errors
    /// [`CalibrationError`] names the key and the rule; unknown keys are refused.
    pub fn parse(text: &str) -> Result<Self, CalibrationError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            space: String,
            calibration: Vec<RawCalibrationEntry>,
        }
        if text.len() > FILE_BYTES_MAX {
            let (actual, limit) = (text.len(), FILE_BYTES_MAX);
            return Err(CalibrationError::TooLarge { what: "bytes", actual, limit });
        }
        let raw: Raw = toml::from_str(text)?;
        if !is_text(&raw.space) {
            return Err(CalibrationError::Space);
        }
        Ok(Self { space: raw.space, entries: parse_entries(raw.calibration)? })
    }
}

/// Judges the entries of one embedding space together.
///
/// # Errors
/// The first entry's error, or [`CalibrationError::SameId`], or too many entries.
pub fn parse_entries(
    raw: Vec<RawCalibrationEntry>,
) -> Result<Vec<CalibrationEntry>, CalibrationError> {
    if raw.len() > ENTRIES_MAX {
        return Err(CalibrationError::TooLarge {
            what: "entries",
            actual: raw.len(),
            limit: ENTRIES_MAX,
        });
    }
    let mut entries: Vec<CalibrationEntry> = Vec::with_capacity(raw.len());
    for entry in raw {
        let entry = CalibrationEntry::new(entry)?;
        if entries.iter().any(|other| other.id == entry.id) {
            return Err(CalibrationError::SameId(entry.id));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::calibration::PairType;
    use crate::telemetry::causes;

    const FILE: &str = r#"
        space = "sface-2021dec-f32-0123456789ab"
        [[calibration]]
        id = "counters"
        pair_type = "chip-live"
        source = "own counters"
        impostor_pairs = 4_000_000
        genuine_pairs = 20_000
        points = [{ fmr = 1e-2, similarity = 0.28 }, { fmr = 1e-5, similarity = 0.5, fnmr = 0.04 }]
    "#;

    #[test]
    fn a_calibration_file_is_read() {
        let file = CalibrationFile::parse(FILE).unwrap();
        assert_eq!(file.space, "sface-2021dec-f32-0123456789ab");
        assert_eq!(file.entries[0].pair_type(), PairType::ChipLive);
        assert_eq!(file.entries[0].threshold(1e-5).unwrap(), 0.5);
    }

    #[test]
    fn a_broken_calibration_file_is_refused_by_key() {
        let twice = format!("{FILE}{}", &FILE[FILE.find("[[").unwrap()..]);
        let cases = [
            (FILE.replace("space =", "spaces ="), "spaces"),
            (FILE.replace("sface-2021dec-f32-0123456789ab", ""), "space"),
            (FILE.replace("genuine_pairs", "genuine"), "genuine"),
            (FILE.replace("chip-live", "chip"), "chip"),
            (FILE.replace("fnmr", "frr"), "frr"),
            (twice, "`counters`: `id` is used twice"),
            (" ".repeat(FILE_BYTES_MAX + 1), "limit"),
        ];
        for (text, part) in cases {
            let message = causes(&CalibrationFile::parse(&text).unwrap_err());
            assert!(message.contains(part), "{message} does not name {part}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_calibration_file_or_an_error(text in ".{0,400}", cut in 0..400_usize) {
            let _ = CalibrationFile::parse(&text);
            let mixed: String = FILE.chars().take(cut).chain(text.chars()).collect();
            let _ = CalibrationFile::parse(&mixed);
        }
    }
}
