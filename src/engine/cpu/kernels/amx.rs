//! AMX: a matrix of 16 pixels × 32 numbers times one of 32 numbers × 16 channels in one
//! instruction.
//!
//! Sums are four tiles: two pieces of a [`Strip`](super::strip) × two blocks of output channels.
//! They begin with the bias, which a load with stride 0 puts into every row, and stay in the tiles
//! over all taps and input channels, as in [`super::tile`].
//!
//! # Two taps lie beside each other
//!
//! A row of the left matrix is 64 bytes in one place, so 32 channels of a pixel would have to lie
//! together. They lie together by sixteen, but so do the sixteen channels of the next pixel, which
//! is the next tap of the kernel: 64 bytes are two taps of one block. The weights of two taps are
//! beside each other too, sixteen rows with the two blocks of a group in turn. So images and
//! weights stay as they are for every other kernel, and two of three taps of a row are taken at
//! once. The last tap of an odd row, and a pointwise kernel, are products of half the depth.
//!
//! # What bounds it, on paper
//!
//! A product of full depth takes 16 cycles and a tile 8 cycles to load (two rows a cycle, from the
//! first-level cache and without rows across cache lines). The four products of a step go round
//! the four sums so that each shares a tile with the one before: 5 loads for 4 products, 40 cycles
//! of loads beside 64 of products. At half depth, loads take 28 cycles (the right matrix has 8
//! rows). Products of half depth take 32 cycles if the unit's time goes by the depth, but 64 if it
//! goes by the pixels; the manuals say neither. In the worse case a 3×3 kernel reaches 75 % of the
//! peak, a pointwise one 50 %. With `c` channels, a 3×3 kernel keeps the unit busy for at least
//! `18 c` cycles for 32 pixels × 32 channels, and a pointwise one for `2 c`; then 64 registers of
//! sums are finished at about 8 instructions each, some 130 cycles. So 3×3 kernels are bound by the
//! products from 16 channels on, pointwise ones from 64 on. In small batches of large networks the
//! bound is the memory that holds the weights.
//!
//! Fully connected layers stay with `work/vector`: every weight is used once per row of the batch,
//! so they wait for memory whatever multiplies.
//!
//! # Tiles are state
//!
//! While tiles are configured, every switch to another thread saves 8 KiB more, so each run
//! releases them when it ends. The compiler knows no tiles and uses none, so they keep what one
//! block of assembly leaves for the next.

use std::arch::asm;
use std::marker::PhantomData;

use super::Runnable;
use super::strip::{PIECE_HEIGHT_MAX, Piece, StripArgs};
use super::tile::store_sums;
use crate::cpu::lanes::avx512::Zmm;
use crate::cpu::lanes::{Format, LANES, Lanes};

/// Bytes of a row of a tile: sixteen `f32`, or 32 bfloat16.
const ROW_BYTES: usize = 64;

/// Rows of weights of one tap: the sixteen channels of a block in pairs.
const TAP_ROWS: usize = LANES / 2;

/// Bytes of a pixel's block.
const PIXEL_BYTES: usize = LANES * size_of::<u16>();

/// Rows and row lengths of the eight tiles, as `LDTILECFG` reads them. Lengths and rows 8 to 15
/// are for tiles that no processor has.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles in use: 0 to 3 are sums, 4 and 5 pixels and weights of two taps, 6 and 7 of one.
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
        // SAFETY: it reads the 64 bytes of the configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config,
                options(nostack, readonly, preserves_flags));
        }
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever configured the tiles has shown that the processor has them.
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

/// Stores a tile's rows one after the other.
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

/// One or two taps of all pieces and blocks. It goes round the four sums, so that each product
/// needs one new tile only.
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

/// What a step reads; distances in bytes.
#[derive(Clone, Copy)]
struct Reads {
    /// A tap of the first position of the first piece.
    from: *const u8,
    /// From one position to the next.
    step: usize,
    /// From the first piece to the second.
    second: isize,
    weights: *const u8,
    /// From one pair of input channels to the next: the blocks of the group lie between.
    weight_row: usize,
}

/// Sums as they leave the tiles: `[piece][block][position][channel]`.
#[repr(align(64))]
struct Sums([[[[f32; LANES]; PIECE_HEIGHT_MAX]; 2]; 2]);

/// Sums `PIECES` pieces × `BLOCKS` blocks.
///
/// # Safety
/// As [`StripArgs`] says, with tiles configured for its strip; `reads` begin at the first tap.
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
    // SAFETY: each load reads whole taps of positions of the strip, which lie in the input, or
    // taps' rows of the packed group; stores fill at most the sixteen rows of their sums.
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

/// A strip for groups of `BLOCKS` blocks; residual in format `R`, result in `O`.
pub(super) struct AmxStrip<R, O, const BLOCKS: usize>(PhantomData<(R, O)>);

impl<R: Format<Zmm>, O: Format<Zmm>, const BLOCKS: usize> Runnable<Zmm> for AmxStrip<R, O, BLOCKS> {
    type Args = StripArgs;

    #[inline(always)]
    unsafe fn run(args: &StripArgs) {
        let strip = &args.strip;
        let mut sums = Sums([[[[0.0; LANES]; PIECE_HEIGHT_MAX]; 2]; 2]);
        // SAFETY: what the caller promises; tiles fit the strip's pieces.
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

/// Finishes and stores the pixels of a piece.
///
/// # Safety
/// As [`StripArgs`] says; `sums` are the piece's.
#[inline(always)]
unsafe fn store_piece<R: Format<Zmm>, O: Format<Zmm>, const BLOCKS: usize>(
    args: &StripArgs,
    piece: &Piece,
    sums: &[[[f32; LANES]; PIECE_HEIGHT_MAX]; 2],
) {
    for span in args.strip.spans(piece) {
        let [y, x] = span.at;
        for (beside, position) in span.positions.enumerate() {
            // SAFETY: a pixel of the strip's rows; a block of sums is sixteen numbers.
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
