//! Runs networks on the CPU, planned.
//!
//! ```text
//! graph → lower (kernels, packed weights, bands) → schedule (order, memory) → executor, one per thread
//! ```
//!
//! # The tricks, and where each is explained
//!
//! | trick | file |
//! |---|---|
//! | sixteen channels lie together, in blocks with a real border, so that no kernel tests for edges | `layout` |
//! | one source for all instruction sets | `lanes` |
//! | a tile of sums that never leaves the registers | `kernels/tile` |
//! | pixels of several rows in one line, two taps of a kernel in one product of tiles | `kernels/strip`, `kernels/amx` |
//! | small networks' inputs are read as the caller laid them out | `work/planar` |
//! | images side by side as the pixels of a matrix product | `work/vector` |
//! | a quarter of the multiplications of a 3×3 convolution | `kernels/winograd` |
//! | batch normalisation in front of a bordered convolution costs nothing | `passes` |
//! | steps on large images run in turns, some rows at a time that stay in the cache | `work/bands` |
//! | weights from memory are fetched while the ones before are multiplied with | `work/product` |
//! | heads of a detector that would each leave a register half empty are one | `passes` |
//! | row by row where activations are large, together where weights are; one place for values that never meet | `schedule` |
//! | one row on several threads | `team`, `executor` |
//! | but not while others use the cores | `item_parallelism` |
//!
//! The kernels for AMX are tested under an instruction emulator (`tests/emulator`) and have never
//! run on hardware, so [`KernelChoice::Auto`] does not choose them.
//!
//! # What a row's answer depends on
//!
//! On the row, the kernel set and the precision: each output is summed in one order whatever the
//! batch, the tile, the band or the thread, and which algorithm a layer gets is decided by its
//! shape, never by a stopwatch. So answers are the same bits alone, in any bucket and after any
//! restart.

#![expect(unsafe_code, reason = "kernels work on raw memory; each block says why it may")]

#[cfg(target_arch = "x86_64")]
mod amx_permission;
mod executor;
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
mod schedule;
mod select;
mod team;
#[cfg(test)]
mod tests;
mod work;

pub use network::{CpuNetwork, StepReport};
pub use select::{KernelChoice, SelectError};
pub use team::ThreadTeam;
