//! A file of scores: one presentation per line, under a heading that names the columns.
//!
//! ```csv
//! score,label,species,subject,device,presentation,outcome
//! 0.971,bona fide,,p-001,phone-a,1,
//! 0.042,attack,print,p-001,phone-a,2,
//! ,attack,print,p-001,phone-a,3,non-response
//! ```
//!
//! `score`, `label` and `species` are required, in any order.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::str::FromStr;

use thiserror::Error;

use crate::csv::{CellError, Record, Records};
use crate::presentation::{Presentation, PresentationKind, Score};

/// Maximum size of a file: a million lines of 128 bytes. Usual lines are shorter.
pub const FILE_BYTES_MAX: usize = 128 << 20;

/// Maximum number of presentations: a hundred times the ten thousand that FIDO requires for face
/// verification.
const PRESENTATIONS_MAX: usize = 1_000_000;

/// Maximum number of species. Test laboratories present five or six at a level, and nobody reads a
/// longer table.
const SPECIES_MAX: usize = 64;

/// Maximum length of a name in bytes. A name and its numbers must fit one line of a table.
const NAME_BYTES_MAX: usize = 64;

/// Why a file of scores is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScoresError {
    /// The file has too many bytes, presentations or species.
    #[error("more than {limit} {what}")]
    TooLarge {
        /// The counted unit: `bytes`, `presentations` or `species`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The file is not text.
    #[error("line {line}: not UTF-8")]
    NotText {
        /// Line of the first byte that is not UTF-8.
        line: usize,
    },
    /// The file has no presentations.
    #[error("no presentations: expected a heading with `score,label,species` and lines below it")]
    Empty,
    /// The heading lacks a required column.
    #[error("line {line}: no column `{name}`; columns are separated by commas")]
    ColumnMissing {
        /// Line of the heading.
        line: usize,
        /// Name of the column.
        name: &'static str,
    },
    /// The heading has an unknown column, or a column twice.
    #[error("line {line}, column {column}: {reason} column; known are {}", Column::names())]
    Column {
        /// Line of the heading.
        line: usize,
        /// Index of the column in the heading, counted from 1.
        column: usize,
        /// `unknown` or `repeated`.
        reason: &'static str,
    },
    /// A record has too many or too few cells.
    #[error("line {line}: {actual} cells, the heading has {expected}")]
    Width {
        /// Line on which the record starts.
        line: usize,
        /// Cells of the record.
        actual: usize,
        /// Cells of the heading.
        expected: usize,
    },
    /// A cell has wrong quotes.
    #[error("line {line}, column {column}: {reason}")]
    Cell {
        /// Line on which the record starts.
        line: usize,
        /// Index of the cell in its record, counted from 1.
        column: usize,
        /// The broken rule.
        reason: &'static str,
    },
    /// The value of a cell breaks a rule.
    #[error("line {line}, column {column} (`{name}`): {reason}")]
    Value {
        /// Line on which the record starts.
        line: usize,
        /// Index of the cell in its record, counted from 1.
        column: usize,
        /// Name of the column.
        name: &'static str,
        /// The broken rule.
        reason: &'static str,
    },
    /// Two records have the same presentation identifier. The presentation would be counted twice.
    #[error("line {line}, column {column} (`presentation`): the same as in line {first}")]
    SamePresentation {
        /// Line of the second record.
        line: usize,
        /// Index of the identifier's cell, counted from 1.
        column: usize,
        /// Line of the first record.
        first: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Score,
    Label,
    Species,
    Subject,
    Device,
    Presentation,
    Outcome,
}

impl Column {
    const ALL: [Self; 7] = [
        Self::Score,
        Self::Label,
        Self::Species,
        Self::Subject,
        Self::Device,
        Self::Presentation,
        Self::Outcome,
    ];

    const REQUIRED: [Self; 3] = [Self::Score, Self::Label, Self::Species];

    fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Label => "label",
            Self::Species => "species",
            Self::Subject => "subject",
            Self::Device => "device",
            Self::Presentation => "presentation",
            Self::Outcome => "outcome",
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// Reads a file of scores.
///
/// # Errors
/// Returns a [`ScoresError`] that names the line, the column and the broken rule.
pub fn read_scores(bytes: &[u8]) -> Result<Vec<Presentation>, ScoresError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ScoresError::TooLarge { what: "bytes", limit: FILE_BYTES_MAX });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_text(bytes, error.valid_up_to()))?;
    let mut records = Records::new(text);
    let heading = Heading::new(&records.next().ok_or(ScoresError::Empty)??)?;
    let mut earlier = EarlierRecords::default();
    let mut presentations = Vec::new();
    for record in records {
        if presentations.len() == PRESENTATIONS_MAX {
            return Err(ScoresError::TooLarge { what: "presentations", limit: PRESENTATIONS_MAX });
        }
        let record = record?;
        let cells = heading.cells(&record)?;
        let presentation = cells.presentation()?;
        earlier.check_and_add(&cells, &presentation)?;
        presentations.push(presentation);
    }
    if presentations.is_empty() { Err(ScoresError::Empty) } else { Ok(presentations) }
}

