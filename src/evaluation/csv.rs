//! Comma-separated text (RFC 4180) as records of cells: quotes, quoted line ends, either kind of
//! line end. Blank lines are no records.

use std::borrow::Cow;

/// Most cells of a record: several times the columns that scores have. One line of commas would
/// otherwise take twenty times its size in memory.
const CELLS_MAX: usize = 64;

/// One record and the line it starts on, counted from 1.
#[derive(Debug, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) line: usize,
    pub(crate) cells: Vec<Cow<'a, str>>,
}

/// A cell that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellError {
    pub(crate) line: usize,
    /// Cell of the record, counted from 1.
    pub(crate) column: usize,
    pub(crate) reason: &'static str,
}

/// The records of a text, up to the first error.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    rest: &'a str,
    line: usize,
}

/// What follows a cell.
enum Next {
    Cell,
    Record,
}

impl<'a> Records<'a> {
    /// Reads `text`; the byte order mark that spreadsheets write is skipped.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 }
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

    fn record(&mut self) -> Result<Record<'a>, CellError> {
        let mut record = Record { line: self.line, cells: Vec::new() };
        loop {
            let cell = match self.rest.strip_prefix('"') {
                _ if record.cells.len() == CELLS_MAX => {
                    Err("is one too many: a line has at most 64")
                }
                Some(rest) => self.quoted(rest),
                None => self.plain(),
            };
            let (cell, next) = cell.map_err(|reason| CellError {
                line: record.line,
                column: record.cells.len() + 1,
                reason,
            })?;
            record.cells.push(cell);
            if matches!(next, Next::Record) {
                return Ok(record);
            }
        }
    }

    /// A cell without quotes, the white space around it left out.
    fn plain(&mut self) -> Result<(Cow<'a, str>, Next), &'static str> {
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let (cell, rest) = self.rest.split_at(end);
        if cell.contains('"') {
            return Err("has a quote inside; cells with quotes must be quoted");
        }
        Ok((Cow::Borrowed(cell.trim()), self.separator(rest)?))
    }

    /// A quoted cell whose opening quote is before `text`; two quotes within are one.
    fn quoted(&mut self, text: &'a str) -> Result<(Cow<'a, str>, Next), &'static str> {
        let mut cell = Cow::Borrowed("");
        let mut rest = text;
        loop {
            let (part, after) = rest.split_once('"').ok_or("has a quote that is never closed")?;
            self.line += part.matches('\n').count();
            cell += part;
            match after.strip_prefix('"') {
                Some(more) => {
                    cell += "\"";
                    rest = more;
                }
                None => return Ok((cell, self.separator(after)?)),
            }
        }
    }

    /// Steps over what stands between a cell and `rest`.
    fn separator(&mut self, rest: &'a str) -> Result<Next, &'static str> {
        if let Some(rest) = rest.strip_prefix(',') {
            self.rest = rest;
            return Ok(Next::Cell);
        }
        let (blank, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if !blank.trim().is_empty() {
            return Err("has text after its closing quote");
        }
        self.rest = after;
        self.line += 1;
        Ok(Next::Record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, CellError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blank_lines();
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record();
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
    fn marks_line_ends_and_blank_lines_make_no_difference() {
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
    fn a_cell_that_cannot_be_read_is_refused_where_it_stands() {
        for (text, line, column, reason) in [
            ("a,b\n1,2\"", 2, 2, "inside"),
            ("a\n\"b", 2, 1, "never closed"),
            ("\"a\"b,c", 1, 1, "after its closing"),
            (&",".repeat(CELLS_MAX), 1, CELLS_MAX + 1, "at most 64"),
        ] {
            let error = Records::new(text).find_map(Result::err).unwrap();
            assert_eq!((error.line, error.column), (line, column), "{text}");
            assert!(error.reason.contains(reason), "{}", error.reason);
        }
    }

    proptest! {
        #[test]
        fn any_cells_come_back_when_they_are_quoted(
            cells in prop::collection::vec(prop::collection::vec("[a,\"\r\n é]{0,6}", 1..5), 1..6),
        ) {
            let quote = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quote).collect::<Vec<_>>().join(",");
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
