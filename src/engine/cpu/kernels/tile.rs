//! The register tile: up to `TILE_BLOCKS` blocks of output channels × `TILE_PIXELS` pixels.
//!
//! The sums of a tile stay in registers over all taps and input channels. Each loaded weight serves
//! all pixels, and each broadcast pixel serves all blocks. So the processor does 28 multiply-adds
//! for 16 loads and never waits for memory. Pixels lie at fixed distances, so their addresses are
//! part of the instructions. Borders are in memory, so no tap needs a test. Bias, residual and
//! epilogue are applied before the only store.
//!
//! The sum of an output runs over blocks, taps and channels in memory order, whatever the shape of
//! the tile. So the results of an item do not depend on how an image is divided into tiles.

#![expect(
    clippy::needless_range_loop,
    reason = "three nested indices say which register; iterators over three levels hide it"
)]

use std::marker::PhantomData;

use super::Epilogue;
use crate::cpu::lanes::{Format, Isa, LANES, Lanes};

/// The input elements that a tile reads. Distances are in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Taps {
    /// Blocks of input channels, and the distance from one block to the next.
    pub(in crate::cpu) blocks: usize,
    pub(in crate::cpu) block_stride: usize,
    /// Rows and columns of the kernel.
    pub(in crate::cpu) rows: usize,
    pub(in crate::cpu) columns: usize,
    /// Distances from one row of the image to the next, and from one pixel to the next.
    pub(in crate::cpu) row_stride: usize,
    pub(in crate::cpu) pixel_stride: usize,
    /// Dots per tap in each block, and in the last block, which may be partly filled.
    pub(in crate::cpu) dots: usize,
    pub(in crate::cpu) dots_last: usize,
}

/// Tiles next to each other. `input` points to the first tap of the first pixel; all taps of all
/// pixels lie in one buffer. `weights` hold the packed group. `output` and `residual` point to the
/// first pixel, and whole blocks of sixteen channels follow.
pub(in crate::cpu) struct TileArgs<'a> {
    pub(in crate::cpu) taps: &'a Taps,
    /// Number of tiles. Each starts where the one before ends.
    pub(in crate::cpu) count: usize,
    /// Distance in the input from one row of outputs to the next.
    pub(in crate::cpu) input_row_stride: usize,
    pub(in crate::cpu) input: *const u8,
    pub(in crate::cpu) weights: *const u8,
    /// Distance in bytes from the weights that are read to the weights that are prefetched. These
    /// are the weights of the next group, if all weights are too many to stay in the cache. 0
    /// prefetches nothing.
    pub(in crate::cpu) prefetch_bytes: usize,
    /// With `None` the sums start at zero.
    pub(in crate::cpu) bias: Option<*const f32>,
    pub(in crate::cpu) residual: Option<StridedPtr<*const u8>>,
    pub(in crate::cpu) epilogue: Epilogue,
    pub(in crate::cpu) output: StridedPtr<*mut u8>,
}

/// A pointer to a pixel of a blocked image, with the elements from one block to the next and from
/// one row to the next.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct StridedPtr<P> {
    pub(in crate::cpu) first: P,
    pub(in crate::cpu) block_stride: usize,
    pub(in crate::cpu) row_stride: usize,
}

