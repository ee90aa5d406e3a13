//! NEON, which every 64-bit ARM has: a block is four of 32 registers.

use std::arch::aarch64::*;

use super::{Isa, KernelCall, LANES, Lanes};

/// The instruction set NEON.
pub(in crate::cpu) struct Neon;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct FourQuads([float32x4_t; QUADS]);

/// Lanes of one register.
const QUAD: usize = 4;
const QUADS: usize = LANES / QUAD;

impl Isa for Neon {
    type Lanes = FourQuads;
    // 24 sums, 4 registers of weights and 1 pixel take 29 of 32 registers.
    const TILE_BLOCKS: usize = 1;
    const TILE_PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn run<C: KernelCall<FourQuads>>(call: C) {
        // SAFETY: guaranteed by the caller; NEON is part of the architecture.
        unsafe { call.run() }
    }
}

impl FourQuads {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(std::array::from_fn(|at| f(self.0[at], other.0[at])))
    }
}

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: NEON is part of the architecture. The callers of `load` and \
              `store` guarantee the pointers."
)]
impl Lanes for FourQuads {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self([vdupq_n_f32(x); QUADS]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(std::array::from_fn(|at| vld1q_f32(from.add(QUAD * at)))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (at, quad) in self.0.into_iter().enumerate() {
            unsafe { vst1q_f32(to.add(QUAD * at), quad) }
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    /// If the operands do not compare, the result is the second one, as on x86 and unlike `fmax`.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|at| unsafe { vfmaq_f32(addend.0[at], self.0[at], factor.0[at]) }))
    }

    #[inline(always)]
    fn prelu(self, slope: Self) -> Self {
        self.zip(slope, |x, slope| unsafe { vbslq_f32(vcltzq_f32(x), vmulq_f32(x, slope), x) })
    }
}
