//! Runs networks on the CPU by a plan that is made when the network is loaded.
//!
//! ```text
//! graph → lower (kernels, packed weights, band chains)
//!       → schedule (order of steps, memory)
//!       → executor, one per thread
//! ```
//!
//! # Optimisations, and the file that explains each
//!
//! | optimisation | file |
//! |---|---|
//! | channels in blocks of sixteen, and a border in memory: no tests for edges | `layout` |
//! | one source of each kernel for all instruction sets | `lanes` |
//! | the sums of a tile stay in registers | `kernels/tile` |
//! | AMX: pixels of several rows in one line, two taps in one product | `kernels/{strip,amx}` |
//! | an input of few channels is read in the caller's layout | `work/planar` |
//! | the items of a batch are the pixels of one matrix product | `work/fully_connected` |
//! | a quarter of the multiplications of a 3×3 convolution | `kernels/winograd` |
//! | batch normalisation before a bordered convolution costs nothing | `passes` |
//! | steps on large images run in bands of rows that stay in the cache | `work/band_chain` |
//! | weights are prefetched from memory during the products before them | `work/product` |
//! | heads of a detector that would fill half a register each are merged | `lower/merge_heads` |
//! | item by item if activations are larger, all items together if weights are | `schedule` |
//! | buffers whose live ranges do not overlap share memory | `schedule` |
//! | one item runs on several threads | `team`, `executor` |
//! | one item runs on one thread while other work uses the cores | `item_parallelism` |
//!
//! The kernels for AMX are tested under an instruction emulator (`tests/emulator`) and have never
//! run on hardware, so [`KernelChoice::Auto`] does not choose them.
//!
//! # What the output of an item depends on
//!
//! The output of an item depends only on the item, the kernel set and the precision. Each output is
//! summed in one order, whatever the batch, the tile, the band or the thread. The algorithm of a
//! layer follows from the layer's shape, never from a measured time. So the output of an item has
//! the same bits alone, in any batch and after any restart.

#![expect(unsafe_code, reason = "kernels work on raw memory; each block says why it may")]

#[cfg(target_arch = "x86_64")]
mod amx_permission;
mod item_parallelism;
mod kernels;
mod lanes;
mod layout;
mod lower;
mod memory;
mod network;
mod pack;
mod peak;
mod plan;
mod runner;
mod schedule;
mod select;
mod team;
#[cfg(test)]
mod tests;
mod work;

pub use network::{CpuNetwork, StepReport};
pub use select::{KernelChoice, SelectError};
pub use team::ThreadTeam;