pub(in crate::cpu) type TileFn = unsafe fn(&TileArgs<'_>);

/// A tile of `BLOCKS` blocks × `ROWS` rows × `WIDTH` pixels, whose inputs are `STEP` elements
/// apart. Dots are in format `I`, the residual in `R`, the result in `O`.
struct Tile<I, R, O, const BLOCKS: usize, const ROWS: usize, const WIDTH: usize, const STEP: usize>(
    PhantomData<(I, R, O)>,
);

/// Runs a tile compiled for the instruction set `A`.
///
/// # Safety
/// As for [`TileArgs`].
unsafe fn run_tile<
    A: Isa,
    I: Format<A::Lanes>,
    R: Format<A::Lanes>,
    O: Format<A::Lanes>,
    const BLOCKS: usize,
    const ROWS: usize,
    const WIDTH: usize,
    const STEP: usize,
>(
    args: &TileArgs<'_>,
) {
    struct Entry<'a, 'b, K>(&'a TileArgs<'b>, PhantomData<K>);
    impl<L: Lanes, K: TileKernel<L>> crate::cpu::lanes::KernelCall<L> for Entry<'_, '_, K> {
        #[inline(always)]
        unsafe fn run(self) {
            // SAFETY: guaranteed by the caller.
            unsafe { K::run(self.0) }
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { A::run(Entry::<Tile<I, R, O, BLOCKS, ROWS, WIDTH, STEP>>(args, PhantomData)) }
}

trait TileKernel<L: Lanes> {
    /// # Safety
    /// As for [`TileArgs`].
    unsafe fn run(args: &TileArgs<'_>);
}

impl<
    L: Lanes,
    I: Format<L>,
    R: Format<L>,
    O: Format<L>,
    const BLOCKS: usize,
    const ROWS: usize,
    const WIDTH: usize,
    const STEP: usize,
> TileKernel<L> for Tile<I, R, O, BLOCKS, ROWS, WIDTH, STEP>
{
    #[inline(always)]
    unsafe fn run(args: &TileArgs<'_>) {
        for tile in 0..args.count {
            // SAFETY: every address is a tap of a pixel of the tiles, a weight of the group, or a
            // pixel of the output or the residual. All lie inside their buffers, as `TileArgs`
            // says.
            unsafe {
                let mut sums = [[[L::splat(0.0); WIDTH]; ROWS]; BLOCKS];
                if let Some(bias) = args.bias {
                    for (block, sums) in sums.iter_mut().enumerate() {
                        *sums = [[L::load(bias.add(block * LANES)); WIDTH]; ROWS];
                    }
                }
                let input = args.input.cast::<I::Element>().add(tile * WIDTH * STEP);
                accumulate::<L, I, BLOCKS, ROWS, WIDTH, STEP>(args, input, &mut sums);
                let at = [0, tile * WIDTH];
                store_sums::<L, R, O, BLOCKS, ROWS, WIDTH>(
                    args.residual,
                    args.epilogue,
                    args.output,
                    at,
                    &mut sums,
                );
            }
        }
    }
}

/// Adds all taps of a tile whose first tap is at `input`.
///
/// # Safety
/// As for [`TileArgs`].
#[inline(always)]
unsafe fn accumulate<
    L: Lanes,
    I: Format<L>,
    const BLOCKS: usize,
    const ROWS: usize,
    const WIDTH: usize,
    const STEP: usize,
>(
    args: &TileArgs<'_>,
    input: *const I::Element,
    sums: &mut [[[L; WIDTH]; ROWS]; BLOCKS],
) {
    let taps = *args.taps;
    let mut weights = args.weights.cast::<I::Element>();
    let mut from_block = input;
    for block in 0..taps.blocks {
        let dots = if block + 1 < taps.blocks { taps.dots } else { taps.dots_last };
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut from_row = from_block;
            for _ in 0..taps.rows {
                let mut from_pixel = from_row;
                for _ in 0..taps.columns {
                    let mut from = from_pixel;
                    for _ in 0..dots {
                        let mut of_block = [I::load_weights(weights); BLOCKS];
                        for (block, w) in of_block.iter_mut().enumerate().skip(1) {
                            *w = I::load_weights(weights.add(block * LANES * I::DEPTH));
                        }
                        for block in 0..BLOCKS {
                            let line = weights.wrapping_add(block * LANES * I::DEPTH);
                            L::prefetch(line.wrapping_byte_add(args.prefetch_bytes).cast());
                        }
                        weights = weights.add(BLOCKS * LANES * I::DEPTH);
                        for y in 0..ROWS {
                            let row = from.add(y * args.input_row_stride);
                            for x in 0..WIDTH {
                                let pixel = I::load_pixel(row.add(x * STEP));
                                for block in 0..BLOCKS {
                                    sums[block][y][x] =
                                        I::dot(sums[block][y][x], of_block[block], pixel);
                                }
                            }
                        }
                        from = from.add(I::DEPTH);
                    }
                    from_pixel = from_pixel.add(taps.pixel_stride);
                }
                from_row = from_row.add(taps.row_stride);
            }
            from_block = from_block.add(taps.block_stride);
        }
    }
}

/// Adds the residual, applies the epilogue and stores the sums. The first pixel of the tile lies
/// `y` rows and `x` pixels after the first pixel of `residual` and `output`.
///
/// # Safety
/// The pixels lie in these images, whose formats are `R` and `O`. The conditions of
/// [`Epilogue::apply`] hold.
#[inline(always)]
pub(super) unsafe fn store_sums<
    L: Lanes,
    R: Format<L>,
    O: Format<L>,
    const BLOCKS: usize,
    const ROWS: usize,
    const WIDTH: usize,
>(
    residual: Option<StridedPtr<*const u8>>,
    epilogue: Epilogue,
    output: StridedPtr<*mut u8>,
    [y, x]: [usize; 2],
    sums: &mut [[[L; WIDTH]; ROWS]; BLOCKS],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if let Some(residual) = residual {
            let first =
                residual.first.cast::<R::Element>().add(y * residual.row_stride + x * LANES);
            for block in 0..BLOCKS {
                for y in 0..ROWS {
                    let row = first.add(block * residual.block_stride + y * residual.row_stride);
                    for x in 0..WIDTH {
                        sums[block][y][x] = sums[block][y][x].add(R::load(row.add(x * LANES)));
                    }
                }
            }
        }
        epilogue.apply(sums);
        let first = output.first.cast::<O::Element>().add(y * output.row_stride + x * LANES);
        for block in 0..BLOCKS {
            for y in 0..ROWS {
                let row = first.add(block * output.block_stride + y * output.row_stride);
                for x in 0..WIDTH {
                    O::store(sums[block][y][x], row.add(x * LANES));
                }
            }
        }
    }
}

/// Tiles of one row of 1 to 14 pixels.
type OneRowTiles = [TileFn; 14];

/// Tiles of two rows of 1 to 7 pixels, and of four rows of 1 to 3 pixels.
type MultiRowTiles = [TileFn; 10];

/// Tiles that read blocked images of one format, by stride and number of blocks.
pub(in crate::cpu) struct TileTable {
    one_row: [[OneRowTiles; 2]; 2],
    multi_row: [[MultiRowTiles; 2]; 2],
}

/// Tiles of one row that read planar images, by stride and number of blocks.
pub(in crate::cpu) struct PlanarTable([[OneRowTiles; 2]; 2]);

/// Tiles of one row that read adjacent vectors, by number of blocks.
pub(in crate::cpu) struct VectorTable([OneRowTiles; 2]);

/// Stands for shapes that do not fit the registers of the set.
///
/// # Safety
/// Always safe to call: it panics.
unsafe fn too_large(_: &TileArgs<'_>) {
    unreachable!("the plan cuts tiles that fit the registers")
}

macro_rules! tiles {
    ($blocks:literal, $step:literal; $(($rows:literal, $width:literal)),*) => {
        [$(if $blocks <= A::TILE_BLOCKS && $rows * $width <= A::TILE_PIXELS {
            run_tile::<A, I, R, O, $blocks, $rows, $width, $step> as TileFn
        } else {
            too_large as TileFn
        }),*]
    };
}

macro_rules! one_row {
    ($blocks:literal, $step:literal) => {
        tiles!($blocks, $step;
            (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7),
            (1, 8), (1, 9), (1, 10), (1, 11), (1, 12), (1, 13), (1, 14))
    };
}

macro_rules! multi_row {
    ($blocks:literal, $step:literal) => {
        tiles!($blocks, $step;
            (2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6), (2, 7), (4, 1), (4, 2), (4, 3))
    };
}

impl TileTable {
    pub(super) const fn new<A: Isa, I, R, O>() -> Self
    where
        I: Format<A::Lanes>,
        R: Format<A::Lanes>,
        O: Format<A::Lanes>,
    {
        Self {
            one_row: [[one_row!(1, 16), one_row!(2, 16)], [one_row!(1, 32), one_row!(2, 32)]],
            multi_row: [
                [multi_row!(1, 16), multi_row!(2, 16)],
                [multi_row!(1, 32), multi_row!(2, 32)],
            ],
        }
    }

    /// Returns the tile of `blocks` × `rows` × `width` that reads with `stride` 1 or 2.
    #[inline]
    pub(in crate::cpu) fn get(&self, stride: usize, [blocks, rows, width]: [usize; 3]) -> TileFn {
        match rows {
            1 => self.one_row[stride - 1][blocks - 1][width - 1],
            2 => self.multi_row[stride - 1][blocks - 1][width - 1],
            _ => self.multi_row[stride - 1][blocks - 1][7 + width - 1],
        }
    }
}

impl PlanarTable {
    pub(super) const fn new<A: Isa, I, R, O>() -> Self
    where
        I: Format<A::Lanes>,
        R: Format<A::Lanes>,
        O: Format<A::Lanes>,
    {
        Self([[one_row!(1, 1), one_row!(2, 1)], [one_row!(1, 2), one_row!(2, 2)]])
    }

    /// Returns the tile of `blocks` × `width` that reads with `stride` 1 or 2.
    #[inline]
    pub(in crate::cpu) fn get(&self, stride: usize, [blocks, width]: [usize; 2]) -> TileFn {
        self.0[stride - 1][blocks - 1][width - 1]
    }
}

impl VectorTable {
    pub(super) const fn new<A: Isa, I, R, O>() -> Self
    where
        I: Format<A::Lanes>,
        R: Format<A::Lanes>,
        O: Format<A::Lanes>,
    {
        Self([one_row!(1, 16), one_row!(2, 16)])
    }

    /// Returns the tile of `blocks` × `width`.
    #[inline]
    pub(in crate::cpu) fn get(&self, [blocks, width]: [usize; 2]) -> TileFn {
        self.0[blocks - 1][width - 1]
    }
}
