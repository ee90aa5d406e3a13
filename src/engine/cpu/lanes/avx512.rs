//! AVX-512: a block is one of 32 registers.

use std::arch::x86_64::*;

use super::{Isa, KernelCall, Lanes};

/// The instruction set AVX-512 F, BW, DQ and VL, which all processors with AVX-512 have except the
/// Xeon Phi.
pub(in crate::cpu) struct Avx512;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct Zmm(pub(super) __m512);

impl Isa for Avx512 {
    type Lanes = Zmm;
    // 28 sums, 2 registers of weights and 1 pixel take 31 of 32 registers.
    const TILE_BLOCKS: usize = 2;
    const TILE_PIXELS: usize = 14;

    #[inline(always)]
    unsafe fn run<C: KernelCall<Zmm>>(call: C) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
        unsafe fn with_features<C: KernelCall<Zmm>>(call: C) {
            // SAFETY: guaranteed by the caller.
            unsafe { call.run() }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { with_features(call) }
    }
}

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: a `Zmm` exists only on a processor with AVX-512. The callers \
              of `load` and `store` guarantee the pointers."
)]
impl Lanes for Zmm {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }

    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    fn prelu(self, slope: Self) -> Self {
        unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_mul_ps(self.0, below, self.0, slope.0))
        }
    }
}
