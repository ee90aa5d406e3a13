//! Single values of a manifest, each checked when it is parsed.

use std::fmt;

use sha2::{Digest, Sha256};

use super::ModelError;

/// Longest name or version in bytes. Names and versions become metric labels and paths. Names of
/// files and tensors may have twice as many bytes.
const NAME_BYTES_MAX: usize = 64;

/// Longest free text in bytes. Free text is shown to operators only.
const TEXT_BYTES_MAX: usize = 512;

/// A SHA-256 as 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Parses `text`, which must have 64 lowercase hexadecimal digits.
    pub(super) fn parse(key: &str, text: String) -> Result<Self, ModelError> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 64 || !text.bytes().all(is_hex) {
            return Err(ModelError::value(key, "must have 64 lowercase hexadecimal digits"));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An SPDX licence identifier such as `Apache-2.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence(String);

impl Licence {
    /// Parses `text`, which must have the characters of an SPDX identifier.
    pub(super) fn parse(text: String) -> Result<Self, ModelError> {
        let is_spdx = |b: u8| b.is_ascii_alphanumeric() || b"-.+".contains(&b);
        if !(1..=NAME_BYTES_MAX).contains(&text.len()) || !text.bytes().all(is_spdx) {
            return Err(ModelError::value("licence", "must be an SPDX identifier"));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the identifier says that commercial use is forbidden, as `CC-BY-NC-4.0` and
    /// `LicenseRef-noncommercial-…` do.
    pub(super) fn is_noncommercial(&self) -> bool {
        let lower = self.0.to_ascii_lowercase();
        lower.replace('-', "").contains("noncommercial") || lower.split('-').any(|p| p == "nc")
    }
}

/// Parses the name or version of a model: a plain directory name that can also be a metric label.
pub(super) fn parse_label(key: &str, text: String) -> Result<String, ModelError> {
    let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if text.len() > NAME_BYTES_MAX || !starts_well || !text.bytes().all(is_label) {
        let rule = "must have 1 to 64 of a-z 0-9 - _ . and start with a letter or digit";
        return Err(ModelError::value(key, rule));
    }
    Ok(text)
}

/// Parses the name of a file beside the manifest. The name cannot lead out of the directory.
pub(super) fn parse_file_name(key: &str, text: String) -> Result<String, ModelError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if text.len() > 2 * NAME_BYTES_MAX || !starts_well || !text.bytes().all(is_plain) {
        return Err(ModelError::value(key, "must be a plain file name, with no path"));
    }
    Ok(text)
}

/// Parses the name of a tensor in an ONNX file.
pub(super) fn parse_tensor_name(key: &str, text: String) -> Result<String, ModelError> {
    parse_text(key, text, 2 * NAME_BYTES_MAX)
}

/// Parses free text for operators.
pub(super) fn parse_free_text(key: &str, text: String) -> Result<String, ModelError> {
    parse_text(key, text, TEXT_BYTES_MAX)
}

fn parse_text(key: &str, text: String, bytes_max: usize) -> Result<String, ModelError> {
    if !(1..=bytes_max).contains(&text.len()) || text.chars().any(char::is_control) {
        let rule = format!("must have 1 to {bytes_max} printable bytes");
        return Err(ModelError::value(key, rule));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_the_bytes() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256Hex::of(b"").as_str(), empty);
        assert!(Sha256Hex::parse("sha256", empty.to_uppercase()).is_err());
    }

    #[test]
    fn a_licence_that_forbids_commercial_use_is_known_by_its_name() {
        let cases = [
            ("Apache-2.0", false),
            ("MIT", false),
            ("NCSA", false),
            ("CC-BY-4.0", false),
            ("CC-BY-NC-4.0", true),
            ("CC-BY-NC-SA-4.0", true),
            ("LicenseRef-noncommercial-research", true),
            ("LicenseRef-Non-Commercial", true),
        ];
        for (id, expected) in cases {
            let licence = Licence::parse(id.to_owned()).unwrap();
            assert_eq!(licence.is_noncommercial(), expected, "{id}");
        }
    }

    #[test]
    fn a_file_name_cannot_lead_out_of_its_directory() {
        for name in ["", ".", "..", "../a", "a/b", "/a", "a\\b", ".hidden", "a\0", "C:a"] {
            assert!(parse_file_name("file", name.to_owned()).is_err(), "{name:?}");
        }
        assert!(parse_file_name("file", "net-1.0_x.onnx".to_owned()).is_ok());
    }
}
