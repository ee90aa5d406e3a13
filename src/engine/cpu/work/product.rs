//! What all convolutions and matrix products have in common: weights, and what becomes of sums.

use super::{ImageRef, PackedEpilogue, RunContext};
use crate::cpu::kernels::tile::TileTable;
use crate::cpu::memory::Buffer;
use crate::cpu::pack::DenseShape;

/// Packed weights with what they are multiplied with and what comes after.
pub(in crate::cpu) struct Product {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) residual: Option<ImageRef>,
    pub(in crate::cpu) output: ImageRef,
    pub(in crate::cpu) shape: DenseShape,
    pub(in crate::cpu) weights: Buffer,
    pub(in crate::cpu) bias: Buffer,
    pub(in crate::cpu) epilogue: PackedEpilogue,
}

/// Above this, weights are read once for all pixels of a region; below, pixels once for all
/// weights. Half of a usual second-level cache.
pub(super) const WEIGHTS_STAY_BYTES: usize = 512 << 10;

/// Farthest that weights are fetched ahead: a small part of a second-level cache.
const PREFETCH_BYTES_MAX: usize = 128 << 10;

impl Product {
    /// How far ahead a tile fetches weights: as far as the next group, so that memory has all the
    /// time the tiles of this one take.
    pub(super) fn prefetch_bytes(&self, group_bytes: usize) -> usize {
        let is_large = self.weights.bytes() > WEIGHTS_STAY_BYTES;
        if is_large { group_bytes.min(PREFETCH_BYTES_MAX) } else { 0 }
    }

    /// Whether the output is `f32` though the network's format is another.
    pub(super) fn widens_to_f32(&self, run: &RunContext<'_>) -> bool {
        self.output.element_bytes != run.kernels.element_bytes
    }

    pub(super) fn tile_table(&self, run: &RunContext<'_>) -> &'static TileTable {
        if self.widens_to_f32(run) { &run.kernels.tiles_to_f32 } else { &run.kernels.tiles }
    }
}
