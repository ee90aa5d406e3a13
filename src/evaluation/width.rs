//! The width of text in columns of a fixed-pitch font. Plots shorten names and tables align cells
//! by it.

/// Returns the number of columns of `text`.
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Returns the number of columns of one character. Chinese, Japanese and Korean characters and
/// pictographs take two columns, as in Unicode's East Asian Width; others take one.
pub(crate) fn columns(c: char) -> usize {
    let is_wide = matches!(
        c,
        '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe6f}'
            | '\u{ff00}'..='\u{ff60}'
            | '\u{ffe0}'..='\u{ffe6}'
            | '\u{1f300}'..='\u{1f9ff}'
            | '\u{20000}'..='\u{3fffd}'
    );
    if is_wide { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("纸面具（弯）"), 12);
        assert_eq!(width("replay █◀≤"), 10);
    }
}
