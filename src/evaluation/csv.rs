//! Comma-separated text (RFC 4180) as records of cells. `csv-core` parses the text, and accepts
//! wrong quotes as text. This module refuses wrong quotes, limits the cells of a record, counts
//! lines and skips blank lines.

use std::borrow::Cow;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};

/// Maximum number of cells of a record: several times the number of columns. Without a limit, a
/// line of commas would take twenty times its size in memory.
const CELLS_MAX: usize = 64;

/// One record, and the line on which it starts, counted from 1.
#[derive(Debug, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) line: usize,
    pub(crate) cells: Vec<Cow<'a, str>>,
}

/// The error for a cell that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellError {
    pub(crate) line: usize,
    /// Index of the cell in its record, counted from 1.
    pub(crate) column: usize,
    pub(crate) reason: &'static str,
}

/// One cell, raw and parsed.
struct Field<'a, 'p> {
    /// The cell as in the text, without the comma or line end behind it.
    raw: &'a str,
    /// The cell's content without quotes, from the parser.
    unquoted: &'p str,
    /// True if the cell is the last one of its record.
    is_last: bool,
}

/// Iterates over the records of a text, up to the first error.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    rest: &'a str,
    line: usize,
    parser: Reader,
    /// The parser writes the content of a cell here. The buffer is as long as the whole text, so
    /// that every cell fits. Memory pages that are never written take no memory.
    unquoted: Vec<u8>,
}

impl<'a> Records<'a> {
    /// Reads `text`. Skips the byte order mark that spreadsheets write.
    pub(crate) fn new(text: &'a str) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        // By default, the parser also ends records at a carriage return. Here a carriage return is
        // white space, so that line numbers are those of a text editor.
        let parser = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        Self { rest, line: 1, parser, unquoted: vec![0; rest.len()] }
    }

    fn skip_blank_lines(&mut self) {
        while let Some((line, rest)) = self.rest.split_once('\n')
            && line.trim().is_empty()
        {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.trim_start().is_empty() {
            self.rest = "";
        }
    }

    fn read_record(&mut self) -> Result<Record<'a>, CellError> {
        let mut record = Record { line: self.line, cells: Vec::new() };
        loop {
            let cell = if record.cells.len() == CELLS_MAX {
                Err("is one too many: a line has at most 64")
            } else {
                self.read_cell()
            };
            let (cell, is_last) = cell.map_err(|reason| CellError {
                line: record.line,
                column: record.cells.len() + 1,
                reason,
            })?;
            record.cells.push(cell);
            if is_last {
                return Ok(record);
            }
        }
    }

