//! 3×3 convolutions of stride 1 by Winograd's algorithm; see `kernels::winograd`.

use super::{OutputRegion, Product, RunContext, Work, block_ptr};
use crate::cpu::kernels::tile::{StridedPtr, Taps, TileArgs};
use crate::cpu::kernels::tiling::Tiling;
use crate::cpu::kernels::winograd::{ForwardArgs, InverseArgs, SIDE_IN, SIDE_OUT, TRANSFORMED_LEN};
use crate::cpu::lanes::LANES;

/// A 3×3 convolution with a border of one.
pub(in crate::cpu) struct Winograd {
    /// The 1×1 product of each of the 36 numbers. It is in `f32` whatever the network's format,
    /// because rounding transformed numbers loses several bits more than rounding the originals.
    pub(in crate::cpu) product: Product,
}

/// Output rows that are computed together: the rows of one tile.
pub(in crate::cpu) const ROW_UNIT: usize = SIDE_OUT;

/// Scratch of a pass that stays in the second-level cache.
const PASS_BYTES: usize = 640 << 10;

/// Scratch of the largest pass, for each executor.
const PASS_BYTES_MAX: usize = 16 << 20;

/// Pixels of the widest register tile of any set.
const REGISTER_TILE_PIXELS_MAX: usize = 14;

/// The item of a tile, and the row and column of the tile's first output pixel.
struct TileOrigin {
    item: usize,
    y: usize,
    x: usize,
}

impl Winograd {
    fn blocks(&self) -> usize {
        self.product.input.layout.blocks() + self.product.output.layout.blocks()
    }

    /// Scratch of one tile: its transformed inputs and its products.
    fn tile_bytes(&self) -> usize {
        TRANSFORMED_LEN * self.blocks() * LANES * size_of::<f32>()
    }

    fn tiles_of_image(&self) -> usize {
        let layout = self.product.output.layout;
        layout.height.div_ceil(SIDE_OUT) * layout.width.div_ceil(SIDE_OUT)
    }

    fn passes(&self, all: usize, register_tile_pixels: usize) -> usize {
        passes(all, self.tile_bytes(), self.product.weights.bytes(), register_tile_pixels)
    }

    /// Returns the item and the first output pixel of a tile of the region.
    fn tile_origin(&self, region: &OutputRegion, tile: usize) -> TileOrigin {
        let across = self.product.output.layout.width.div_ceil(SIDE_OUT);
        let down = region.rows.len().div_ceil(SIDE_OUT);
        let (item, rest) = (tile / (across * down), tile % (across * down));
        let y = region.rows.start + rest / across * SIDE_OUT;
        TileOrigin { item: region.items.start + item, y, x: rest % across * SIDE_OUT }
    }

    /// Transforms pixels to numbers, `[number][block][tile][16]`.
    unsafe fn forward(
        &self,
        run: &RunContext<'_>,
        region: &OutputRegion,
        tiles: &std::ops::Range<usize>,
    ) {
        let layout = self.product.input.layout;
        let numbers = run.scratch.cast::<f32>();
        for block in 0..layout.blocks() {
            for (at, tile) in tiles.clone().enumerate() {
                let TileOrigin { item, y, x } = self.tile_origin(region, tile);
                // SAFETY: the pixels lie inside the bordered image, and the vectors in the scratch.
                unsafe {
                    (run.kernels.winograd_forward)(&ForwardArgs {
                        input: self.product.input.pixel_ptr(run, item, block, [y, x], [1, 1]),
                        input_row_stride: layout.row_stride(),
                        height: SIDE_IN.min(layout.height + 2 - y),
                        width: SIDE_IN.min(layout.width + 2 - x),
                        output: numbers.add((block * tiles.len() + at) * LANES),
                        vector_stride: layout.blocks() * tiles.len() * LANES,
                    });
                }
            }
        }
    }

    /// Computes one matrix product for each of the 36 numbers and each group of channels of the
    /// region. Threads that share an item by its channels each read a part of the weights, and each
    /// transform all inputs.
    unsafe fn multiply(
        &self,
        run: &RunContext<'_>,
        region: &OutputRegion,
        count: usize,
        products: *mut f32,
    ) {
        let (from, to) = (self.product.input.layout.blocks(), self.product.output.layout.blocks());
        let [dots, dots_last] = self.product.shape.dots_per_tap();
        let taps = Taps {
            blocks: from,
            block_stride: count * LANES,
            rows: 1,
            columns: 1,
            row_stride: 0,
            pixel_stride: 0,
            dots,
            dots_last,
        };
        let tiling = Tiling::new(count, 1, run.kernels.tile_pixels);
        let block_elements = self.product.shape.block_elements();
        for element in 0..TRANSFORMED_LEN {
            for (block, blocks) in
                region.groups.clone().map(|group| self.product.shape.group_blocks(group))
            {
                for span in tiling.spans() {
                    let weights = (element * to + block) * block_elements;
                    let input = element * from * count * LANES + span.x * LANES;
                    let output = ((element * to + block) * count + span.x) * LANES;
                    // SAFETY: input and output lie in the scratch, and the weights are packed.
                    unsafe {
                        let args = TileArgs {
                            taps: &taps,
                            count: span.count,
                            input_row_stride: 0,
                            input: run.scratch.cast::<f32>().add(input).cast(),
                            weights: self.product.weights.start().cast::<f32>().add(weights).cast(),
                            prefetch_bytes: self
                                .product
                                .prefetch_bytes(blocks * block_elements * size_of::<f32>()),
                            bias: None,
                            residual: None,
                            epilogue: super::Epilogue::Identity,
                            output: StridedPtr {
                                first: products.add(output).cast(),
                                block_stride: count * LANES,
                                row_stride: 0,
                            },
                        };
                        run.kernels.winograd_products.get([blocks, span.width])(&args);
                    }
                }
            }
        }
    }

