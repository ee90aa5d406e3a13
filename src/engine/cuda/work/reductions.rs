//! Reductions of many elements to one.

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

use super::Kernel;
use crate::cuda::arguments::{AXES_MAX, ReduceArguments, SoftmaxArguments};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::{Gpu, GpuError};
use crate::cuda::plan::{LaunchContext, Work};
use crate::op::Reduction;
use crate::shape::element_count;

/// The threads that compute one result. One thread and one block combine elements in
/// different orders, so the choice must not depend on the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum ReductionScope {
    Thread,
    Block,
}

/// Threads of a warp, which run in step. If at least as many results are neighbours in memory, each
/// access of a warp reads neighbouring elements.
const WARP_THREADS: usize = 32;

/// Fewest elements for which each thread of a block has work.
const BLOCK_LEN_MIN: usize = 256;

impl ReductionScope {
    /// Chooses the scope for results that are computed from `len` elements each. `neighbours` is
    /// how many results lie side by side in memory.
    ///
    /// A thread reads one element after another and takes about 0.1 µs for each, so a block is
    /// faster for many elements. For few elements a block mostly waits at its barriers, and is
    /// faster only if threads would read far from each other. Both limits are estimates, not
    /// measured.
    fn choose(len: usize, neighbours: usize) -> Self {
        let len_min = if neighbours < WARP_THREADS { WARP_THREADS } else { BLOCK_LEN_MIN };
        if len < len_min { Self::Thread } else { Self::Block }
    }

    fn kernel(self, kernel: &str, element_type: ElementType) -> Kernel {
        match self {
            Self::Thread => Kernel::single(kernel, element_type),
            Self::Block => Kernel::single(&format!("{kernel}_block"), element_type),
        }
    }

    fn launch<A: DeviceRepr>(
        self,
        gpu: &Gpu,
        kernel: &Kernel,
        results: u32,
        arguments: &A,
    ) -> Result<(), GpuError> {
        match self {
            Self::Thread => gpu.launch(&kernel.name, results, arguments),
            Self::Block => gpu.launch_blocks(&kernel.name, results, arguments),
        }
    }
}

/// Reduces axes to one number each. The result has the layout of the input without those axes.
pub(in crate::cuda) struct Reduce {
    scope: ReductionScope,
    kernel: Kernel,
    reduction: Reduction,
    /// Size and stride of each axis that is kept and of each axis that is reduced, outermost first.
    kept: Vec<[usize; 2]>,
    reduced: Vec<[usize; 2]>,
    item_len: usize,
}

impl Reduce {
    /// Plans the reduction of `axes` in items of `shape` with these strides.
    pub(in crate::cuda) fn new(
        reduction: Reduction,
        shape: &[usize],
        strides: &[usize],
        axes: &[usize],
        element_type: ElementType,
    ) -> Self {
        let mut order: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != 1).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(strides[axis]));
        let (reduced, kept): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|axis| axes.contains(axis));
        let [kept, reduced] = [kept, reduced].map(|axes| merge_axes(&axes, shape, strides));
        let neighbours = match kept.last() {
            Some([size, 1]) => *size,
            _ => 1,
        };
        let scope = ReductionScope::choose(product_of_lengths(&reduced), neighbours);
        let kernel = scope.kernel("reduce", element_type);
        Self { scope, kernel, reduction, kept, reduced, item_len: element_count(shape) }
    }

    /// Returns the same work in this scope, whatever its size.
    #[cfg(test)]
    pub(in crate::cuda) fn with_scope(
        self,
        scope: ReductionScope,
        element_type: ElementType,
    ) -> Self {
        Self { scope, kernel: scope.kernel("reduce", element_type), ..self }
    }
}

/// Returns the size and stride of each axis. Contiguous axes are merged into one.
fn merge_axes(axes: &[usize], shape: &[usize], strides: &[usize]) -> Vec<[usize; 2]> {
    let mut merged: Vec<[usize; 2]> = Vec::new();
    for [size, stride] in axes.iter().map(|&axis| [shape[axis], strides[axis]]) {
        match merged.last_mut() {
            Some([outer, step]) if *step == stride * size => {
                (*outer, *step) = (*outer * size, stride);
            }
            _ => merged.push([size, stride]),
        }
    }
    merged
}

fn product_of_lengths(axes: &[[usize; 2]]) -> usize {
    axes.iter().map(|[size, _]| size).product()
}

