//! Convolutions in cuDNN: channels last, sums in 32-bit floats, the bias and a rectifier in the same
//! pass.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::result::{self, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::arguments::Address;
use super::element_type::ElementType;
use crate::Precision;

/// Most scratch memory an algorithm may take: the fastest ones for faces' sizes take a few MiB.
pub(super) const WORKSPACE_BYTES_MAX: usize = 64 << 20;

/// Algorithms asked for; cuDNN knows eight.
const ALGORITHMS_MAX: usize = 8;

/// The library on one stream.
pub(super) struct Cudnn {
    handle: sys::cudnnHandle_t,
    /// Outlives the handle.
    _stream: Arc<CudaStream>,
}

// SAFETY: cuDNN handles may be used from any thread, by one at a time; this one stands behind a
// lock.
unsafe impl Send for Cudnn {}

/// A convolution of one batch size, all in one order.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvolutionShape {
    pub(super) precision: Precision,
    /// Batch, channels, height, width.
    pub(super) x: [usize; 4],
    /// Output channels, channels of a group, height, width.
    pub(super) weight: [usize; 4],
    pub(super) y: [usize; 4],
    /// Height and width; the same on both sides.
    pub(super) pads: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    pub(super) groups: usize,
}

/// What a convolution ends with in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FusedEpilogue {
    /// Nothing: another kernel does the rest.
    None,
    /// `max(sum + bias + residual, 0)`.
    Relu,
}

/// A convolution ready to run: descriptors, and the algorithm chosen for them.
pub(super) struct PreparedConvolution {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    bias: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    activation: sys::cudnnActivationDescriptor_t,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    workspace_bytes: usize,
    epilogue: FusedEpilogue,
}

// SAFETY: descriptors are read only, after they were set.
unsafe impl Send for PreparedConvolution {}
// SAFETY: as above.
unsafe impl Sync for PreparedConvolution {}

/// Where a convolution reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvolutionAddresses {
    pub(super) x: Address,
    pub(super) weight: Address,
    /// Read by [`FusedEpilogue::Relu`] only.
    pub(super) bias: Address,
    /// Null for none; read by [`FusedEpilogue::Relu`] only.
    pub(super) residual: Address,
    pub(super) y: Address,
    pub(super) workspace: Address,
}

/// Whether cuDNN says that it does not do this, and not that it failed: version 9 counts wrong
/// parameters from 2000 and what it does not support from 3000.
pub(super) fn is_refusal(error: CudnnError) -> bool {
    matches!(error.0 as u32, 2000..4000)
}

impl Cudnn {
    pub(super) fn open(stream: &Arc<CudaStream>) -> Result<Self, CudnnError> {
        let handle = result::create_handle()?;
        let cudnn = Self { handle, _stream: Arc::clone(stream) };
        // SAFETY: both live; the handle is this one's own.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }?;
        Ok(cudnn)
    }

