//! What networks are computed in.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What weights and activations are stored and multiplied in; sums are always 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 32-bit floats, of which products read 10 bits after the leading one.
    Tf32,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

/// A name of no precision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision '{0}': f32, tf32, f16 or bf16")]
pub struct UnknownPrecision(String);

impl Precision {
    /// The name in manifests, settings and space identifiers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether weights and values are stored in 16-bit floats.
    #[cfg(feature = "cuda")]
    pub(super) fn is_half(self) -> bool {
        self == Self::F16
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let all = [Self::F32, Self::Tf32, Self::F16, Self::Bf16];
        let found = all.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for precision in [Precision::F32, Precision::Tf32, Precision::F16, Precision::Bf16] {
            assert_eq!(precision.name().parse(), Ok(precision));
        }
        let error = "int8".parse::<Precision>().unwrap_err();
        assert_eq!(error.to_string(), "unknown precision 'int8': f32, tf32, f16 or bf16");
    }
}
