//! Numbers as text: latencies, counts, rates and times.

/// Returns a latency in the unit that keeps it short: µs, ms or s.
pub(super) fn latency(ms: f64) -> String {
    // Rounding comes first: 999.9 ms are a second.
    match round(ms) {
        ms if ms < 1.0 => format!("{} µs", plain(ms * 1e3)),
        ms if ms < 1e3 => format!("{} ms", plain(ms)),
        ms => format!("{} s", plain(ms / 1e3)),
    }
}

/// Returns a count or a rate. Thousands are set apart; large numbers are cut to three digits.
pub(super) fn count(value: f64) -> String {
    if value < 99.95 {
        return plain(value);
    }
    let value = value.round();
    if value >= 1e6 {
        return format!("{:e}", round(value));
    }
    let digits = value.to_string();
    match digits.len() {
        ..=3 => digits,
        length => format!("{},{}", &digits[..length - 3], &digits[length - 3..]),
    }
}

/// Returns a number with at most three significant digits, and no zeros after the last one.
fn plain(value: f64) -> String {
    // Rounded again, because scaling by a unit is not exact.
    round(value).to_string()
}

/// The unit in which a time axis of this length is labelled: its length in seconds, and its name.
pub(super) fn time_unit(seconds: f64) -> (f64, &'static str) {
    match seconds {
        ..=180.0 => (1.0, "s"),
        ..=10_800.0 => (60.0, "min"),
        _ => (3_600.0, "h"),
    }
}

/// Rounds to three significant digits.
fn round(value: f64) -> f64 {
    // The nearest decimal number, whose shortest text then has these digits only.
    format!("{value:.2e}").parse().expect("a number that was written can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_short_in_each_unit() {
        for (ms, expected) in [
            (0.05, "50 µs"),
            (0.9999, "1 ms"),
            (1.0, "1 ms"),
            (12.345, "12.3 ms"),
            (999.9, "1 s"),
            (1_234.0, "1.23 s"),
            (60_000.0, "60 s"),
            (0.0, "0 µs"),
        ] {
            assert_eq!(latency(ms), expected, "{ms}");
        }
    }

    #[test]
    fn counts_set_thousands_apart() {
        for (value, expected) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (31.46, "31.5"),
            (600.0, "600"),
            (1_000.0, "1,000"),
            (36_000.4, "36,000"),
            (999_999.9, "1e6"),
            (1_250_000.0, "1.25e6"),
        ] {
            assert_eq!(count(value), expected, "{value}");
        }
    }

    #[test]
    fn a_long_run_is_labelled_in_long_units() {
        assert_eq!(time_unit(30.0).1, "s");
        assert_eq!(time_unit(600.0).1, "min");
        assert_eq!(time_unit(86_400.0).1, "h");
    }
}