    /// Chooses the algorithm by cuDNN's own model, which is the same after every start; without one
    /// that may be taken it is a refusal.
    pub(super) fn prepare(
        &self,
        shape: &ConvolutionShape,
        epilogue: FusedEpilogue,
    ) -> Result<PreparedConvolution, CudnnError> {
        let mut convolution = PreparedConvolution::create_descriptors(shape, epilogue)?;
        // SAFETY: a structure of plain numbers.
        let mut found: [sys::cudnnConvolutionFwdAlgoPerf_t; ALGORITHMS_MAX] =
            unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: descriptors are set, and there is room for the results asked for.
        unsafe {
            result::get_convolution_forward_algorithm(
                self.handle,
                convolution.x,
                convolution.weight,
                convolution.convolution,
                convolution.y,
                ALGORITHMS_MAX as i32,
                &raw mut count,
                found.as_mut_ptr(),
            )
        }?;
        let may_round = shape.precision != Precision::F32;
        let usable = found[..count as usize].iter().find(|found| {
            found.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && found.memory <= WORKSPACE_BYTES_MAX
                && (may_round || !rounds_factors(found.mathType))
        });
        let not_supported = CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED);
        let chosen = usable.ok_or(not_supported)?;
        convolution.algorithm = chosen.algo;
        // SAFETY: as above.
        convolution.workspace_bytes = unsafe {
            result::get_convolution_forward_workspace_size(
                self.handle,
                convolution.x,
                convolution.weight,
                convolution.convolution,
                convolution.y,
                chosen.algo,
            )
        }?;
        Ok(convolution)
    }

    pub(super) fn enqueue(
        &self,
        convolution: &PreparedConvolution,
        addresses: ConvolutionAddresses,
    ) -> Result<(), CudnnError> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let (one, zero): (*const c_void, *const c_void) =
            ((&raw const one).cast(), (&raw const zero).cast());
        let c = convolution;
        let workspace = addresses.workspace as *mut c_void;
        let x = addresses.x as *const c_void;
        let weight = addresses.weight as *const c_void;
        let y = addresses.y as *mut c_void;
        // SAFETY: the plan's addresses hold what the descriptors state; scalars are read before the
        // return.
        unsafe {
            match c.epilogue {
                FusedEpilogue::None => result::convolution_forward(
                    self.handle,
                    one,
                    c.x,
                    x,
                    c.weight,
                    weight,
                    c.convolution,
                    c.algorithm,
                    workspace,
                    c.workspace_bytes,
                    zero,
                    c.y,
                    y,
                ),
                FusedEpilogue::Relu => {
                    let (residual_scale, residual) = match addresses.residual {
                        0 => (zero, y.cast_const()),
                        residual => (one, residual as *const c_void),
                    };
                    result::convolution_bias_activation_forward(
                        self.handle,
                        one,
                        c.x,
                        x,
                        c.weight,
                        weight,
                        c.convolution,
                        c.algorithm,
                        workspace,
                        c.workspace_bytes,
                        residual_scale,
                        c.y,
                        residual,
                        c.bias,
                        addresses.bias as *const c_void,
                        c.activation,
                        c.y,
                        y,
                    )
                }
            }
        }
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: nothing else has this handle. On a lost device it cannot be destroyed, and with
        // the device goes all it held.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl PreparedConvolution {
    pub(super) fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    fn create_descriptors(
        shape: &ConvolutionShape,
        epilogue: FusedEpilogue,
    ) -> Result<Self, CudnnError> {
        let convolution = Self {
            x: result::create_tensor_descriptor()?,
            y: result::create_tensor_descriptor()?,
            bias: result::create_tensor_descriptor()?,
            weight: result::create_filter_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
            activation: result::create_activation_descriptor()?,
            algorithm:
                sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            workspace_bytes: 0,
            epilogue,
        };
        convolution.set_descriptors(shape)?;
        Ok(convolution)
    }

    fn set_descriptors(&self, shape: &ConvolutionShape) -> Result<(), CudnnError> {
        let data_type = match ElementType::of(shape.precision) {
            ElementType::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            ElementType::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let dims = |dims: [usize; 4]| dims.map(|size| size as i32);
        let to_i32 = |pair: [usize; 2]| pair.map(|size| size as i32);
        let [pad_height, pad_width] = to_i32(shape.pads);
        let [stride_height, stride_width] = to_i32(shape.strides);
        let [dilation_height, dilation_width] = to_i32(shape.dilations);
        // SAFETY: all descriptors are this one's own.
        unsafe {
            result::set_tensor4d_descriptor(self.x, nhwc, data_type, dims(shape.x))?;
            result::set_tensor4d_descriptor(self.y, nhwc, data_type, dims(shape.y))?;
            result::set_tensor4d_descriptor(
                self.bias,
                nhwc,
                data_type,
                dims([1, shape.y[1], 1, 1]),
            )?;
            result::set_filter4d_descriptor(self.weight, data_type, nhwc, dims(shape.weight))?;
            result::set_convolution2d_descriptor(
                self.convolution,
                pad_height,
                pad_width,
                stride_height,
                stride_width,
                dilation_height,
                dilation_width,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )?;
            result::set_convolution_group_count(self.convolution, shape.groups as i32)?;
            result::set_convolution_math_type(self.convolution, math_type(shape.precision))?;
            result::set_activation_descriptor(
                self.activation,
                sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU,
                sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN,
                0.0,
            )
        }
    }
}

/// Tensor cores where factors may be rounded; what cuDNN calls its default lets them round 32-bit
/// floats to TF32. Bfloat16 does not come here.
fn math_type(precision: Precision) -> sys::cudnnMathType_t {
    match precision {
        Precision::F16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        Precision::Tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        Precision::F32 | Precision::Bf16 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
    }
}

/// Whether tensor cores multiply, which for 32-bit floats means fewer bits. What cuDNN calls its
/// default is bounded by the descriptor, which asks for plain multiplications.
fn rounds_factors(math: sys::cudnnMathType_t) -> bool {
    use sys::cudnnMathType_t as Math;
    matches!(math, Math::CUDNN_TENSOR_OP_MATH | Math::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION)
}

impl Drop for PreparedConvolution {
    fn drop(&mut self) {
        // SAFETY: nothing else has these descriptors, which are memory of the host.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_tensor_descriptor(self.bias);
            let _ = result::destroy_filter_descriptor(self.weight);
            let _ = result::destroy_convolution_descriptor(self.convolution);
            let _ = sys::cudnnDestroyActivationDescriptor(self.activation);
        }
    }
}
