//! The width of text in columns of a fixed-pitch font. Plots cut names by it, tables align cells.

/// Returns how many columns `text` takes.
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Returns how many columns one character takes: two for those of Chinese, Japanese and Korean and
/// for pictures, as Unicode's East Asian Width has them.
pub fn columns(c: char) -> usize {
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
