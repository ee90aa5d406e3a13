//! The kernels. Each kernel is written once over [`Lanes`] and [`Format`] and compiled for every
//! set.
//!
//! | file | content |
//! |---|---|
//! | `tile` | dense convolution and matrix products: output channels × pixels in registers |
//! | `tiling` | how an image is divided into tiles |
//! | `strip`, `amx` | dense convolution with AMX: many pixels in one line, matrices in tiles |
//! | `depthwise` | one small kernel per channel |
//! | `winograd` | the transforms around the products of a 3×3 convolution |
//! | `pool` | pooling windows and global means |
//! | `elementwise` | operations on each element alone |
//!
//! Pointers are byte pointers because a [`KernelSet`] hides its format. Each argument struct says
//! which memory its pointers cover. When a convolution is lowered, an assertion checks that every
//! window lies in its bordered image. Debug builds also assert where each tile begins, and tests
//! run on poisoned, guarded memory.

#[cfg(target_arch = "x86_64")]
mod amx;
pub(super) mod depthwise;
pub(super) mod elementwise;
pub(super) mod pool;
pub(super) mod strip;
pub(super) mod tile;
pub(super) mod tiling;
pub(super) mod winograd;

#[cfg(target_arch = "x86_64")]
use self::amx::AmxStrip;
use self::depthwise::DepthwiseTable;
use self::elementwise::{ActivationArgs, ActivationKernel, ElementwiseArgs, ElementwiseKernel};
use self::pool::{GlobalMeanArgs, GlobalMeanKernel, PoolArgs, PoolKernel};
#[cfg(target_arch = "x86_64")]
use self::strip::StripFns;
use self::strip::StripTable;
use self::tile::{PlanarTable, TileTable, VectorTable};
use self::winograd::{ForwardArgs, ForwardTransform, InverseArgs, InverseTransform};
#[cfg(target_arch = "x86_64")]
use super::lanes::bf16::Avx512Bf16;
use super::lanes::bf16::Bf16;
#[cfg(target_arch = "aarch64")]
use super::lanes::neon::Neon;
use super::lanes::{F32, Format, Isa, Lanes, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::lanes::{
    avx2::Avx2,
    avx512::{Avx512, Zmm},
};

/// The function applied to a sum before it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Epilogue {
    Identity,
    /// Multiplies negative sums by the slope of their channel. The pointer holds sixteen slopes per
    /// block.
    PRelu(*const f32),
    Clip {
        min: f32,
        max: f32,
    },
}

impl Epilogue {
    /// Applies the epilogue to one sum of the first block.
    ///
    /// # Safety
    /// As for [`Self::apply`].
    #[inline(always)]
    unsafe fn apply_to_one<L: Lanes>(self, sum: L) -> L {
        let mut sums = [[[sum]]];
        // SAFETY: guaranteed by the caller.
        unsafe { self.apply(&mut sums) };
        let [[[sum]]] = sums;
        sum
    }