fn not_text(bytes: &[u8], valid_up_to: usize) -> ScoresError {
    let lines = bytes.iter().take(valid_up_to).filter(|byte| **byte == b'\n').count();
    ScoresError::NotText { line: lines + 1 }
}

impl From<CellError> for ScoresError {
    fn from(error: CellError) -> Self {
        Self::Cell { line: error.line, column: error.column, reason: error.reason }
    }
}

/// The columns, in the order of the file.
struct Heading(Vec<Column>);

impl Heading {
    fn new(record: &Record<'_>) -> Result<Self, ScoresError> {
        let mut columns = Vec::with_capacity(record.cells.len());
        for (index, cell) in record.cells.iter().enumerate() {
            let refuse =
                |reason| ScoresError::Column { line: record.line, column: index + 1, reason };
            let name = cell.trim().to_lowercase();
            let column = Column::ALL.into_iter().find(|column| column.name() == name);
            let column = column.ok_or_else(|| refuse("unknown"))?;
            if columns.contains(&column) {
                return Err(refuse("repeated"));
            }
            columns.push(column);
        }
        match Column::REQUIRED.into_iter().find(|column| !columns.contains(column)) {
            Some(column) => {
                Err(ScoresError::ColumnMissing { line: record.line, name: column.name() })
            }
            None => Ok(Self(columns)),
        }
    }

    fn cells<'a>(&'a self, record: &'a Record<'a>) -> Result<Cells<'a>, ScoresError> {
        let (actual, expected) = (record.cells.len(), self.0.len());
        if actual != expected {
            return Err(ScoresError::Width { line: record.line, actual, expected });
        }
        Ok(Cells { columns: &self.0, record })
    }
}

/// The cells of one record, by column.
struct Cells<'a> {
    columns: &'a [Column],
    record: &'a Record<'a>,
}

