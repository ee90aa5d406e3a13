//! Many elements to one.

use super::Kernel;
use crate::engine::cuda::arguments::{self, AXES_MAX};
use crate::engine::cuda::gpu::GpuError;
use crate::engine::cuda::plan::{Site, Work};
use crate::engine::op::Reduction;
use crate::engine::shape::known_elements;

/// Axes reduced to one number; the result lies as what is read, without those axes.
pub(in crate::engine::cuda) struct Reduce {
    kernel: Kernel,
    reduction: Reduction,
    /// Size and step of each axis kept, outermost first, and of each that goes.
    kept: Vec<[usize; 2]>,
    gone: Vec<[usize; 2]>,
    row_len: usize,
}

impl Reduce {
    /// Of rows of `shape` that lie with `strides`.
    pub(in crate::engine::cuda) fn new(
        reduction: Reduction,
        shape: &[usize],
        strides: &[usize],
        axes: &[usize],
        is_half: bool,
    ) -> Self {
        let mut order: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != 1).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(strides[axis]));
        let (gone, kept): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|axis| axes.contains(axis));
        let steps =
            |axes: Vec<usize>| axes.iter().map(|&axis| [shape[axis], strides[axis]]).collect();
        let kernel = Kernel::single("reduce", is_half);
        let row_len = known_elements(shape);
        Self { kernel, reduction, kept: steps(kept), gone: steps(gone), row_len }
    }
}

impl Work for Reduce {
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError> {
        let product = |axes: &[[usize; 2]]| axes.iter().map(|[size, _]| size).product::<usize>();
        let mut kept = vec![[site.batch, self.row_len]];
        kept.extend(&self.kept);
        let count = site.count(product(&self.kept));
        let arguments = arguments::Reduce {
            y: site.y,
            x: site.x[0],
            kept_sizes: column(&kept, 0),
            kept_strides: column(&kept, 1),
            sizes: column(&self.gone, 0),
            strides: column(&self.gone, 1),
            kept_axes: kept.len() as i32,
            axes: self.gone.len() as i32,
            kind: match self.reduction {
                Reduction::Mean => 0,
                Reduction::Sum => 1,
                Reduction::Max => 2,
                Reduction::L2 => 3,
            },
            length: product(&self.gone) as u32,
            count,
        };
        site.gpu.launch(&self.kernel.name, count, &arguments)
    }

    fn algorithm(&self) -> &'static str {
        "reduction"
    }
}

fn column(axes: &[[usize; 2]], index: usize) -> [u32; AXES_MAX] {
    let mut column = [1; AXES_MAX];
    for (number, axis) in column.iter_mut().zip(axes) {
        *number = axis[index] as u32;
    }
    column
}

/// Exponentials along an axis over their sum: rows of `[outer, length, inner]`.
pub(in crate::engine::cuda) struct Softmax {
    kernel: Kernel,
    length: usize,
    inner: usize,
    outer: usize,
}

impl Softmax {
    pub(in crate::engine::cuda) fn new([outer, length, inner]: [usize; 3], is_half: bool) -> Self {
        Self { kernel: Kernel::single("softmax", is_half), length, inner, outer }
    }
}

impl Work for Softmax {
    fn enqueue(&self, site: &Site<'_>) -> Result<(), GpuError> {
        let count = site.count(self.outer * self.inner);
        let (length, inner) = (self.length as u32, self.inner as u32);
        let arguments = arguments::Softmax { y: site.y, x: site.x[0], length, inner, count };
        site.gpu.launch(&self.kernel.name, count, &arguments)
    }

    fn algorithm(&self) -> &'static str {
        "reduction"
    }
}
