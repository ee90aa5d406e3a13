//! Text tables. A column is as wide as its widest cell; numbers are aligned to the right.

use menshen_evaluation::width::width;

/// A table whose lines all have as many cells as the heading.
#[derive(Debug)]
pub(super) struct Table {
    /// The first line is the heading.
    lines: Vec<Vec<String>>,
    /// One value per column.
    right_aligned: Vec<bool>,
}

impl Table {
    /// Creates a table with its heading. A heading that starts with `>` aligns its column to the
    /// right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let right_aligned = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let heading =
            headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Self { lines: vec![heading], right_aligned }
    }

    /// Adds a line; missing cells are empty.
    pub(super) fn add_line(&mut self, mut cells: Vec<String>) {
        cells.resize(self.right_aligned.len(), String::new());
        self.lines.push(cells);
    }

    /// Returns the table as lines of text, with a rule under the heading.
    pub(super) fn render(&self) -> Vec<String> {
        let columns = 0..self.right_aligned.len();
        let widths: Vec<usize> = columns
            .map(|column| self.lines.iter().map(|cells| width(&cells[column])).max().unwrap_or(0))
            .collect();
        let mut rendered: Vec<String> =
            self.lines.iter().map(|cells| self.render_line(cells, &widths)).collect();
        let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        rendered.insert(1, rule.join("  "));
        rendered
    }

    fn render_line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut padded = Vec::with_capacity(cells.len());
        let columns = cells.iter().zip(&self.right_aligned).zip(widths);
        for ((cell, is_right), column_width) in columns {
            let space = " ".repeat(column_width - width(cell));
            padded.push(if *is_right {
                format!("{space}{cell}")
            } else {
                format!("{cell}{space}")
            });
        }
        padded.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["name", ">ms"]);
        table.add_line(vec!["é".into(), "1".into()]);
        table.add_line(vec!["longer".into(), "12.5".into()]);
        table.add_line(vec!["bare".into()]);
        let want = ["name      ms", "──────  ────", "é          1", "longer  12.5", "bare"];
        assert_eq!(table.render(), want);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&["species", ">passed"]);
        table.add_line(vec!["纸面具（弯）".into(), "3".into()]);
        table.add_line(vec!["replay █◀≤".into(), "12".into()]);
        let lines = table.render();
        assert_eq!(lines[2], "纸面具（弯）       3");
        assert_eq!(lines[3], "replay █◀≤        12");
    }
}