    /// Applies the epilogue to sums, `[block of channels][row][pixel]`.
    ///
    /// The choice is outside of the loops. Inside, it makes them too large for the compiler to
    /// unroll early, and sums that are indexed by a variable leave the registers.
    ///
    /// # Safety
    /// Slopes point to sixteen numbers for each block; the processor has the instructions of `L`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "as in `tile`")]
    unsafe fn apply<L: Lanes, const BLOCKS: usize, const ROWS: usize, const WIDTH: usize>(
        self,
        sums: &mut [[[L; WIDTH]; ROWS]; BLOCKS],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Self::Identity => {}
                Self::PRelu(slopes) => {
                    for block in 0..BLOCKS {
                        let slope = L::load(slopes.add(block * super::lanes::LANES));
                        for y in 0..ROWS {
                            for x in 0..WIDTH {
                                sums[block][y][x] = sums[block][y][x].prelu(slope);
                            }
                        }
                    }
                }
                Self::Clip { min, max } => {
                    let [min, max] = [L::splat(min), L::splat(max)];
                    for block in 0..BLOCKS {
                        for y in 0..ROWS {
                            for x in 0..WIDTH {
                                sums[block][y][x] = sums[block][y][x].max(min).min(max);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The kernels of one instruction set for networks of one format.
pub(super) struct KernelSet {
    pub(super) name: &'static str,
    /// Bytes of one stored element.
    pub(super) element_bytes: usize,
    /// Input channels that one [`Format::dot`] multiplies. Weights are packed accordingly.
    pub(super) depth: usize,
    /// Most blocks of output channels of a register tile.
    pub(super) tile_blocks: usize,
    /// Most pixels of a register tile.
    pub(super) tile_pixels: usize,
    /// Fewest pixels for which Winograd's algorithm is used. Its matrices are `f32` and have four
    /// times the numbers of the kernel. In smaller images, reading them takes longer than the
    /// multiplications they save.
    pub(super) winograd_pixels_min: usize,
    /// Kernels that dense convolutions use instead of tiles, if the set has them.
    pub(super) strips: Option<StripTable>,
    /// Input and output in the set's format.
    pub(super) tiles: TileTable,
    /// Input in the set's format, output in `f32`.
    pub(super) tiles_to_f32: TileTable,
    /// Input in `f32`, output in the set's format.
    pub(super) planar: PlanarTable,
    /// Input and output in `f32`.
    pub(super) winograd_products: VectorTable,
    pub(super) depthwise: DepthwiseTable,
    pub(super) depthwise_to_f32: DepthwiseTable,
    pub(super) winograd_forward: unsafe fn(&ForwardArgs),
    pub(super) winograd_inverse: unsafe fn(&InverseArgs),
    pub(super) winograd_inverse_to_f32: unsafe fn(&InverseArgs),
    pub(super) elementwise: unsafe fn(&ElementwiseArgs),
    pub(super) activation: unsafe fn(&ActivationArgs),
    /// The activation on `f32`, whatever the set's format.
    pub(super) activation_f32: unsafe fn(&ActivationArgs),
    pub(super) pool: unsafe fn(&PoolArgs),
    pub(super) global_mean: unsafe fn(&GlobalMeanArgs),
}

impl KernelSet {
    const fn new<A: Isa, F: Format<A::Lanes> + 'static>(name: &'static str) -> Self {
        Self {
            name,
            element_bytes: size_of::<F::Element>(),
            depth: F::DEPTH,
            tile_blocks: A::TILE_BLOCKS,
            tile_pixels: A::TILE_PIXELS,
            winograd_pixels_min: if F::DEPTH == 1 { 40 } else { 400 },
            strips: None,
            tiles: TileTable::new::<A, F, F, F>(),
            tiles_to_f32: TileTable::new::<A, F, F, F32>(),
            planar: PlanarTable::new::<A, F32, F, F>(),
            winograd_products: VectorTable::new::<A, F32, F32, F32>(),
            depthwise: DepthwiseTable::new::<A, F, F>(),
            depthwise_to_f32: DepthwiseTable::new::<A, F, F32>(),
            winograd_forward: run::<A, ForwardTransform<F>>,
            winograd_inverse: run::<A, InverseTransform<F, F>>,
            winograd_inverse_to_f32: run::<A, InverseTransform<F, F32>>,
            elementwise: run::<A, ElementwiseKernel<F>>,
            activation: run::<A, ActivationKernel<F>>,
            activation_f32: run::<A, ActivationKernel<F32>>,
            pool: run::<A, PoolKernel<F>>,
            global_mean: run::<A, GlobalMeanKernel<F>>,
        }
    }
}

/// A kernel: a function of its arguments.
pub(super) trait Kernel<L: Lanes> {
    type Args;

    /// # Safety
    /// The pointers cover what `args` says; the processor has the instructions of `L`.
    unsafe fn run(args: &Self::Args);
}

struct Call<'a, K: Kernel<L>, L: Lanes>(&'a K::Args);

impl<L: Lanes, K: Kernel<L>> super::lanes::KernelCall<L> for Call<'_, K, L> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: guaranteed by the caller.
        unsafe { K::run(self.0) }
    }
}

/// Runs a kernel compiled for an instruction set.
///
/// # Safety
/// As for [`Kernel::run`].
unsafe fn run<A: Isa, K: Kernel<A::Lanes>>(args: &K::Args) {
    // SAFETY: guaranteed by the caller.
    unsafe { A::run(Call::<K, A::Lanes>(args)) }
}

pub(super) static PORTABLE_F32: KernelSet = KernelSet::new::<Portable, F32>("portable");
pub(super) static PORTABLE_BF16: KernelSet = KernelSet::new::<Portable, Bf16>("portable");
#[cfg(target_arch = "aarch64")]
pub(super) static NEON_F32: KernelSet = KernelSet::new::<Neon, F32>("neon");
#[cfg(target_arch = "x86_64")]
pub(super) static AVX2_F32: KernelSet = KernelSet::new::<Avx2, F32>("avx2");
#[cfg(target_arch = "x86_64")]
pub(super) static AVX512_F32: KernelSet = KernelSet::new::<Avx512, F32>("avx512");
#[cfg(target_arch = "x86_64")]
pub(super) static AVX512_BF16: KernelSet = KernelSet::new::<Avx512Bf16, Bf16>("avx512-bf16");

/// With AMX, a direct convolution multiplies about ten times as fast as the register tiles that
/// compute Winograd's products. That is more than Winograd's algorithm saves.
#[cfg(target_arch = "x86_64")]
pub(super) static AMX_BF16: KernelSet = KernelSet {
    winograd_pixels_min: usize::MAX,
    strips: Some(StripTable { strips: amx_strips::<Bf16>(), strips_to_f32: amx_strips::<F32>() }),
    ..KernelSet::new::<Avx512Bf16, Bf16>("amx-bf16")
};

/// Strips of bfloat16 with results in format `O`.
#[cfg(target_arch = "x86_64")]
const fn amx_strips<O: Format<Zmm> + 'static>() -> StripFns {
    [run::<Avx512Bf16, AmxStrip<Bf16, O, 1>>, run::<Avx512Bf16, AmxStrip<Bf16, O, 2>>]
}
