//! What the settings of all layers share: the report of a value outside its range, and the way
//! between a layer's own type and the text in a file.

use std::fmt;
use std::ops::RangeInclusive;

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted name of the setting, such as `server.requests_max`.
    pub key: String,
    /// The value that was given.
    pub value: String,
    /// What the value must be.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but must be {}", self.key, self.value, self.rule)
    }
}

/// Gathers the violations of one section, so that all are reported at once.
#[derive(Debug)]
pub struct RangeCheck {
    section: String,
    violations: Vec<Violation>,
}

impl RangeCheck {
    /// A check of the section called `section`, which stands before each key.
    pub fn of(section: impl Into<String>) -> Self {
        Self { section: section.into(), violations: Vec::new() }
    }

    /// Reports `key` unless `holds`; `rule` says what the value must be.
    pub fn require(
        &mut self,
        holds: bool,
        key: &str,
        value: impl ToString,
        rule: impl Into<String>,
    ) {
        if !holds {
            let key = format!("{}.{key}", self.section);
            self.violations.push(Violation { key, value: value.to_string(), rule: rule.into() });
        }
    }

    /// Reports `key` unless its value is 1 or more.
    pub fn at_least_one<N: PartialOrd + From<u8> + ToString>(&mut self, key: &str, value: N) {
        self.require(value >= N::from(1), key, value, "at least 1");
    }

    /// Reports `key` unless its value lies in `range`.
    pub fn within<N>(&mut self, key: &str, value: N, range: RangeInclusive<N>)
    where
        N: PartialOrd + fmt::Display,
    {
        let rule = format!("from {} to {}", range.start(), range.end());
        self.require(range.contains(&value), key, value, rule);
    }

    /// All that was reported.
    pub fn violations(self) -> Vec<Violation> {
        self.violations
    }
}

/// A field that a file holds as text: `#[serde(with = "crate::setting::text")]`. A text that does
/// not parse is refused with the words of the type's own error.
pub mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `value` as it displays.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Parses a text.
    ///
    /// # Errors
    /// A value that is no text, or a text that does not parse.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// As [`text`], for a field that may be left out. It needs `default` and `skip_serializing_if`.
pub mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    /// Writes a value that is there as it displays.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    /// Parses a text.
    ///
    /// # Errors
    /// A value that is no text, or a text that does not parse.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        super::text::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_reported_by_key_value_and_rule() {
        let mut check = RangeCheck::of("server");
        check.at_least_one("requests_max", 0);
        check.at_least_one("bytes_max", 1);
        check.within("attempts_max", 11, 1..=10);
        check.within("attempts_max", 10, 1..=10);
        check.require(false, "key_file", "not set", "set");
        let messages: Vec<String> = check.violations().iter().map(ToString::to_string).collect();
        let expected = [
            "server.requests_max is 0, but must be at least 1",
            "server.attempts_max is 11, but must be from 1 to 10",
            "server.key_file is not set, but must be set",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_number_that_is_none_is_in_no_range() {
        let mut check = RangeCheck::of("verify");
        check.within("review_factor", f64::NAN, 1.0..=1000.0);
        assert_eq!(check.violations().len(), 1);
    }
}
