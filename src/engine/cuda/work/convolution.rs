//! Convolutions and matrix products.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use super::elements::Elementwise;
use super::{Border, EpiloguePlan, Kernel, WindowPlan};
use crate::Precision;
use crate::cuda::arguments::{Address, DepthwiseArguments, PatchesArguments};
use crate::cuda::cudnn::{
    ConvolutionAddresses, ConvolutionShape, Cudnn, FusedEpilogue, PreparedConvolution, is_refusal,
};
use crate::cuda::element_type::ElementType;
use crate::cuda::gpu::{GemmCall, Gpu, GpuError};
use crate::cuda::plan::{ConstantOffset, LaunchContext, Work};

/// Most bytes of patches in memory at a time, without cuDNN or where it refuses: more patches would
/// not stay in the cache.
const PATCHES_BYTES_MAX: usize = 32 << 20;

/// A convolution whose groups have one input channel each. Unlike in `Conv::is_depthwise`, a group
/// may have several output channels.
pub(in crate::cuda) struct Depthwise {
    kernel: Kernel,
    weight: ConstantOffset,
    border_values: Option<ConstantOffset>,
    epilogue: EpiloguePlan,
    /// Its channels are the output channels.
    window_plan: WindowPlan,
    multiplier: usize,
}

impl Depthwise {
    /// The channels of `window_plan` are the output channels. `multiplier` output channels read the
    /// same input channel.
    pub(in crate::cuda) fn new(
        window_plan: WindowPlan,
        multiplier: usize,
        weight: ConstantOffset,
        border_values: Option<ConstantOffset>,
        epilogue: EpiloguePlan,
        element_type: ElementType,
    ) -> Self {
        let kernel = match multiplier {
            1 => Kernel::packed("depthwise", element_type, window_plan.channels),
            _ => Kernel::single("depthwise", element_type),
        };
        Self { kernel, weight, border_values, epilogue, window_plan, multiplier }
    }
}

impl Work for Depthwise {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let count = context.count(self.window_plan.output_len());
        let arguments = DepthwiseArguments {
            y: context.y,
            x: context.x[0],
            weight: context.constant(self.weight),
            border_values: context.optional_constant(self.border_values),
            epilogue: self.epilogue.argument(context, context.residual()),
            window: self.window_plan.argument(),
            multiplier: self.multiplier as u32,
            count,
        };
        context.gpu.launch(&self.kernel.name, self.kernel.threads(count), &arguments)
    }
}

/// A product `x × weightᵀ` of vectors, or of the pixels of an image.
pub(in crate::cuda) struct MatrixProduct {
    weight: ConstantOffset,
    /// `None` if there is nothing to do after the product.
    epilogue: Option<Elementwise>,
    precision: Precision,
    /// Vectors of one item.
    vectors: usize,
    /// Lengths of the output and the input vectors.
    sizes: [usize; 2],
}

impl MatrixProduct {
    pub(in crate::cuda) fn new(
        weight: ConstantOffset,
        epilogue: Option<Elementwise>,
        vectors: usize,
        sizes: [usize; 2],
        precision: Precision,
    ) -> Self {
        Self { weight, epilogue, precision, vectors, sizes }
    }
}

impl Work for MatrixProduct {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let [n, k] = self.sizes;
        let product = GemmCall {
            m: context.items * self.vectors,
            n,
            k,
            x: context.x[0],
            weight: context.constant(self.weight),
            y: context.y,
            x_row_stride: k,
            y_row_stride: n,
            groups: 1,
        };
        context.gpu.multiply(self.precision, product)?;
        enqueue_epilogue(self.epilogue.as_ref(), context)
    }
}

/// Enqueues an epilogue in place on the step's output, with the step's residual.
fn enqueue_epilogue(
    epilogue: Option<&Elementwise>,
    context: &LaunchContext<'_>,
) -> Result<(), GpuError> {
    let addresses = [context.y, context.residual(), context.y];
    epilogue.map_or(Ok(()), |epilogue| epilogue.enqueue_at(context, addresses))
}

/// A convolution that neither [`Depthwise`] nor [`MatrixProduct`] computes. Without cuDNN, or where
/// cuDNN refuses it, it is a product of patches.
pub(in crate::cuda) struct CudnnConvolution {
    /// `[out channels, kernel height, kernel width, channels of a group]`.
    pub(in crate::cuda) weight: ConstantOffset,
    /// In the type of the values, if cuDNN fuses the epilogue.
    pub(in crate::cuda) bias: Option<ConstantOffset>,
    pub(in crate::cuda) border_values: Option<ConstantOffset>,
    pub(in crate::cuda) fused: FusedEpilogue,
    /// The whole epilogue, for a kernel of its own where cuDNN does not fuse it.
    pub(in crate::cuda) epilogue: Option<Elementwise>,
    pub(in crate::cuda) window_plan: WindowPlan,
    pub(in crate::cuda) out_channels: usize,
    pub(in crate::cuda) groups: usize,
    pub(in crate::cuda) precision: Precision,
    /// Convolution prepared for cuDNN, per batch size; `None` if cuDNN refused it.
    pub(in crate::cuda) prepared: Mutex<HashMap<usize, Option<PreparedConvolution>>>,
}

impl CudnnConvolution {
    /// Returns the step that adds the border to the image, if cuDNN does not support such a border.
    fn explicit_border(&self) -> Option<Border> {
        let [top, left, bottom, right] = self.window_plan.window.pads;
        let is_known_to_cudnn = self.border_values.is_none() && (top, left) == (bottom, right);
        let [height, width] = self.window_plan.input_size;
        let output_size = [height + top + bottom, width + left + right];
        let window_plan = WindowPlan { output_size, ..self.window_plan };
        (!is_known_to_cudnn)
            .then(|| Border::new(window_plan, self.border_values, 0.0, self.element_type()))
    }

