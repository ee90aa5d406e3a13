//! Sixteen numbers at a time, in the registers of any supported processor.
//!
//! Every kernel is written once, over [`Lanes`] (sixteen `f32` in registers) and [`Format`] (the
//! layout of activations and weights in memory). An [`Isa`] is one instruction set; it names its
//! [`Lanes`] and compiles kernels with its instructions.

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

/// Sixteen `f32` in registers.
///
/// Making a value is unsafe, because the processor may lack the instructions. A value exists only
/// on a processor that has them, so arithmetic on values is safe.
pub(super) trait Lanes: Copy {
    /// Returns sixteen times `x`.
    ///
    /// # Safety
    /// The processor has the instructions of this type.
    unsafe fn splat(x: f32) -> Self;

    /// Loads sixteen numbers.
    ///
    /// # Safety
    /// As for [`Lanes::splat`]; `from` points to sixteen numbers. It needs no alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// Stores sixteen numbers.
    ///
    /// # Safety
    /// `to` points to memory for sixteen numbers.
    unsafe fn store(self, to: *mut f32);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;

    /// Computes `self × factor + addend`, with one rounding if the instruction set has such an
    /// instruction.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Prefetches the cache line at `from` into the second-level cache. Any address is allowed.
    /// Sets without such an instruction do nothing.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}

    /// Multiplies lanes below zero by their slope. This is PReLU, and with slope 0 it is ReLU.
    fn prelu(self, slope: Self) -> Self;
}

/// The layout of a network's numbers in memory.
pub(super) trait Format<L: Lanes> {
    /// One stored number.
    type Element: Copy;
    /// One factor of [`Format::dot`]: the weights of [`Format::DEPTH`] input channels for sixteen
    /// output channels.
    type Weights: Copy;
    /// The other factor: the same input channels of one pixel, for all output channels.
    type Pixel: Copy;
    /// Input channels that one `dot` multiplies.
    const DEPTH: usize;

    /// # Safety
    /// As for [`Lanes::load`], with sixteen elements.
    unsafe fn load(from: *const Self::Element) -> L;

    /// # Safety
    /// As for [`Lanes::store`], with sixteen elements.
    unsafe fn store(lanes: L, to: *mut Self::Element);

    /// # Safety
    /// As for [`Lanes::load`], with `16 × DEPTH` elements.
    unsafe fn load_weights(from: *const Self::Element) -> Self::Weights;

    /// # Safety
    /// As for [`Lanes::load`], with `DEPTH` elements.
    unsafe fn load_pixel(from: *const Self::Element) -> Self::Pixel;

    /// Computes `sum + weights × pixel`, summed over the depth.
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
        // SAFETY: guaranteed by the caller.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn store(lanes: L, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { lanes.store(to) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const f32) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn load_pixel(from: *const f32) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::splat(*from) }
    }

    #[inline(always)]
    fn dot(sum: L, weights: L, pixel: L) -> L {
        weights.mul_add(pixel, sum)
    }
}

/// A call of a kernel that is compiled for one instruction set.
pub(super) trait KernelCall<L: Lanes> {
    /// # Safety
    /// The pointers are as the kernel requires; the processor has the instructions of `L`.
    unsafe fn run(self);
}

/// An instruction set.
pub(super) trait Isa: 'static {
    type Lanes: Lanes;
    /// Most blocks of sixteen output channels in a register tile.
    const TILE_BLOCKS: usize;
    /// Most pixels in a register tile. The registers hold blocks × pixels sums, the weights of the
    /// blocks, and one pixel.
    const TILE_PIXELS: usize;

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// As for [`KernelCall::run`].
    unsafe fn run<C: KernelCall<Self::Lanes>>(call: C);
}
