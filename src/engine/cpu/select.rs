//! Chooses the kernel set for a processor.

use std::str::FromStr;
use std::{fmt, io};

#[cfg(target_arch = "x86_64")]
use super::amx_permission;
use super::kernels::{self, KernelSet};
use crate::Precision;

/// The kernel set the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelChoice {
    /// The fastest set this processor supports among those that have run on hardware: all but AMX.
    #[default]
    Auto,
    /// AMX for dense convolutions and AVX-512 for everything else; bfloat16 only. Tested under an
    /// instruction emulator and never run on hardware.
    Amx,
    /// AVX-512, with its bfloat16 instructions for [`Precision::Bf16`].
    Avx512,
    /// AVX2 with FMA; `f32` only.
    Avx2,
    /// NEON; `f32` only.
    Neon,
    /// Code for every processor. It emulates bfloat16, which is slow.
    Portable,
}

/// The reason why a kernel set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A text that names no kernel set.
    #[error("unknown kernels '{0}': auto, amx, avx512, avx2, neon or portable")]
    Unknown(String),
    /// The processor lacks instructions.
    #[error("this processor has no {needs}, which {kernels} kernels for {precision} need")]
    Unsupported {
        /// The kernel set asked for.
        kernels: KernelChoice,
        /// The precision asked for.
        precision: Precision,
        /// The missing instructions.
        needs: &'static str,
    },
    /// The system does not save the state of AMX for this process.
    #[error("the system does not let this process use AMX")]
    Refused(#[source] io::Error),
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        })
    }
}

impl FromStr for KernelChoice {
    type Err = SelectError;

    fn from_str(name: &str) -> Result<Self, SelectError> {
        let mut all = std::iter::once(Self::Auto).chain(Self::SETS);
        let found = all.find(|choice| choice.to_string() == name);
        found.ok_or_else(|| SelectError::Unknown(name.to_owned()))
    }
}

impl KernelChoice {
    /// All kernel sets, the fastest first.
    pub const SETS: [Self; 5] = [Self::Amx, Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Returns the sets that `auto` chooses from, the fastest first. AMX is left out because no
    /// machine has run its kernels. The emulation of bfloat16 is left out because it is slower than
    /// `f32`.
    fn auto_candidates(precision: Precision) -> &'static [Self] {
        match precision {
            Precision::F32 => &[Self::Avx512, Self::Avx2, Self::Neon, Self::Portable],
            Precision::Bf16 => &[Self::Avx512],
            Precision::F16 | Precision::Tf32 => &[],
        }
    }

    /// Returns the kernel set for a precision on this processor.
    pub(super) fn select(self, precision: Precision) -> Result<&'static KernelSet, SelectError> {
        let unsupported = |needs| SelectError::Unsupported { kernels: self, precision, needs };
        match (self, precision) {
            (_, Precision::F16) => Err(unsupported("arithmetic for 16-bit floats")),
            (_, Precision::Tf32) => Err(unsupported("arithmetic for TF32")),
            (Self::Portable, Precision::F32) => Ok(&kernels::PORTABLE_F32),
            (Self::Portable, Precision::Bf16) => Ok(&kernels::PORTABLE_BF16),
            (Self::Avx2, Precision::Bf16) => Err(unsupported("bfloat16 instructions in AVX2")),
            (Self::Avx2, Precision::F32) => avx2().ok_or(unsupported("AVX2 and FMA")),
            (Self::Neon, Precision::Bf16) => Err(unsupported("bfloat16 instructions in NEON")),
            (Self::Neon, Precision::F32) => neon().ok_or(unsupported("NEON")),
            (Self::Avx512, Precision::F32) => avx512().ok_or(unsupported("AVX-512")),
            (Self::Avx512, Precision::Bf16) => {
                avx512_bf16().ok_or(unsupported("AVX-512 with bfloat16"))
            }
            (Self::Amx, Precision::F32) => Err(unsupported("32-bit floats in AMX")),
            (Self::Amx, Precision::Bf16) if !has_amx() => Err(unsupported("AMX with bfloat16")),
            (Self::Amx, Precision::Bf16) => permitted_amx().map_err(SelectError::Refused),
            (Self::Auto, _) => {
                let mut sets = Self::auto_candidates(precision).iter();
                let found = sets.find_map(|set| set.select(precision).ok());
                // Every processor has kernels for `f32`, so only bfloat16 can be unsupported.
                found.ok_or(unsupported("AVX-512 with bfloat16"))
            }
        }
    }

    /// Returns the name of the kernel set that would run.
    ///
    /// # Errors
    /// If the processor lacks the instructions.
    pub fn describe(self, precision: Precision) -> Result<&'static str, SelectError> {
        self.select(precision).map(|kernels| kernels.name)
    }
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> Option<&'static KernelSet> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma");
    has.then_some(&kernels::AVX512_F32)
}

