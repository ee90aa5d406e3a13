//! Functions of each element, and of two values.

use super::Kernel;
use crate::constant::Constant;
use crate::cuda::arguments::{self, Address};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::layout::{StridedPair, ValueLayout};
use crate::cuda::plan::{ConstantOffset, Constants, LaunchContext, Work};
use crate::op::{Activation, BinaryOp};
use crate::shape::{broadcast_strides, known_elements, offsets};

/// Constants that repeat over the elements of a value.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Repeated {
    offset: ConstantOffset,
    period: u32,
}

impl Repeated {
    /// One number for each channel of an image with its channels last.
    pub(in crate::cuda) fn channels(constants: &mut Constants, numbers: &[f32]) -> Self {
        Self { offset: constants.add_f32(numbers), period: numbers.len() as u32 }
    }

    /// A constant that broadcasts to rows of `shape`, in the order they lie in.
    pub(in crate::cuda) fn broadcast(
        constants: &mut Constants,
        constant: &Constant,
        shape: &[usize],
        layout: ValueLayout,
    ) -> Self {
        let data = constant.data();
        let varies_only_along = |axis: usize| {
            let mut sizes = constant.shape().iter().enumerate();
            sizes.all(|(other, &size)| size == 1 || other == axis)
        };
        let innermost = match layout {
            ValueLayout::ChannelsLast => 0,
            ValueLayout::Plain => shape.len() - 1,
        };
        if varies_only_along(innermost) && (data.len() == 1 || data.len() == shape[innermost]) {
            return Self::channels(constants, data);
        }
        let mut numbers = vec![0.0; known_elements(shape)];
        let from = offsets(shape, &broadcast_strides(constant.shape(), shape));
        for (from, to) in from.zip(offsets(shape, &layout.strides(shape))) {
            numbers[to] = data[from];
        }
        Self::channels(constants, &numbers)
    }

    fn argument(this: Option<Self>, context: &LaunchContext<'_>) -> arguments::Periodic {
        match this {
            None => arguments::Periodic::NONE,
            Some(Self { offset, period }) => {
                arguments::Periodic { numbers: context.constant(offset), period }
            }
        }
    }
}

/// A function of each number.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct CurvePlan {
    kind: i32,
    a: f32,
    b: f32,
    slopes: Option<Repeated>,
}

impl CurvePlan {
    /// The number itself.
    pub(in crate::cuda) const NONE: Self = Self { kind: 0, a: 0.0, b: 0.0, slopes: None };

    /// The numbering is that of `kernels/common.cuh`; `slopes` are those of a `PRelu`.
    pub(in crate::cuda) fn of(activation: &Activation, slopes: Option<Repeated>) -> Self {
        let (kind, a, b) = match *activation {
            Activation::Relu => (1, 0.0, 0.0),
            Activation::PRelu(_) => (2, 0.0, 0.0),
            Activation::LeakyRelu(slope) => (3, slope, 0.0),
            Activation::Sigmoid => (4, 0.0, 0.0),
            Activation::Clip { min, max } => (5, min, max),
            Activation::HardSigmoid { alpha, beta } => (6, alpha, beta),
            Activation::HardSwish => (7, 0.0, 0.0),
            Activation::Tanh => (8, 0.0, 0.0),
            Activation::Exp => (9, 0.0, 0.0),
            Activation::Sqrt => (10, 0.0, 0.0),
            Activation::Abs => (11, 0.0, 0.0),
        };
        Self { kind, a, b, slopes }
    }
}

/// `curve(sum × scale + shift + residual)`.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct FinishPlan {
    pub(in crate::cuda) scale: Option<Repeated>,
    pub(in crate::cuda) shift: Option<Repeated>,
    pub(in crate::cuda) curve: CurvePlan,
}

impl FinishPlan {
    /// The sum itself.
    pub(in crate::cuda) const NONE: Self =
        Self { scale: None, shift: None, curve: CurvePlan::NONE };

    pub(super) fn argument(
        &self,
        context: &LaunchContext<'_>,
        residual: Address,
    ) -> arguments::Finish {
        let CurvePlan { kind, a, b, slopes } = self.curve;
        let slopes = Repeated::argument(slopes, context);
        arguments::Finish {
            scale: Repeated::argument(self.scale, context),
            shift: Repeated::argument(self.shift, context),
            residual,
            curve: arguments::Curve { slopes, kind, a, b },
        }
    }
}

/// A function of each element of one value.
pub(in crate::cuda) struct Elements {
    kernel: Kernel,
    finish: FinishPlan,
    len: usize,
}

impl Elements {
    /// Of rows of `len` elements.
    pub(in crate::cuda) fn new(finish: FinishPlan, len: usize, element_type: ElementType) -> Self {
        Self { kernel: Kernel::packed("elements", element_type, len), finish, len }
    }

    /// Enqueues it from `x` to `y`, which may be the same, with a residual or null.
    pub(super) fn enqueue_at(
        &self,
        context: &LaunchContext<'_>,
        [x, residual, y]: [Address; 3],
    ) -> Result<(), GpuError> {
        let count = context.count(self.len);
        let finish = self.finish.argument(context, residual);
        let arguments = arguments::Elements { y, x, finish, count };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }
}

impl Work for Elements {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        self.enqueue_at(context, [context.x[0], 0, context.y])
    }
}

/// A function of two values that broadcast; the result lies without gaps.
pub(in crate::cuda) struct Binary {
    kernel: Kernel,
    op: BinaryOp,
    pair: StridedPair,
}

impl Binary {
    pub(in crate::cuda) fn new(op: BinaryOp, pair: StridedPair, element_type: ElementType) -> Self {
        Self { kernel: Kernel::single("binary", element_type), op, pair }
    }
}

impl Work for Binary {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.pair.len());
        let kind = match self.op {
            BinaryOp::Add => 0,
            BinaryOp::Sub => 1,
            BinaryOp::Mul => 2,
            BinaryOp::Div => 3,
        };
        let axes = self.pair.argument(context.batch as u32);
        let [a, b] = [context.x[0], context.x[1]];
        let arguments = arguments::Binary { y: context.y, a, b, axes, kind, count };
        context.gpu.launch(&self.kernel.name, count, &arguments)
    }
}
