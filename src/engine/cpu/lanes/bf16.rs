//! bfloat16, the upper half of an `f32`. Products are exact; sums are `f32`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::avx512::{Avx512, Zmm};
use super::portable::Array;
use super::{Format, LANES, Lanes};
#[cfg(target_arch = "x86_64")]
use super::{Isa, KernelCall};

/// Activations and weights as bfloat16. In the weights, two input channels are adjacent, as in an
/// activation, because one instruction multiplies two.
pub(in crate::cpu) struct Bf16;

/// Input channels that one instruction multiplies.
const PAIR: usize = 2;

/// Returns the nearest bfloat16, with ties to even. A NaN stays a NaN.
#[inline]
pub(in crate::cpu) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // Adds half of the last kept bit's value, less one if that bit is 0. The carry then rounds.
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Returns the number that a bfloat16 stands for.
#[inline]
pub(in crate::cpu) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// AVX-512 with the instructions for bfloat16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) struct Avx512Bf16;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx512Bf16 {
    type Lanes = Zmm;
    const TILE_BLOCKS: usize = Avx512::TILE_BLOCKS;
    const TILE_PIXELS: usize = Avx512::TILE_PIXELS;

    #[inline(always)]
    unsafe fn run<C: KernelCall<Zmm>>(call: C) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
        unsafe fn with_features<C: KernelCall<Zmm>>(call: C) {
            // SAFETY: guaranteed by the caller.
            unsafe { call.run() }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { with_features(call) }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: this format is used with `Zmm` only through `Avx512Bf16`, on \
              a processor with its instructions. The callers guarantee the pointers."
)]
impl Format<Zmm> for Bf16 {
    type Element = u16;
    type Weights = __m512i;
    type Pixel = __m512i;
    const DEPTH: usize = PAIR;

    #[inline(always)]
    unsafe fn load(from: *const u16) -> Zmm {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn store(lanes: Zmm, to: *mut u16) {
        unsafe {
            let narrow: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(lanes.0));
            _mm256_storeu_si256(to.cast(), narrow);
        }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const u16) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_pixel(from: *const u16) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn dot(sum: Zmm, weights: __m512i, pixel: __m512i) -> Zmm {
        unsafe {
            let weights = std::mem::transmute::<__m512i, __m512bh>(weights);
            let pixel = std::mem::transmute::<__m512i, __m512bh>(pixel);
            Zmm(_mm512_dpbf16_ps(sum.0, weights, pixel))
        }
    }
}

/// The same numbers without the instructions. This is slow; tests compare the fast path with it.
/// Loops have an index for the same reason as in [`Array`].
impl Format<Array> for Bf16 {
    type Element = u16;
    type Weights = [[f32; LANES]; PAIR];
    type Pixel = [f32; PAIR];
    const DEPTH: usize = PAIR;

    #[inline(always)]
    unsafe fn load(from: *const u16) -> Array {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let narrow = from.cast::<[u16; LANES]>().read_unaligned();
            let mut wide = [0.0; LANES];
            for lane in 0..LANES {
                wide[lane] = from_bf16(narrow[lane]);
            }
            Array::load(wide.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(lanes: Array, to: *mut u16) {
        let (mut wide, mut narrow) = ([0.0; LANES], [0; LANES]);
        // SAFETY: guaranteed by the caller, and `wide` holds sixteen numbers.
        unsafe {
            lanes.store(wide.as_mut_ptr());
            for lane in 0..LANES {
                narrow[lane] = to_bf16(wide[lane]);
            }
            to.cast::<[u16; LANES]>().write_unaligned(narrow);
        }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const u16) -> Self::Weights {
        // SAFETY: guaranteed by the caller.
        let pairs = unsafe { from.cast::<[[u16; PAIR]; LANES]>().read_unaligned() };
        let mut weights = [[0.0; LANES]; PAIR];
        for lane in 0..LANES {
            for channel in 0..PAIR {
                weights[channel][lane] = from_bf16(pairs[lane][channel]);
            }
        }
        weights
    }

    #[inline(always)]
    unsafe fn load_pixel(from: *const u16) -> [f32; PAIR] {
        // SAFETY: guaranteed by the caller.
        let [first, second] = unsafe { from.cast::<[u16; PAIR]>().read_unaligned() };
        [from_bf16(first), from_bf16(second)]
    }

    #[inline(always)]
    fn dot(sum: Array, weights: Self::Weights, pixel: [f32; PAIR]) -> Array {
        // SAFETY: arrays need no special instructions.
        unsafe {
            let mut sum = sum;
            for channel in 0..PAIR {
                let weights = Array::load(weights[channel].as_ptr());
                sum = weights.mul_add(Array::splat(pixel[channel]), sum);
            }
            sum
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        let cases = [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            // Exactly half way between 1 and the next bfloat16: the even one.
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::INFINITY, 0x7f80),
        ];
        for (x, bits) in cases {
            assert_eq!(to_bf16(x), bits, "{x}");
        }
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
    }
}
