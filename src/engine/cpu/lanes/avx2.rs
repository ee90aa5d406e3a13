//! AVX2 with FMA: a block is two of 16 registers.

use std::arch::x86_64::*;

use super::{Isa, KernelCall, LANES, Lanes};

/// The instruction set AVX2 with FMA.
pub(in crate::cpu) struct Avx2;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct TwoYmm(__m256, __m256);

/// Lanes of one register.
const HALF: usize = LANES / 2;

impl Isa for Avx2 {
    type Lanes = TwoYmm;
    // 12 sums, 2 registers of weights and 1 pixel take 15 of 16 registers.
    const TILE_BLOCKS: usize = 1;
    const TILE_PIXELS: usize = 6;

    #[inline(always)]
    unsafe fn run<C: KernelCall<TwoYmm>>(call: C) {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_features<C: KernelCall<TwoYmm>>(call: C) {
            // SAFETY: guaranteed by the caller.
            unsafe { call.run() }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { with_features(call) }
    }
}

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: a `TwoYmm` exists only on a processor with AVX2 and FMA. The \
              callers of `load` and `store` guarantee the pointers."
)]
impl Lanes for TwoYmm {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(HALF))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(HALF), self.1);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe {
            Self(
                _mm256_fmadd_ps(self.0, factor.0, addend.0),
                _mm256_fmadd_ps(self.1, factor.1, addend.1),
            )
        }
    }

    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    fn prelu(self, slope: Self) -> Self {
        // The sign bit selects the product. For -0 the product is a zero as well.
        unsafe {
            Self(
                _mm256_blendv_ps(self.0, _mm256_mul_ps(self.0, slope.0), self.0),
                _mm256_blendv_ps(self.1, _mm256_mul_ps(self.1, slope.1), self.1),
            )
        }
    }
}