    fn bordered_input_bytes(&self, items: usize) -> usize {
        let len = self.explicit_border().map_or(0, |border| border.len());
        (len * items * self.element_type().bytes()).next_multiple_of(256)
    }

    fn element_type(&self) -> ElementType {
        ElementType::of(self.precision)
    }

    fn shape(&self, items: usize) -> ConvolutionShape {
        let WindowPlan { channels, input_size, output_size, window, dilations } = self.window_plan;
        let [top, left, bottom, right] = window.pads;
        let [height, width] = input_size;
        let ([height, width], pads) = match self.explicit_border() {
            Some(_) => ([height + top + bottom, width + left + right], [0, 0]),
            None => ([height, width], [top, left]),
        };
        let [kernel_height, kernel_width] = window.kernel;
        ConvolutionShape {
            precision: self.precision,
            x: [items, channels, height, width],
            weight: [self.out_channels, channels / self.groups, kernel_height, kernel_width],
            y: [items, self.out_channels, output_size[0], output_size[1]],
            pads,
            strides: window.strides,
            dilations,
            groups: self.groups,
        }
    }

    /// Lets cuDNN choose an algorithm or refuse, and returns the bytes of scratch memory.
    fn prepare_in_cudnn(&self, cudnn: &Cudnn, items: usize) -> Result<usize, GpuError> {
        let mut prepared = self.prepared.lock();
        // A refusal is logged once for all batch sizes.
        let was_logged = prepared.values().any(Option::is_none);
        let shape = self.shape(items);
        let convolution = match prepared.entry(items) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match cudnn.prepare(&shape, self.fused) {
                Ok(convolution) => entry.insert(Some(convolution)),
                Err(error) if is_refusal(error) => {
                    if !was_logged {
                        tracing::info!(?shape, %error, "cuDNN refuses, cuBLAS multiplies patches");
                    }
                    entry.insert(None)
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(match convolution {
            Some(convolution) => self.bordered_input_bytes(items) + convolution.workspace_bytes(),
            None => self.patches_bytes(items),
        })
    }

    fn enqueue_in_cudnn(
        &self,
        cudnn: &Cudnn,
        convolution: &PreparedConvolution,
        context: &LaunchContext<'_>,
    ) -> Result<(), GpuError> {
        let mut x = context.x[0];
        if let Some(border) = self.explicit_border() {
            border.enqueue_at(context, x, context.workspace)?;
            x = context.workspace;
        }
        let addresses = ConvolutionAddresses {
            x,
            weight: context.constant(self.weight),
            bias: context.optional_constant(self.bias),
            residual: context.residual(),
            y: context.y,
            workspace: context.workspace + self.bordered_input_bytes(context.items) as Address,
        };
        cudnn.enqueue(convolution, addresses)?;
        match self.fused {
            FusedEpilogue::Relu => Ok(()),
            FusedEpilogue::None => enqueue_epilogue(self.epilogue.as_ref(), context),
        }
    }

    /// Returns the elements of one patch, of all groups.
    fn patch_len(&self) -> usize {
        let [height, width] = self.window_plan.window.kernel;
        height * width * self.window_plan.channels
    }

    /// Returns the output pixels whose patches are in memory at a time.
    fn chunk_pixels(&self, items: usize) -> usize {
        let fit = PATCHES_BYTES_MAX / (self.patch_len() * self.element_type().bytes());
        (items * self.window_plan.output_pixels()).min(fit.max(1))
    }

    fn patches_bytes(&self, items: usize) -> usize {
        self.chunk_pixels(items) * self.patch_len() * self.element_type().bytes()
    }

    fn enqueue_as_products(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let (k, pixels) = (self.patch_len(), context.items * self.window_plan.output_pixels());
        let chunk = self.chunk_pixels(context.items);
        let group_channels = self.window_plan.channels / self.groups;
        let kernel = Kernel::packed("patches", self.element_type(), group_channels);
        for first in (0..pixels).step_by(chunk) {
            let m = chunk.min(pixels - first);
            let count = (m * k) as u32;
            let patches = PatchesArguments {
                y: context.workspace,
                x: context.x[0],
                border_values: context.optional_constant(self.border_values),
                window: self.window_plan.argument(),
                groups: self.groups as u32,
                first_pixel: first as u32,
                count,
            };
            context.gpu.launch(&kernel.name, kernel.threads(count), &patches)?;
            let product = GemmCall {
                m,
                n: self.out_channels / self.groups,
                k: k / self.groups,
                x: context.workspace,
                weight: context.constant(self.weight),
                y: context.y + (first * self.out_channels * self.element_type().bytes()) as Address,
                x_row_stride: k,
                y_row_stride: self.out_channels,
                groups: self.groups,
            };
            context.gpu.multiply(self.precision, product)?;
        }
        enqueue_epilogue(self.epilogue.as_ref(), context)
    }
}

impl Work for CudnnConvolution {
    fn enqueue(&self, context: &LaunchContext<'_>) -> Result<(), GpuError> {
        let Some(cudnn) = context.gpu.cudnn() else { return self.enqueue_as_products(context) };
        let (cudnn, prepared) = (cudnn.lock(), self.prepared.lock());
        match prepared.get(&context.items).expect("batches are prepared before they run") {
            Some(convolution) => self.enqueue_in_cudnn(&cudnn, convolution, context),
            None => self.enqueue_as_products(context),
        }
    }

    fn prepare(&self, gpu: &Gpu, items: usize) -> Result<usize, GpuError> {
        match gpu.cudnn() {
            Some(cudnn) => self.prepare_in_cudnn(&cudnn.lock(), items),
            None => Ok(self.patches_bytes(items)),
        }
    }
}