#[cfg(target_arch = "x86_64")]
fn avx512_bf16() -> Option<&'static KernelSet> {
    let has = avx512().is_some() && is_x86_feature_detected!("avx512bf16");
    has.then_some(&kernels::AVX512_BF16)
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    avx512_bf16().is_some() && amx_permission::has_amx()
}

/// Asks the system for AMX; the processor must have it.
#[cfg(target_arch = "x86_64")]
fn permitted_amx() -> io::Result<&'static KernelSet> {
    amx_permission::request().map(|()| &kernels::AMX_BF16)
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<&'static KernelSet> {
    let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    has.then_some(&kernels::AVX2_F32)
}

#[cfg(target_arch = "aarch64")]
fn neon() -> Option<&'static KernelSet> {
    Some(&kernels::NEON_F32)
}

#[cfg(not(target_arch = "aarch64"))]
fn neon() -> Option<&'static KernelSet> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Option<&'static KernelSet> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512_bf16() -> Option<&'static KernelSet> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn permitted_amx() -> io::Result<&'static KernelSet> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<&'static KernelSet> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_back_and_others_are_refused() {
        for name in ["auto", "amx", "avx512", "avx2", "neon", "portable"] {
            assert_eq!(name.parse::<KernelChoice>().unwrap().to_string(), name);
        }
        let error = "sse".parse::<KernelChoice>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown kernels 'sse': auto, amx, avx512, avx2, neon or portable"
        );
    }

    #[test]
    fn every_processor_has_kernels_and_none_are_replaced_silently() {
        assert!(KernelChoice::Auto.select(Precision::F32).is_ok());
        assert!(KernelChoice::Portable.select(Precision::Bf16).is_ok());
        let error = KernelChoice::Avx2.select(Precision::Bf16).err().unwrap();
        assert!(error.to_string().contains("avx2 kernels for bf16"), "{error}");
    }

    #[test]
    fn precisions_of_gpus_are_refused_by_name() {
        for kernels in std::iter::once(KernelChoice::Auto).chain(KernelChoice::SETS) {
            for (precision, needs) in [(Precision::Tf32, "TF32"), (Precision::F16, "16-bit floats")]
            {
                let error = kernels.select(precision).err().unwrap().to_string();
                let expected = format!(
                    "this processor has no arithmetic for {needs}, which {kernels} kernels for \
                     {precision} need"
                );
                assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn amx_is_selected_by_name_where_permitted_and_refused_by_name_elsewhere() {
        let error = KernelChoice::Amx.select(Precision::F32).err().unwrap();
        assert!(error.to_string().contains("amx kernels for f32"), "{error}");
        match KernelChoice::Amx.select(Precision::Bf16) {
            Ok(kernels) => assert_eq!(kernels.name, "amx-bf16"),
            Err(error) => {
                let reason = error.to_string();
                assert!(reason.contains("no AMX") || reason.contains("use AMX"), "{reason}");
            }
        }
    }

    /// This also holds on processors with AMX: `auto` chooses from these sets and no others.
    #[test]
    fn auto_never_selects_amx() {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Tf32] {
            let sets = KernelChoice::auto_candidates(precision);
            assert!(!sets.contains(&KernelChoice::Amx), "{precision}");
            let fastest = sets.iter().find_map(|set| set.describe(precision).ok());
            assert_eq!(KernelChoice::Auto.describe(precision).ok(), fastest, "{precision}");
        }
    }

    #[test]
    fn auto_selects_the_bfloat16_instructions_of_avx512_and_never_emulates_them() {
        match (avx512_bf16(), KernelChoice::Auto.select(Precision::Bf16)) {
            (Some(_), Ok(kernels)) => assert_eq!(kernels.name, "avx512-bf16"),
            (None, Err(error)) => {
                let expected = "this processor has no AVX-512 with bfloat16, which auto kernels \
                                for bf16 need";
                assert_eq!(error.to_string(), expected);
            }
            (has, found) => panic!("{}: {:?}", has.is_some(), found.err()),
        }
    }
}
