//! Plain Rust, for x86-64 without AVX2 and for architectures without lanes of their own.

use super::{Isa, KernelCall, LANES, Lanes};

/// The instructions that every processor has.
pub(in crate::cpu) struct Portable;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct Array([f32; LANES]);

impl Isa for Portable {
    type Lanes = Array;
    // 8 sums of four lanes, 4 registers of weights and 1 pixel take 13 of SSE's 16 registers.
    const TILE_BLOCKS: usize = 1;
    const TILE_PIXELS: usize = 2;

    #[inline(always)]
    unsafe fn run<C: KernelCall<Array>>(call: C) {
        // SAFETY: guaranteed by the caller; no special instruction is used.
        unsafe { call.run() }
    }
}

impl Array {
    /// Has an index instead of iterators: an incremental build does not inline them, and then tests
    /// take twice as long.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "iterators are not always inlined")]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for lane in 0..LANES {
            result[lane] = f(result[lane], other.0[lane]);
        }
        Self(result)
    }
}

impl Lanes for Array {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe { Self(from.cast::<[f32; LANES]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // If the operands do not compare, the result is the second one, as on x86.
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    /// Rounds twice: without an FMA instruction, `f32::mul_add` calls a library function.
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self.mul(factor).add(addend)
    }

    #[inline(always)]
    fn prelu(self, slope: Self) -> Self {
        self.zip(slope, |x, slope| if x < 0.0 { x * slope } else { x })
    }
}