    /// Returns the next cell, and true if it is the last one of its record. White space around an
    /// unquoted cell is dropped; white space within quotes is kept.
    fn read_cell(&mut self) -> Result<(Cow<'a, str>, bool), &'static str> {
        let Field { raw, unquoted, is_last } = self.read_field();
        let Some(quoted) = raw.strip_prefix('"') else {
            if raw.contains('"') {
                return Err("has a quote inside; cells with quotes must be quoted");
            }
            return Ok((Cow::Borrowed(raw.trim()), is_last));
        };
        // Two quotes within a quoted cell are one quote of its content; a single one closes the
        // cell.
        let without_pairs = quoted.replace("\"\"", "xx");
        let Some((_, after)) = without_pairs.split_once('"') else {
            return Err("has a quote that is never closed");
        };
        let is_closed = after.is_empty() || (is_last && after.trim().is_empty());
        if !is_closed {
            return Err("has text after its closing quote");
        }
        let text = &unquoted[..unquoted.len() - after.len()];
        Ok((Cow::Owned(text.to_owned()), is_last))
    }

    /// Returns the next cell, raw and parsed.
    fn read_field(&mut self) -> Field<'a, '_> {
        let (mut read, mut written) = (0, 0);
        let is_last = loop {
            let input = &self.rest.as_bytes()[read..];
            let (result, read_now, written_now) =
                self.parser.read_field(input, &mut self.unquoted[written..]);
            read += read_now;
            written += written_now;
            match result {
                ReadFieldResult::Field { record_end } => break record_end,
                // The last cell of a text without a final line end. An empty input ends the cell.
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::OutputFull | ReadFieldResult::End => {
                    unreachable!("there is a cell, and it is no longer than the text")
                }
            }
        };
        let (raw, rest) = self.rest.split_at(read);
        self.rest = rest;
        self.line += raw.matches('\n').count();
        let unquoted = std::str::from_utf8(&self.unquoted[..written]);
        let unquoted = unquoted.expect("without some of its quotes, text is still UTF-8");
        let raw = raw.strip_suffix([',', '\n']).unwrap_or(raw);
        Field { raw, unquoted, is_last }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, CellError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blank_lines();
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read_record();
        if record.is_err() {
            self.rest = "";
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(usize, Vec<String>)> {
        let owned = |record: Record<'_>| {
            (record.line, record.cells.into_iter().map(Cow::into_owned).collect())
        };
        Records::new(text).map(|record| owned(record.unwrap())).collect()
    }

    fn record(line: usize, cells: &[&str]) -> (usize, Vec<String>) {
        (line, cells.iter().map(|cell| (*cell).to_owned()).collect())
    }

    #[test]
    fn byte_order_marks_line_ends_and_blank_lines_make_no_difference() {
        let plain = read("a,b\n1, 2 \n");
        assert_eq!(plain, [record(1, &["a", "b"]), record(2, &["1", "2"])]);
        assert_eq!(read("\u{feff}a,b\r\n1,2"), plain);
        let spaced = [record(2, &["a", "b"]), record(5, &["1", ""])];
        assert_eq!(read("\r\na,b\n\n  \n1,\n \n"), spaced);
    }

    #[test]
    fn quotes_keep_commas_quotes_line_ends_and_spaces() {
        let text = "\" a, \"\"b\"\"\nc\",d\n\"\",\"e\"\r\n";
        assert_eq!(read(text), [record(1, &[" a, \"b\"\nc", "d"]), record(3, &["", "e"])]);
    }

    #[test]
    fn a_cell_that_cannot_be_read_is_refused_with_its_line_and_column() {
        for (text, line, column, reason) in [
            ("a,b\n1,2\"", 2, 2, "inside"),
            ("a\n\"b", 2, 1, "never closed"),
            ("a,\"b\"\"", 1, 2, "never closed"),
            ("\"a\"b,c", 1, 1, "after its closing"),
            ("\"a\" ,b", 1, 1, "after its closing"),
            ("\"a\" \"\"", 1, 1, "after its closing"),
            (&",".repeat(CELLS_MAX), 1, CELLS_MAX + 1, "at most 64"),
        ] {
            let error = Records::new(text).find_map(Result::err).unwrap();
            assert_eq!((error.line, error.column), (line, column), "{text}");
            assert!(error.reason.contains(reason), "{}", error.reason);
        }
    }

    proptest! {
        #[test]
        fn any_quoted_cells_are_read_back(
            cells in prop::collection::vec(prop::collection::vec("[a,\"\r\n é]{0,6}", 1..5), 1..6),
        ) {
            let quote = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |cells: &Vec<String>| cells.iter().map(quote).collect::<Vec<_>>().join(",");
            let text: Vec<String> = cells.iter().map(line).collect();
            let back: Vec<Vec<String>> =
                read(&text.join("\r\n")).into_iter().map(|(_, cells)| cells).collect();
            prop_assert_eq!(back, cells);
        }

        #[test]
        fn any_text_ends_in_records_or_an_error(text in "[ab,\"\r\n ]{0,60}") {
            let lines = text.matches('\n').count() + 1;
            for record in Records::new(&text) {
                let line = record.map_or_else(|error| error.line, |record| record.line);
                prop_assert!(line <= lines);
            }
        }
    }
}
