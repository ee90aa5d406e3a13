//! Text tables: columns as wide as their widest cell, numbers to the right.

use menshen_evaluation::width::width;

/// A table whose lines all have as many cells as the heading.
#[derive(Debug)]
pub(super) struct Table {
    lines: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with its heading; a heading that starts with `>` aligns its column to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let heading =
            headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Self { lines: vec![heading], right }
    }

    /// Adds a line; missing cells are empty.
    pub(super) fn add_line(&mut self, mut cells: Vec<String>) {
        cells.resize(self.right.len(), String::new());
        self.lines.push(cells);
    }

    /// The table as lines of text, a rule under the heading.
    pub(super) fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = (0..self.right.len())
            .map(|column| self.lines.iter().map(|line| width(&line[column])).max().unwrap_or(0))
            .collect();
        let mut lines: Vec<String> =
            self.lines.iter().map(|cells| self.align(cells, &widths)).collect();
        let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        lines.insert(1, rule.join("  "));
        lines
    }

    fn align(&self, cells: &[String], widths: &[usize]) -> String {
        let mut aligned = Vec::with_capacity(cells.len());
        for ((cell, right), to) in cells.iter().zip(&self.right).zip(widths) {
            let space = " ".repeat(to - width(cell));
            aligned.push(if *right { format!("{space}{cell}") } else { format!("{cell}{space}") });
        }
        aligned.join("  ").trim_end().to_owned()
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
        assert_eq!(table.lines(), want);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&["species", ">passed"]);
        table.add_line(vec!["纸面具（弯）".into(), "3".into()]);
        table.add_line(vec!["replay █◀≤".into(), "12".into()]);
        let lines = table.lines();
        assert_eq!(lines[2], "纸面具（弯）       3");
        assert_eq!(lines[3], "replay █◀≤        12");
    }
}
