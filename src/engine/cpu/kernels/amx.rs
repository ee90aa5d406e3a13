//! AMX multiplies a matrix of 16 pixels × 32 numbers by one of 32 numbers × 16 channels in one
//! instruction.
//!
//! The sums are four tiles: two pieces of a [`Strip`](super::strip) × two blocks of output
//! channels. They start with the bias; a load with stride 0 puts the bias into every row. They stay
//! in the tiles over all taps and input channels, as in [`super::tile`].
//!
//! # Two taps are adjacent in memory
//!
//! A row of the left matrix is 64 contiguous bytes, so 32 channels of a pixel would have to be
//! adjacent. Only sixteen channels of a pixel are adjacent, and the same sixteen channels of the
//! next pixel follow them. The next pixel is the next tap of the kernel, so 64 bytes are two taps
//! of one block. The weights of two taps are adjacent too: sixteen rows, in which the two blocks of
//! a group alternate. So images and weights keep the layout of all other kernels, and two of the
//! three taps of a row are multiplied at once. The last tap of a row of odd length, and a pointwise
//! kernel, are products of half the depth.
//!
//! # Estimated bounds, not measured
//!
//! A product of full depth takes 16 cycles. A tile takes 8 cycles to load: two rows a cycle, from
//! the first-level cache and without rows that cross cache lines. The four products of a step go
//! around the four sums, so each product shares a tile with the one before. That makes 5 loads for
//! 4 products: 40 cycles of loads beside 64 cycles of products. At half depth, the loads take 28
//! cycles, because the right matrix has 8 rows. Products of half depth take 32 cycles if the time
//! of the unit depends on the depth, but 64 cycles if it depends on the pixels; the manuals say
//! neither. In the worse case a 3×3 kernel reaches 75 % of the peak, and a pointwise kernel 50 %.
//!
//! With `c` input channels, 32 pixels × 32 channels keep the unit busy for at least `18 c` cycles
//! in a 3×3 kernel, and for `2 c` cycles in a pointwise kernel. Then 64 registers of sums are
//! finished with about 8 instructions each, which takes about 130 cycles. So 3×3 kernels are bound
//! by the products from 16 channels on, and pointwise kernels from 64 channels on. In small batches
//! of large networks, the memory that holds the weights is the bound.
//!
//! Fully connected layers stay with `work/fully_connected`. An item uses every weight once, so
//! these layers wait for memory whatever unit multiplies.
//!
//! # Tiles are thread state
//!
//! While tiles are configured, every switch to another thread saves 8 KiB more. So each run
//! releases the tiles when it ends. The compiler knows no tiles and uses none, so tiles keep their
//! content from one block of assembly to the next.

use std::arch::asm;
use std::marker::PhantomData;

use super::Kernel;
use super::strip::{PIECE_HEIGHT_MAX, Piece, StripArgs};
use super::tile::store_sums;
use crate::cpu::lanes::avx512::Zmm;
use crate::cpu::lanes::{Format, LANES, Lanes};

/// Bytes of a row of a tile: sixteen `f32`, or 32 bfloat16.
const ROW_BYTES: usize = 64;

/// Rows of weights of one tap: the sixteen channels of a block, in pairs.
const TAP_ROWS: usize = LANES / 2;

/// Bytes of one block of a pixel.
const PIXEL_BYTES: usize = LANES * size_of::<u16>();

/// Rows and row lengths of the tiles, in the layout that `LDTILECFG` reads. Entries 8 to 15 are for
/// tiles that no processor has.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles in use. Tiles 0 to 3 are sums, tiles 4 and 5 hold pixels and weights of two taps,
/// tiles 6 and 7 those of one tap.
struct Tiles;

