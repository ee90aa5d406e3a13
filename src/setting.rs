//! Shared by the settings of all layers: the report of a value outside its range, and the
//! conversion between a type of a layer and its text in a file.

use std::fmt;
use std::ops::RangeInclusive;

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted name of the setting, such as `server.requests_max`.
    pub key: String,
    /// The given value.
    pub value: String,
    /// The rule that the value breaks, as in "must be {rule}".
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but must be {}", self.key, self.value, self.rule)
    }
}

/// Collects the violations of one section, so that all are reported together.
#[derive(Debug)]
pub struct RangeCheck {
    section: String,
    violations: Vec<Violation>,
}

impl RangeCheck {
    /// Makes a check of the section called `section`, which becomes the prefix of each key.
    pub fn of(section: impl Into<String>) -> Self {
        Self { section: section.into(), violations: Vec::new() }
    }

    /// Reports `key` unless `holds` is true. `rule` says what the value must be.
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

    /// Reports `key` unless the value is at least 1.
    pub fn at_least_one<N: PartialOrd + From<u8> + ToString>(&mut self, key: &str, value: N) {
        self.require(value >= N::from(1), key, value, "at least 1");
    }

    /// Reports `key` unless the value is in `range`.
    pub fn within<N>(&mut self, key: &str, value: N, range: RangeInclusive<N>)
    where
        N: PartialOrd + fmt::Display,
    {
        let rule = format!("from {} to {}", range.start(), range.end());
        self.require(range.contains(&value), key, value, rule);
    }

    /// Returns all violations.
    pub fn violations(self) -> Vec<Violation> {
        self.violations
    }
}

/// Serialises a field as text: `#[serde(with = "crate::setting::text")]`. A text that does not
/// parse is refused with the error message of the type's `FromStr`.
pub mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `value` with its `Display`.
    ///
    /// # Errors
    /// The errors of `serializer`.
    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Parses a text.
    ///
    /// # Errors
    /// The value is not a text, or the text does not parse.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// As [`text`], for an optional field. The field also needs `default` and `skip_serializing_if`.
pub mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    /// Writes a value, if there is one, with its `Display`.
    ///
    /// # Errors
    /// The errors of `serializer`.
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
    /// The value is not a text, or the text does not parse.
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
