//! Sixteen numbers at a time, on whatever the processor has.
//!
//! Every kernel of this folder is written once, over [`Lanes`] (sixteen `f32` in registers) and
//! [`Format`] (how activations and weights lie in memory). An [`Isa`] names the two for one
//! instruction set and compiles a kernel with it.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod bf16;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod portable;

/// Lanes in a block: one AVX-512 register, two of AVX2, four of SSE or NEON.
pub(super) const LANES: usize = 16;

/// Sixteen `f32`.
///
/// Making a value is unsafe because it takes instructions the processor may not have; whoever
/// holds one has shown that it has them, so arithmetic is safe.
pub(super) trait Lanes: Copy {
    /// Sixteen times `x`.
    ///
    /// # Safety
    /// The processor has the instructions of this type.
    unsafe fn splat(x: f32) -> Self;

    /// Sixteen numbers from memory.
    ///
    /// # Safety
    /// As [`Lanes::splat`]; `from` points to sixteen numbers. No alignment is needed.
    unsafe fn load(from: *const f32) -> Self;

    /// Sixteen numbers to memory.
    ///
    /// # Safety
    /// `to` points to room for sixteen numbers.
    unsafe fn store(self, to: *mut f32);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;

    /// `self × factor + addend` with one rounding.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Says that the cache line at `from`, which may be any address, will be wanted in the
    /// second-level cache; a hint where the set has an instruction for it.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}

    /// Lanes below zero are multiplied with their slope: PReLU, and ReLU with slope 0.
    fn prelu(self, slope: Self) -> Self;
}

/// How numbers of a network lie in memory.
pub(super) trait Format<L: Lanes> {
    /// One number.
    type Element: Copy;
    /// What one [`Format::dot`] multiplies: numbers of [`Format::DEPTH`] input channels for each
    /// of sixteen output channels.
    type Weights: Copy;
    /// The same numbers of one pixel, seen by all output channels.
    type Pixel: Copy;
    /// Input channels that one `dot` takes in.
    const DEPTH: usize;

    /// # Safety
    /// As [`Lanes::load`], with sixteen elements.
    unsafe fn load(from: *const Self::Element) -> L;

    /// # Safety
    /// As [`Lanes::store`], with sixteen elements.
    unsafe fn store(lanes: L, to: *mut Self::Element);

    /// # Safety
    /// As [`Lanes::load`], with `16 × DEPTH` elements.
    unsafe fn load_weights(from: *const Self::Element) -> Self::Weights;

    /// # Safety
    /// As [`Lanes::load`], with `DEPTH` elements.
    unsafe fn load_pixel(from: *const Self::Element) -> Self::Pixel;

    /// `sum + weights × pixel`, summed over the depth.
    fn dot(sum: L, weights: Self::Weights, pixel: Self::Pixel) -> L;
}

/// Activations and weights as `f32`.
pub(super) struct F32;

impl<L: Lanes> Format<L> for F32 {
    type Element = f32;
    type Weights = L;
    type Pixel = L;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> L {
        // SAFETY: what the caller promises.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn store(lanes: L, to: *mut f32) {
        // SAFETY: what the caller promises.
        unsafe { lanes.store(to) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const f32) -> L {
        // SAFETY: what the caller promises.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn load_pixel(from: *const f32) -> L {
        // SAFETY: what the caller promises.
        unsafe { L::splat(*from) }
    }

    #[inline(always)]
    fn dot(sum: L, weights: L, pixel: L) -> L {
        weights.mul_add(pixel, sum)
    }
}

/// A piece of code to be compiled for one instruction set.
pub(super) trait Kernel<L: Lanes> {
    /// # Safety
    /// What the kernel says of its pointers; the processor has the instructions of `L`.
    unsafe fn run(self);
}

/// An instruction set.
pub(super) trait Isa: 'static {
    type Lanes: Lanes;
    /// Blocks of sixteen output channels that a register tile covers at most.
    const TILE_BLOCKS: usize;
    /// Pixels that a register tile covers at most: blocks × pixels sums, the weights of the
    /// blocks and one pixel fit the registers.
    const TILE_PIXELS: usize;

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    unsafe fn run<K: Kernel<Self::Lanes>>(kernel: K);
}