impl Tiles {
    /// Configures this thread's tiles for pieces of `height` positions.
    ///
    /// # Safety
    /// The processor has AMX and the process may use it.
    unsafe fn configured(height: usize) -> Self {
        debug_assert!((1..=PIECE_HEIGHT_MAX).contains(&height));
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].copy_from_slice(&[64, 64, 64, 64, 64, 64, 32, 64]);
        rows[..8].fill(height as u8);
        (rows[5], rows[7]) = (2 * TAP_ROWS as u8, TAP_ROWS as u8);
        let config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
        // SAFETY: the instruction reads the 64 bytes of the configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config,
                options(nostack, readonly, preserves_flags));
        }
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, so the processor has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// Loads a tile whose rows are `stride` bytes apart.
macro_rules! load {
    ($tile:literal, $from:expr, $stride:expr) => {
        asm!(concat!("tileloadd tmm", $tile, ", [{from} + {stride} * 1]"),
            from = in(reg) $from, stride = in(reg) $stride,
            options(nostack, readonly, preserves_flags))
    };
}

/// Stores the rows of a tile one after another.
macro_rules! store {
    ($tile:literal, $to:expr) => {
        asm!(concat!("tilestored [{to} + {stride} * 1], tmm", $tile),
            to = in(reg) $to, stride = in(reg) ROW_BYTES, options(nostack, preserves_flags))
    };
}

/// `sum += pixels × weights`.
macro_rules! multiply {
    ($sum:literal, $pixels:literal, $weights:literal) => {
        asm!(
            concat!("tdpbf16ps tmm", $sum, ", tmm", $pixels, ", tmm", $weights),
            options(nostack, nomem, preserves_flags)
        )
    };
}

/// Multiplies one or two taps of all pieces and blocks. The products go around the four sums, so
/// each product loads only one new tile.
macro_rules! step {
    ($pixels:literal, $weights:literal, $reads:expr) => {{
        let Reads { from, step, second, weights, weight_row } = $reads;
        load!($pixels, from, step);
        load!($weights, weights, weight_row);
        multiply!("0", $pixels, $weights);
        if BLOCKS == 2 {
            load!($weights, weights.add(ROW_BYTES), weight_row);
            multiply!("1", $pixels, $weights);
        }
        if PIECES == 2 {
            load!($pixels, from.offset(second), step);
            if BLOCKS == 2 {
                multiply!("3", $pixels, $weights);
                load!($weights, weights, weight_row);
            }
            multiply!("2", $pixels, $weights);
        }
    }};
}

/// The memory that a step reads. Distances are in bytes.
#[derive(Clone, Copy)]
struct Reads {
    /// A tap of the first position of the first piece.
    from: *const u8,
    /// Distance from one position to the next.
    step: usize,
    /// Distance from the first piece to the second.
    second: isize,
    weights: *const u8,
    /// Distance from one pair of input channels to the next. The blocks of the group lie between
    /// them.
    weight_row: usize,
}

/// The stored sums, `[piece][block][position][channel]`.
#[repr(align(64))]
struct Sums([[[[f32; LANES]; PIECE_HEIGHT_MAX]; 2]; 2]);

/// Computes the sums of `PIECES` pieces × `BLOCKS` blocks.
///
/// # Safety
/// As for [`StripArgs`]. The tiles are configured for its strip, and `reads` starts at the first
/// tap.
#[inline(always)]
unsafe fn sum_pieces<const PIECES: usize, const BLOCKS: usize>(
    args: &StripArgs,
    mut reads: Reads,
    sums: &mut Sums,
) {
    let taps = &args.taps;
    let block_bytes = taps.block_stride * size_of::<u16>();
    let row_bytes = taps.row_stride * size_of::<u16>();
    let first = reads.from;
    // SAFETY: each load reads whole taps of positions of the strip, which lie in the input, or rows
    // of taps of the packed group. A store fills at most the sixteen rows of its sums.
    unsafe {
        load!("0", args.bias, 0_usize);
        if PIECES == 2 {
            load!("2", args.bias, 0_usize);
        }
        if BLOCKS == 2 {
            load!("1", args.bias.add(LANES), 0_usize);
            if PIECES == 2 {
                load!("3", args.bias.add(LANES), 0_usize);
            }
        }
        for block in 0..taps.blocks {
            for row in 0..taps.rows {
                reads.from = first.add(block * block_bytes + row * row_bytes);
                for _ in 0..taps.columns / 2 {
                    step!("4", "5", reads);
                    reads.from = reads.from.add(2 * PIXEL_BYTES);
                    reads.weights = reads.weights.add(2 * TAP_ROWS * reads.weight_row);
                }
                if taps.columns % 2 == 1 {
                    step!("6", "7", reads);
                    reads.weights = reads.weights.add(TAP_ROWS * reads.weight_row);
                }
            }
        }
        let [[first, beside], [second, beside_second]] = &mut sums.0;
        store!("0", first);
        if BLOCKS == 2 {
            store!("1", beside);
        }
        if PIECES == 2 {
            store!("2", second);
            if BLOCKS == 2 {
                store!("3", beside_second);
            }
        }
    }
}

