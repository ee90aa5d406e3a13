//! Measures the highest speed a core reaches with a kernel set.

use std::time::{Duration, Instant};

use super::kernels::strip::{Strip, StripArgs, StripTable};
use super::kernels::tile::{StridedPtr, Taps, TileArgs};
use super::kernels::{Epilogue, KernelSet};
use super::lanes::LANES;
use super::memory::MappedMemory;

/// Number of blocks of sixteen input channels.
const INPUT_BLOCKS: usize = 8;

/// Tiles, or lines of strips, per timed round.
const CALLS: usize = 1000;

/// Number of timed rounds: about 20 ms in all, enough for a figure that repeats.
pub(super) const ROUNDS: usize = 50;

/// Lines of a strip: so many that the time to configure the AMX tiles does not count. All lines are
/// computed from the same pixels.
const LINES: usize = 64;

/// Returns the operations per second of the dense convolution kernel on data in the first-level
/// cache. A multiply-add counts as two operations. No layer is faster with these kernels on this
/// core.
pub(super) fn peak_flops(kernels: &KernelSet, rounds: usize) -> f64 {
    match &kernels.strips {
        Some(table) => strip_flops(kernels, table, rounds),
        None => tile_flops(kernels, rounds),
    }
}

fn tile_flops(kernels: &KernelSet, rounds: usize) -> f64 {
    let (blocks, pixels) = (kernels.tile_blocks, kernels.tile_pixels);
    let dots = LANES / kernels.depth;
    // The weights of eight blocks fill half of a usual first-level cache.
    let taps = Taps {
        blocks: INPUT_BLOCKS,
        block_stride: pixels * LANES,
        rows: 1,
        columns: 1,
        row_stride: 0,
        pixel_stride: 0,
        dots,
        dots_last: dots,
    };
    let input = zeroed(INPUT_BLOCKS * pixels * LANES);
    let weights = zeroed(INPUT_BLOCKS * LANES * blocks * LANES);
    let output = zeroed(blocks * pixels * LANES);
    let tile = kernels.tiles.get(1, [blocks, 1, pixels]);
    let args = TileArgs {
        taps: &taps,
        count: 1,
        input_row_stride: 0,
        input: input.start(),
        weights: weights.start(),
        prefetch_bytes: 0,
        bias: None,
        residual: None,
        epilogue: Epilogue::Identity,
        output: StridedPtr { first: output.start(), block_stride: pixels * LANES, row_stride: 0 },
    };
    // SAFETY: the memory is as large as the taps and the tile.
    let seconds = fastest_seconds(rounds, CALLS, || unsafe { tile(&args) });
    2.0 * (INPUT_BLOCKS * LANES * blocks * LANES * pixels) as f64 / seconds
}

fn strip_flops(kernels: &KernelSet, table: &StripTable, rounds: usize) -> f64 {
    /// Two taps are one AMX product; two pieces and two blocks share the tiles they load.
    const COLUMNS: usize = 2;
    const PIXELS: usize = 32;
    const STRIDE: usize = 2;
    let blocks = kernels.tile_blocks;
    let block_stride = STRIDE * PIXELS * LANES;
    let taps = Taps {
        blocks: INPUT_BLOCKS,
        block_stride,
        rows: 1,
        columns: COLUMNS,
        row_stride: 0,
        pixel_stride: LANES,
        dots: LANES / kernels.depth,
        dots_last: LANES / kernels.depth,
    };
    let input = zeroed(INPUT_BLOCKS * block_stride);
    let weights = zeroed(INPUT_BLOCKS * COLUMNS * LANES * blocks * LANES);
    let (bias, output) = (zeroed(blocks * LANES), zeroed(blocks * PIXELS * LANES));
    let args = StripArgs {
        taps,
        strip: Strip::new(LINES, PIXELS, STRIDE, 0),
        input: input.start(),
        weights: weights.start(),
        bias: bias.start().cast_const().cast(),
        residual: None,
        epilogue: Epilogue::Identity,
        output: StridedPtr { first: output.start(), block_stride: PIXELS * LANES, row_stride: 0 },
    };
    let macs = LINES * PIXELS * blocks * LANES * INPUT_BLOCKS * COLUMNS * LANES;
    // SAFETY: the memory is as large as the taps of one line. The row stride of input and output
    // is 0, so all lines use the same memory.
    let seconds =
        fastest_seconds(rounds, CALLS / LINES, || unsafe { table.strips[blocks - 1](&args) });
    2.0 * macs as f64 / seconds
}

/// Returns memory of zeros for `elements` elements of the largest format, `f32`.
fn zeroed(elements: usize) -> MappedMemory {
    MappedMemory::zeroed(elements * size_of::<f32>())
}

/// Returns the seconds per call in the fastest of `rounds` rounds of `calls` calls.
fn fastest_seconds(rounds: usize, calls: usize, call: impl Fn()) -> f64 {
    let mut fastest = Duration::MAX;
    for _ in 0..rounds {
        let started = Instant::now();
        (0..calls).for_each(|_| call());
        fastest = fastest.min(started.elapsed());
    }
    fastest.as_secs_f64() / calls as f64
}
