//! The type in which a network stores its weights and values on the GPU.

use crate::Precision;

/// Type of one stored number: a weight, or an element of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    F32,
    F16,
}

impl ElementType {
    /// Returns the type in which a network of this precision stores numbers.
    pub(super) fn of(precision: Precision) -> Self {
        if precision.is_half() { Self::F16 } else { Self::F32 }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// Returns the part of a kernel's name that states the type.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}
