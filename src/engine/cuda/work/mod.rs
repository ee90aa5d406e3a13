//! The work of steps. Each file holds one kind of work: its plan, and how it is enqueued.

mod convolution;
mod elements;
mod moves;
mod reductions;
mod windows;

pub(super) use convolution::{CudnnConvolution, Depthwise, MatrixProduct};
pub(super) use elements::{ActivationPlan, Binary, Elementwise, EpiloguePlan, PeriodicConstant};
pub(super) use moves::{Border, Copy, Fill};
#[cfg(test)]
pub(super) use reductions::ReductionScope;
pub(super) use reductions::{Reduce, Softmax};
pub(super) use windows::{Resample, ResampleKind, WindowPlan};

use super::arguments::PACK;
use super::element_type::ElementType;

/// The full name of a kernel, and how many elements each of its threads computes.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    name: String,
    pack: u32,
}

impl Kernel {
    /// Returns the kernel whose threads compute one element each.
    fn single(kernel: &str, element_type: ElementType) -> Self {
        Self { name: format!("{kernel}_{}", element_type.suffix()), pack: 1 }
    }

    /// Returns the kernel whose threads compute a pack of neighbouring elements each, if their
    /// number `neighbours` is a multiple of the pack.
    fn packed(kernel: &str, element_type: ElementType, neighbours: usize) -> Self {
        match neighbours.is_multiple_of(PACK) {
            true => {
                let name = format!("{kernel}_{}_packed", element_type.suffix());
                Self { name, pack: PACK as u32 }
            }
            false => Self::single(kernel, element_type),
        }
    }

    fn threads(&self, count: u32) -> u32 {
        count / self.pack
    }
}