/// A strip kernel for groups of `BLOCKS` blocks, with the residual in format `R` and the result in
/// `O`.
pub(super) struct AmxStrip<R, O, const BLOCKS: usize>(PhantomData<(R, O)>);

impl<R: Format<Zmm>, O: Format<Zmm>, const BLOCKS: usize> Kernel<Zmm> for AmxStrip<R, O, BLOCKS> {
    type Args = StripArgs;

    #[inline(always)]
    unsafe fn run(args: &StripArgs) {
        let strip = &args.strip;
        let mut sums = Sums([[[[0.0; LANES]; PIECE_HEIGHT_MAX]; 2]; 2]);
        // SAFETY: guaranteed by the caller; the tiles fit the strip's pieces.
        unsafe {
            let _tiles = Tiles::configured(strip.piece_height());
            let mut pieces = strip.pieces();
            while let Some(first) = pieces.next() {
                let second = pieces.next();
                let apart = second.as_ref().map_or(0, |second| {
                    (second.input as isize - first.input as isize) * size_of::<u16>() as isize
                });
                let reads = Reads {
                    from: args.input.add(first.input * size_of::<u16>()),
                    step: strip.step() * size_of::<u16>(),
                    second: apart,
                    weights: args.weights,
                    weight_row: BLOCKS * ROW_BYTES,
                };
                match &second {
                    Some(_) => sum_pieces::<2, BLOCKS>(args, reads, &mut sums),
                    None => sum_pieces::<1, BLOCKS>(args, reads, &mut sums),
                }
                for (piece, sums) in [Some(&first), second.as_ref()].into_iter().zip(&sums.0) {
                    if let Some(piece) = piece {
                        store_piece::<R, O, BLOCKS>(args, piece, sums);
                    }
                }
            }
        }
    }
}

/// Adds the residual, applies the epilogue and stores the pixels of a piece.
///
/// # Safety
/// As for [`StripArgs`]; `sums` are those of the piece.
#[inline(always)]
unsafe fn store_piece<R: Format<Zmm>, O: Format<Zmm>, const BLOCKS: usize>(
    args: &StripArgs,
    piece: &Piece,
    sums: &[[[f32; LANES]; PIECE_HEIGHT_MAX]; 2],
) {
    for span in args.strip.spans(piece) {
        let [y, x] = span.at;
        for (beside, position) in span.positions.enumerate() {
            // SAFETY: the pixel lies in the strip's rows, and a block of sums is sixteen numbers.
            unsafe {
                let mut of_pixel = [[[Zmm::splat(0.0)]]; BLOCKS];
                for (of_pixel, sums) in of_pixel.iter_mut().zip(sums) {
                    *of_pixel = [[Zmm::load(sums[position].as_ptr())]];
                }
                let at = [y, x + beside];
                let (residual, output) = (args.residual, args.output);
                store_sums::<_, R, O, BLOCKS, 1, 1>(
                    residual,
                    args.epilogue,
                    output,
                    at,
                    &mut of_pixel,
                );
            }
        }
    }
}
