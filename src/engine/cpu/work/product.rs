//! The parts that all convolutions and matrix products share.

use super::{ImageRef, PackedEpilogue, RunContext};
use crate::cpu::kernels::tile::TileTable;
use crate::cpu::memory::MappedMemory;
use crate::cpu::pack::ProductShape;

/// Packed weights with their input, residual, bias, epilogue and output.
pub(in crate::cpu) struct Product {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) residual: Option<ImageRef>,
    pub(in crate::cpu) output: ImageRef,
    pub(in crate::cpu) shape: ProductShape,
    pub(in crate::cpu) weights: MappedMemory,
    pub(in crate::cpu) bias: MappedMemory,
    pub(in crate::cpu) epilogue: PackedEpilogue,
}

/// With more bytes of weights than this, a step reads weights once for all pixels of a region. With
/// fewer, it reads pixels once for all weights. This is half of a usual second-level cache.
pub(super) const WEIGHTS_STAY_BYTES: usize = 512 << 10;

/// Farthest distance of a prefetch: a small part of a second-level cache.
const PREFETCH_BYTES_MAX: usize = 128 << 10;

impl Product {
    /// Returns how far ahead a tile prefetches weights: up to the next group, so that memory has
    /// the whole time of this group's tiles. Returns 0 if the weights stay in the cache.
    pub(super) fn prefetch_bytes(&self, group_bytes: usize) -> usize {
        let is_large = self.weights.bytes() > WEIGHTS_STAY_BYTES;
        if is_large { group_bytes.min(PREFETCH_BYTES_MAX) } else { 0 }
    }

    /// Returns whether the output is `f32` in a network of another format.
    pub(super) fn widens_to_f32(&self, run: &RunContext<'_>) -> bool {
        self.output.element_bytes != run.kernels.element_bytes
    }

    pub(super) fn tile_table(&self, run: &RunContext<'_>) -> &'static TileTable {
        if self.widens_to_f32(run) { &run.kernels.tiles_to_f32 } else { &run.kernels.tiles }
    }
}