impl Work for Reduce {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let mut kept = vec![[context.items, self.item_len]];
        kept.extend(&self.kept);
        let count = context.count(product_of_lengths(&self.kept));
        let arguments = ReduceArguments {
            y: context.y,
            x: context.x[0],
            kept_sizes: column(&kept, 0),
            kept_strides: column(&kept, 1),
            reduced_sizes: column(&self.reduced, 0),
            reduced_strides: column(&self.reduced, 1),
            kept_axis_count: kept.len() as i32,
            reduced_axis_count: self.reduced.len() as i32,
            kind: match self.reduction {
                Reduction::Mean => 0,
                Reduction::Sum => 1,
                Reduction::Max => 2,
                Reduction::L2 => 3,
            },
            length: product_of_lengths(&self.reduced) as u32,
            count,
        };
        self.scope.launch(context.gpu, &self.kernel, count, &arguments)
    }
}

fn column(axes: &[[usize; 2]], index: usize) -> [u32; AXES_MAX] {
    let mut column = [1; AXES_MAX];
    for (number, axis) in column.iter_mut().zip(axes) {
        *number = axis[index] as u32;
    }
    column
}

/// Softmax along the middle axis of items `[outer, length, inner]`.
pub(in crate::cuda) struct Softmax {
    scope: ReductionScope,
    kernel: Kernel,
    length: usize,
    inner: usize,
    outer: usize,
}

impl Softmax {
    pub(in crate::cuda) fn new(
        [outer, length, inner]: [usize; 3],
        element_type: ElementType,
    ) -> Self {
        let scope = ReductionScope::choose(length, inner);
        Self { scope, kernel: scope.kernel("softmax", element_type), length, inner, outer }
    }

    /// Returns the same work in this scope, whatever its size.
    #[cfg(test)]
    pub(in crate::cuda) fn with_scope(
        self,
        scope: ReductionScope,
        element_type: ElementType,
    ) -> Self {
        Self { scope, kernel: scope.kernel("softmax", element_type), ..self }
    }
}

impl Work for Softmax {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.outer * self.inner);
        let (length, inner) = (self.length as u32, self.inner as u32);
        let arguments = SoftmaxArguments { y: context.y, x: context.x[0], length, inner, count };
        self.scope.launch(context.gpu, &self.kernel, count, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::strides;

    fn scope(shape: &[usize], strides: &[usize], axes: &[usize]) -> ReductionScope {
        Reduce::new(Reduction::Sum, shape, strides, axes, ElementType::F32).scope
    }

    #[test]
    fn many_elements_are_for_a_block_and_few_for_a_thread() {
        // The length of an embedding, and a short list.
        assert_eq!(scope(&[512], &[1], &[0]), ReductionScope::Block);
        assert_eq!(scope(&[31], &[1], &[0]), ReductionScope::Thread);
        // Pixels of images with their channels last: many channels, then few.
        assert_eq!(scope(&[512, 7, 7], &[1, 3584, 512], &[1, 2]), ReductionScope::Thread);
        assert_eq!(scope(&[512, 56, 56], &[1, 28672, 512], &[1, 2]), ReductionScope::Block);
        assert_eq!(scope(&[6, 7, 7], &[1, 42, 6], &[1, 2]), ReductionScope::Block);
        // With channels first, threads would read pixels that are far from each other.
        assert_eq!(scope(&[512, 7, 7], &strides(&[512, 7, 7]), &[1, 2]), ReductionScope::Block);
        assert_eq!(Softmax::new([1, 2, 100], ElementType::F32).scope, ReductionScope::Thread);
        assert_eq!(Softmax::new([8, 49, 1], ElementType::F32).scope, ReductionScope::Block);
    }

    #[test]
    fn contiguous_axes_are_merged() {
        let shape = [6, 5, 7];
        let reduce = |steps: &[usize], axes: &[usize]| {
            Reduce::new(Reduction::Sum, &shape, steps, axes, ElementType::F32)
        };
        let first = reduce(&strides(&shape), &[1, 2]);
        assert_eq!((first.kept, first.reduced), (vec![[6, 35]], vec![[35, 1]]));
        let last = reduce(&[1, 42, 6], &[1, 2]);
        assert_eq!((last.kept, last.reduced), (vec![[6, 1]], vec![[35, 6]]));
        let middle = reduce(&strides(&shape), &[1]);
        assert_eq!((middle.kept, middle.reduced), (vec![[6, 35], [7, 1]], vec![[5, 7]]));
    }
}
