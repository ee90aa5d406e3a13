//! Convolutions in cuDNN: images with their channels last, sums in 32-bit floats, and the bias and
//! a ReLU fused into the convolution.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::result::{self, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::arguments::Address;
use super::element_type::ElementType;
use crate::Precision;

/// Most scratch memory that an algorithm may use. The fastest algorithms for images of faces use a
/// few MiB.
pub(super) const WORKSPACE_BYTES_MAX: usize = 64 << 20;

/// Algorithms that cuDNN is asked to list; it has eight.
const ALGORITHMS_MAX: usize = 8;

/// A cuDNN handle for one stream.
pub(super) struct Cudnn {
    handle: sys::cudnnHandle_t,
    /// Keeps the stream alive as long as the handle.
    _stream: Arc<CudaStream>,
}

// SAFETY: a cuDNN handle may be used from any thread, by one thread at a time. This one is behind a
// lock.
unsafe impl Send for Cudnn {}

/// A convolution for one batch size. All tensors have their channels last in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvolutionShape {
    pub(super) precision: Precision,
    /// Batch, channels, height, width.
    pub(super) x: [usize; 4],
    /// Output channels, channels of a group, height, width.
    pub(super) weight: [usize; 4],
    pub(super) y: [usize; 4],
    /// Rows added above and below, and columns added left and right.
    pub(super) pads: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    pub(super) groups: usize,
}

/// The epilogue that cuDNN fuses into a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FusedEpilogue {
    /// Nothing is fused: another kernel computes the epilogue.
    None,
    /// `max(sum + bias + residual, 0)`.
    Relu,
}

/// A convolution that is ready to run: its descriptors, and the algorithm chosen for them.
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

// SAFETY: descriptors are only read after they were set.
unsafe impl Send for PreparedConvolution {}
// SAFETY: as for `Send`.
unsafe impl Sync for PreparedConvolution {}

/// Addresses that a convolution reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvolutionAddresses {
    pub(super) x: Address,
    pub(super) weight: Address,
    /// Read by [`FusedEpilogue::Relu`] only.
    pub(super) bias: Address,
    /// Null if there is none. Read by [`FusedEpilogue::Relu`] only.
    pub(super) residual: Address,
    pub(super) y: Address,
    pub(super) workspace: Address,
}

/// True if the error means that cuDNN does not support the call, rather than that the call failed.
/// In version 9, errors from 2000 are wrong parameters and errors from 3000 are unsupported calls.
pub(super) fn is_refusal(error: CudnnError) -> bool {
    matches!(error.0 as u32, 2000..4000)
}

impl Cudnn {
    pub(super) fn open(stream: &Arc<CudaStream>) -> Result<Self, CudnnError> {
        let handle = result::create_handle()?;
        let cudnn = Self { handle, _stream: Arc::clone(stream) };
        // SAFETY: the handle and the stream are alive, and `cudnn` alone owns the handle.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }?;
        Ok(cudnn)
    }

    /// Prepares a convolution with the first usable algorithm of cuDNN's heuristic. Unlike a
    /// measurement, the heuristic gives the same answer after every start. If no algorithm is
    /// usable, the error is a refusal.
    pub(super) fn prepare(
        &self,
        shape: &ConvolutionShape,
        epilogue: FusedEpilogue,
    ) -> Result<PreparedConvolution, CudnnError> {
        let mut convolution = PreparedConvolution::create_descriptors(shape, epilogue)?;
        // SAFETY: the structure holds plain numbers, for which zero bytes are valid.
        let mut found: [sys::cudnnConvolutionFwdAlgoPerf_t; ALGORITHMS_MAX] =
            unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: the descriptors are set, and `found` has room for `ALGORITHMS_MAX` results.
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
                && (may_round || !rounds_operands(found.mathType))
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
        // SAFETY: the plan's addresses hold tensors as the descriptors state, and cuDNN reads the
        // scalars before it returns.
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
        // SAFETY: nothing else uses this handle. On a lost device the handle cannot be destroyed,
        // but the memory that it held is lost with the device.
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
        // SAFETY: `self` owns all descriptors.
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

/// Returns the math type that uses tensor cores if the precision may round operands. cuDNN's
/// default math type lets tensor cores round 32-bit floats to TF32. `Bf16` is refused before this
/// call.
fn math_type(precision: Precision) -> sys::cudnnMathType_t {
    match precision {
        Precision::F16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        Precision::Tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        Precision::F32 | Precision::Bf16 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
    }
}

/// True if an algorithm multiplies on tensor cores, which round 32-bit floats. An algorithm with
/// the default math type does not: the descriptor asks for plain multiplications.
fn rounds_operands(math: sys::cudnnMathType_t) -> bool {
    use sys::cudnnMathType_t as Math;
    matches!(math, Math::CUDNN_TENSOR_OP_MATH | Math::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION)
}

impl Drop for PreparedConvolution {
    fn drop(&mut self) {
        // SAFETY: nothing else uses these descriptors, which are memory of the host.
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
