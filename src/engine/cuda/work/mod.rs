//! What steps do. Each file is a kind of work: its plan, and how it is enqueued.

mod convolution;
mod elements;
mod moves;
mod reductions;
mod windows;

pub(super) use convolution::{Dense, Depthwise, Linear};
pub(super) use elements::{Binary, Elementwise, EpiloguePlan, PeriodicConstant, PointwisePlan};
pub(super) use moves::{Border, Copy, Fill};
#[cfg(test)]
pub(super) use reductions::ReductionScope;
pub(super) use reductions::{Reduce, Softmax};
pub(super) use windows::{Resample, ResampleKind, WindowPlan};

use super::arguments::PACK;
use super::element_type::ElementType;

/// A kernel's name in a precision, and how many elements one of its threads does.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    name: String,
    pack: u32,
}

impl Kernel {
    /// One element for each thread.
    fn single(kernel: &str, element_type: ElementType) -> Self {
        Self { name: format!("{kernel}_{}", element_type.suffix()), pack: 1 }
    }

    /// A pack of neighbours for each thread where their number allows it.
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
