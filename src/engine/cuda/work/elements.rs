//! Functions of each element of one value, and functions of two values.

use super::Kernel;
use crate::constant::Constant;
use crate::cuda::arguments::{
    ActivationArgument, Address, BinaryArguments, ElementwiseArguments, EpilogueArgument, Periodic,
};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::GpuError;
use crate::cuda::layout::{StridedPair, ValueLayout};
use crate::cuda::plan::{ConstantOffset, Constants, LaunchContext, Work};
use crate::op::{Activation, BinaryOp};
use crate::shape::{broadcast_strides, element_count, offsets};

/// Constants that repeat over the elements of a value: element `i` has the number `i % period`.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct PeriodicConstant {
    offset: ConstantOffset,
    period: u32,
}

impl PeriodicConstant {
    /// Adds numbers that repeat over the elements of a value.
    pub(in crate::cuda) fn repeating(constants: &mut Constants, numbers: &[f32]) -> Self {
        Self { offset: constants.add_f32(numbers), period: numbers.len() as u32 }
    }

    /// Adds a constant that broadcasts to items of `shape`, in the layout of the value.
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
            ValueLayout::Flat => shape.len() - 1,
        };
        if varies_only_along(innermost) && (data.len() == 1 || data.len() == shape[innermost]) {
            return Self::repeating(constants, data);
        }
        let mut numbers = vec![0.0; element_count(shape)];
        let from = offsets(shape, &broadcast_strides(constant.shape(), shape));
        for (from, to) in from.zip(offsets(shape, &layout.strides(shape))) {
            numbers[to] = data[from];
        }
        Self::repeating(constants, &numbers)
    }

    fn argument(constant: Option<Self>, context: &LaunchContext<'_>) -> Periodic {
        match constant {
            None => Periodic::NONE,
            Some(Self { offset, period }) => Periodic { numbers: context.constant(offset), period },
        }
    }
}

/// A function of one number, such as an activation.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct ActivationPlan {
    kind: i32,
    a: f32,
    b: f32,
    slopes: Option<PeriodicConstant>,
}

impl ActivationPlan {
    /// Leaves each number unchanged.
    pub(in crate::cuda) const NONE: Self = Self { kind: 0, a: 0.0, b: 0.0, slopes: None };

    /// Returns the plan of an activation. `kernels/common.cuh` uses the same numbers of kinds.
    /// `slopes` are the slopes of a `PRelu`.
    pub(in crate::cuda) fn of(activation: &Activation, slopes: Option<PeriodicConstant>) -> Self {
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

/// `activation(sum × scale + shift + residual)`.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct EpiloguePlan {
    pub(in crate::cuda) scale: Option<PeriodicConstant>,
    pub(in crate::cuda) shift: Option<PeriodicConstant>,
    pub(in crate::cuda) activation: ActivationPlan,
}

impl EpiloguePlan {
    /// Leaves the sum unchanged.
    pub(in crate::cuda) const NONE: Self =
        Self { scale: None, shift: None, activation: ActivationPlan::NONE };

    pub(super) fn argument(
        &self,
        context: &LaunchContext<'_>,
        residual: Address,
    ) -> EpilogueArgument {
        let ActivationPlan { kind, a, b, slopes } = self.activation;
        let slopes = PeriodicConstant::argument(slopes, context);
        EpilogueArgument {
            scale: PeriodicConstant::argument(self.scale, context),
            shift: PeriodicConstant::argument(self.shift, context),
            residual,
            activation: ActivationArgument { slopes, kind, a, b },
        }
    }
}

/// An epilogue applied to each element of one value.
pub(in crate::cuda) struct Elementwise {
    kernel: Kernel,
    epilogue: EpiloguePlan,
    len: usize,
}

impl Elementwise {
    /// Plans the epilogue for items of `len` elements.
    pub(in crate::cuda) fn new(
        epilogue: EpiloguePlan,
        len: usize,
        element_type: ElementType,
    ) -> Self {
        Self { kernel: Kernel::packed("elementwise", element_type, len), epilogue, len }
    }

    /// Enqueues the epilogue from `x` to `y`, which may be equal. `residual` may be null.
    pub(super) fn enqueue_at(
        &self,
        context: &LaunchContext<'_>,
        [x, residual, y]: [Address; 3],
    ) -> Result<(), GpuError> {
        let count = context.count(self.len);
        let epilogue = self.epilogue.argument(context, residual);
        let arguments = ElementwiseArguments { y, x, epilogue, count };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }
}

impl Work for Elementwise {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        self.enqueue_at(context, [context.x[0], 0, context.y])
    }
}

/// A function of two values that broadcast. The result has no gaps.
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
        let axes = self.pair.argument(context.items as u32);
        let [a, b] = [context.x[0], context.x[1]];
        let arguments = BinaryArguments { y: context.y, a, b, axes, kind, count };
        context.gpu.launch(&self.kernel.name, count, &arguments)
    }
}