    /// Transforms numbers to pixels.
    unsafe fn inverse(
        &self,
        run: &RunContext<'_>,
        region: &OutputRegion,
        tiles: &std::ops::Range<usize>,
        products: *const f32,
    ) {
        let layout = self.product.output.layout;
        let widens_to_f32 = self.product.widens_to_f32(run);
        let inverse = if widens_to_f32 {
            run.kernels.winograd_inverse_to_f32
        } else {
            run.kernels.winograd_inverse
        };
        let groups = region.groups.clone().map(|group| self.product.shape.group_blocks(group));
        for block in groups.flat_map(|(block, blocks)| block..block + blocks) {
            for (at, tile) in tiles.clone().enumerate() {
                let TileOrigin { item, y, x } = self.tile_origin(region, tile);
                // SAFETY: the vectors lie in the scratch, and the pixels in the region.
                unsafe {
                    inverse(&InverseArgs {
                        input: products.add((block * tiles.len() + at) * LANES),
                        vector_stride: layout.blocks() * tiles.len() * LANES,
                        bias: block_ptr(&self.product.bias, block),
                        residual: self.product.residual.map(|residual| StridedPtr {
                            first: residual
                                .pixel_ptr(run, item, block, [y, x], [0, 0])
                                .cast_const(),
                            block_stride: 0,
                            row_stride: residual.layout.row_stride(),
                        }),
                        epilogue: self.product.epilogue.at_block(block),
                        output: StridedPtr {
                            first: self.product.output.pixel_ptr(run, item, block, [y, x], [0, 0]),
                            block_stride: 0,
                            row_stride: layout.row_stride(),
                        },
                        height: SIDE_OUT.min(region.rows.end - y),
                        width: SIDE_OUT.min(layout.width - x),
                    });
                }
            }
        }
    }
}

impl Work for Winograd {
    fn algorithm(&self) -> &'static str {
        "winograd"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let across = self.product.output.layout.width.div_ceil(SIDE_OUT);
        let all = region.items.len() * region.rows.len().div_ceil(SIDE_OUT) * across;
        let passes = self.passes(all, run.kernels.tile_pixels);
        for pass in 0..passes {
            let tiles = pass * all / passes..(pass + 1) * all / passes;
            let forward =
                TRANSFORMED_LEN * self.product.input.layout.blocks() * tiles.len() * LANES;
            // SAFETY: guaranteed by the caller.
            unsafe {
                let products = run.scratch.cast::<f32>().add(forward);
                self.forward(run, region, &tiles);
                self.multiply(run, region, tiles.len(), products);
                self.inverse(run, region, &tiles, products);
            }
        }
    }

    fn scratch_bytes(&self, items: usize) -> usize {
        (items * self.tiles_of_image()).min(tiles_max(self.tile_bytes())) * self.tile_bytes()
    }

    fn weight_bytes(&self) -> usize {
        self.product.weights.bytes()
    }

    fn weight_uses(&self) -> usize {
        self.tiles_of_image()
    }
}

/// Returns the tiles of the largest pass, if each takes `tile_bytes` bytes.
fn tiles_max(tile_bytes: usize) -> usize {
    (PASS_BYTES_MAX / tile_bytes).max(REGISTER_TILE_PIXELS_MAX)
}

/// Returns the number of passes that compute `all` tiles. Every pass reads all weights again. Many
/// small passes keep their scratch in the second-level cache. One large pass writes its scratch to
/// the next cache and reads it back, which costs less if weights are large and images small.
fn passes(all: usize, tile_bytes: usize, weights: usize, register_tile_pixels: usize) -> usize {
    let fit = PASS_BYTES / tile_bytes;
    let small = all.div_ceil((fit / register_tile_pixels).max(1) * register_tile_pixels);
    let large = all.div_ceil(tiles_max(tile_bytes));
    let large_traffic = large * weights + 2 * all * tile_bytes;
    if small * weights <= large_traffic { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the passes for an image of `tiles` tiles and a layer of `channels` input and output
    /// channels.
    fn passes_of_layer(tiles: usize, channels: usize) -> usize {
        let numbers = TRANSFORMED_LEN * size_of::<f32>();
        passes(
            tiles,
            numbers * 2 * channels,
            numbers * channels * channels,
            REGISTER_TILE_PIXELS_MAX,
        )
    }

    #[test]
    fn large_weights_are_read_once_and_small_ones_as_often_as_keeps_the_scratch_small() {
        assert_eq!(passes_of_layer(16, 256), 1, "one image of 14 x 14 pixels");
        assert_eq!(passes_of_layer(8 * 16, 256), 1, "and eight of them");
        assert!(passes_of_layer(28 * 28, 64) > 10, "an image of 112 x 112 pixels");
        for (tiles, channels) in [(1_usize, 32), (14, 512), (100_000, 512), (100_000, 32)] {
            let tile_bytes = TRANSFORMED_LEN * size_of::<f32>() * 2 * channels;
            let of_pass = tiles.div_ceil(passes_of_layer(tiles, channels));
            assert!(of_pass <= tiles_max(tile_bytes), "{tiles} tiles of {channels} channels");
        }
    }
}