impl Cells<'_> {
    fn presentation(&self) -> Result<Presentation, ScoresError> {
        Ok(Presentation {
            kind: self.kind()?,
            score: self.score()?,
            subject: self.name(Column::Subject)?,
            device: self.name(Column::Device)?,
        })
    }

    fn kind(&self) -> Result<PresentationKind, ScoresError> {
        let species = self.name(Column::Species)?;
        let label = self.text(Column::Label).to_lowercase().replace([' ', '-', '_'], "");
        match (label.as_str(), species) {
            ("bonafide", None) => Ok(PresentationKind::BonaFide),
            ("bonafide", Some(_)) => {
                Err(self.refuse(Column::Species, "must be empty for a bona fide presentation"))
            }
            ("attack", Some(species)) => Ok(PresentationKind::Attack { species }),
            ("attack", None) => Err(self.refuse(Column::Species, "must be given for an attack")),
            _ => Err(self.refuse(Column::Label, "must be `bona fide` or `attack`")),
        }
    }

    fn score(&self) -> Result<Option<Score>, ScoresError> {
        let text = self.text(Column::Score);
        match self.text(Column::Outcome).to_lowercase().as_str() {
            "" | "response" => {
                let score = f64::from_str(text).ok().and_then(Score::new);
                let refusal = || self.refuse(Column::Score, "must be a number from 0 to 1");
                score.ok_or_else(refusal).map(Some)
            }
            "non-response" if text.is_empty() => Ok(None),
            "non-response" => Err(self.refuse(Column::Score, "must be empty for a non-response")),
            _ => Err(self.refuse(Column::Outcome, "must be `response` or `non-response`")),
        }
    }

    /// Returns a name or identifier, or `None` if the cell is empty or the column is missing.
    fn name(&self, column: Column) -> Result<Option<String>, ScoresError> {
        let text = self.text(column);
        if text.len() > NAME_BYTES_MAX {
            return Err(self.refuse(column, "must have at most 64 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refuse(column, "must not have control characters"));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn text(&self, column: Column) -> &str {
        let index = self.columns.iter().position(|other| *other == column);
        index.and_then(|index| self.record.cells.get(index)).map_or("", |cell| cell.trim())
    }

    fn refuse(&self, column: Column, reason: &'static str) -> ScoresError {
        ScoresError::Value {
            line: self.record.line,
            column: self.column_number(column),
            name: column.name(),
            reason,
        }
    }

    /// Returns the index of a column, counted from 1.
    fn column_number(&self, column: Column) -> usize {
        self.columns.iter().take_while(|other| **other != column).count() + 1
    }
}

/// Identifiers and species of earlier records. No record may repeat an identifier, and the number
/// of species is limited.
#[derive(Default)]
struct EarlierRecords {
    /// Line of each presentation identifier.
    presentations: HashMap<String, usize>,
    species: HashSet<String>,
}

impl EarlierRecords {
    fn check_and_add(
        &mut self,
        cells: &Cells<'_>,
        presentation: &Presentation,
    ) -> Result<(), ScoresError> {
        let line = cells.record.line;
        if let Some(id) = cells.name(Column::Presentation)? {
            match self.presentations.entry(id) {
                Entry::Vacant(entry) => entry.insert(line),
                Entry::Occupied(first) => {
                    let (first, column) = (*first.get(), cells.column_number(Column::Presentation));
                    return Err(ScoresError::SamePresentation { line, column, first });
                }
            };
        }
        if let PresentationKind::Attack { species } = &presentation.kind
            && !self.species.contains(species)
        {
            if self.species.len() == SPECIES_MAX {
                return Err(ScoresError::TooLarge { what: "species", limit: SPECIES_MAX });
            }
            self.species.insert(species.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "score,label,species,subject,device,presentation,outcome\n\
        0.97,bona fide,,anna,phone-a,1,\n\
        4e-2,Attack,\"print, matt\",anna,phone-a,2,response\n\
        ,attack,print,,,,non-response\n";

    #[test]
    fn every_column_is_read() {
        let anna = |kind, score| Presentation {
            kind,
            score: Score::new(score),
            subject: Some("anna".into()),
            device: Some("phone-a".into()),
        };
        let unanswered = Presentation {
            kind: PresentationKind::Attack { species: "print".into() },
            score: None,
            subject: None,
            device: None,
        };
        let matt = PresentationKind::Attack { species: "print, matt".into() };
        let expected = [anna(PresentationKind::BonaFide, 0.97), anna(matt, 0.04), unanswered];
        assert_eq!(read_scores(FILE.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn columns_may_stand_in_any_order_and_spreadsheets_may_write_them() {
        let file = "\u{feff}Species,SCORE,label\r\n\r\n,1,bona_fide\r\nvideo,0,attack\r\n";
        let plain = "score,label,species\n1,bona-fide,\n0,attack,video";
        assert_eq!(read_scores(file.as_bytes()), read_scores(plain.as_bytes()));
        assert_eq!(read_scores(file.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn a_refusal_names_the_line_and_the_column() {
        for (lines, message) in [
            ("", "no presentations"),
            ("\n\n", "no presentations"),
            ("score,label,species\n", "no presentations"),
            ("score,label\n", "line 1: no column `species`"),
            ("score;label;species\n", "line 1, column 1: unknown column"),
            ("score,label,species,score\n", "line 1, column 4: repeated column"),
            ("score,label,species,colour\n", "known are score, label, species, subject"),
            ("score,label,species\n1,attack\n", "line 2: 2 cells, the heading has 3"),
            ("score,label,species\n\n1.1,attack,a\n", "line 3, column 1 (`score`): must be a"),
            ("score,label,species\nNaN,attack,a\n", "(`score`): must be a number from 0 to 1"),
            ("score,label,species\n,attack,a\n", "(`score`): must be a number from 0 to 1"),
            ("score,label,species\n1,live,\n", "line 2, column 2 (`label`): must be `bona fide`"),
            ("score,label,species\n1,attack,\n", "column 3 (`species`): must be given"),
            ("score,label,species\n1,bona fide,a\n", "column 3 (`species`): must be empty"),
            ("score,label,species\n1,attack,\"a\nb\"\n", "must not have control characters"),
            ("score,label,species\n1,attack,a\"\n", "line 2, column 3: has a quote inside"),
        ] {
            let error = read_scores(lines.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{lines:?}: {error} does not say {message}");
        }
        let long = format!("score,label,species\n1,attack,{}\n", "é".repeat(33));
        assert!(read_scores(long.as_bytes()).unwrap_err().to_string().contains("at most 64 bytes"));
        let binary = read_scores(b"score,label,species\n1,attack,\xff\n").unwrap_err();
        assert_eq!(binary, ScoresError::NotText { line: 2 });
    }

    #[test]
    fn a_refusal_of_the_optional_columns_names_them() {
        let lines = FILE.lines().count();
        for (line, message) in [
            ("0.5,attack,print,,,,maybe", "column 7 (`outcome`): must be `response`"),
            ("0.5,attack,print,,,,non-response", "column 1 (`score`): must be empty"),
            ("0.5,attack,print,,,2,", "column 6 (`presentation`): the same as in line 3"),
        ] {
            let error = read_scores(format!("{FILE}{line}").as_bytes()).unwrap_err().to_string();
            let expected = format!("line {}, {message}", lines + 1);
            assert!(error.contains(&expected), "{error} does not say {expected}");
        }
    }

    #[test]
    fn more_presentations_or_species_than_the_limit_are_refused() {
        let heading = "score,label,species\n".to_owned();
        let full = heading.clone() + &"1,attack,a\n".repeat(PRESENTATIONS_MAX);
        assert_eq!(read_scores(full.as_bytes()).unwrap().len(), PRESENTATIONS_MAX);
        let error = read_scores((full + "1,attack,a\n").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "more than 1000000 presentations");
        let species: String = (0..=SPECIES_MAX).map(|k| format!("1,attack,{k}\n")).collect();
        let error = read_scores((heading + &species).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "more than 64 species");
        let error = read_scores(&vec![b' '; FILE_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(error.to_string(), "more than 134217728 bytes");
    }

    proptest! {
        #[test]
        fn any_bytes_give_presentations_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize,
        ) {
            let _ = read_scores(&bytes);
            let mixed: Vec<u8> = FILE.bytes().take(cut).chain(bytes).collect();
            let _ = read_scores(&mixed);
        }

        #[test]
        fn whatever_is_read_has_scores_from_0_to_1_and_named_species(
            lines in prop::collection::vec("[0-9.eE-]{0,5},(attack|bona fide|live),[a-c]?", 0..6),
        ) {
            let file = format!("score,label,species\n{}", lines.join("\n"));
            for presentation in read_scores(file.as_bytes()).unwrap_or_default() {
                let score = presentation.score.unwrap().value();
                prop_assert!((0.0..=1.0).contains(&score));
                let unnamed = PresentationKind::Attack { species: String::new() };
                prop_assert!(presentation.kind != unnamed);
            }
        }
    }
}
