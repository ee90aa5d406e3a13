//! Number formats in which networks compute.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Number format of weights and activations, in memory and in products. Sums are always 32-bit
/// floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754 single precision, 32 bits.
    F32,
    /// 32-bit floats in memory. Products use only the upper 10 of the 23 fraction bits.
    Tf32,
    /// IEEE 754 half precision, 16 bits.
    F16,
    /// bfloat16: 16 bits with the exponent range of `f32`.
    Bf16,
}

/// A text that names no precision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision '{0}': f32, tf32, f16 or bf16")]
pub struct UnknownPrecision(String);

impl Precision {
    /// Returns the name in manifests, settings and space identifiers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Returns true if GPUs store weights and values as 16-bit floats. They refuse `bf16`.
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
