//! Detects the errors after which a GPU cannot be used.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError};

use crate::device::{DeviceError, Loss};
use crate::engine::cuda::GpuError;

/// Errors after which every call on the context fails (CUDA driver API, "Error handling"): the
/// context, if not the device, is lost.
const STICKY: [CUresult; 17] = [
    CUresult::CUDA_ERROR_DEINITIALIZED,
    CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUresult::CUDA_ERROR_NO_DEVICE,
    CUresult::CUDA_ERROR_INVALID_CONTEXT,
    CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
    CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    CUresult::CUDA_ERROR_ASSERT,
    CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
    CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUresult::CUDA_ERROR_INVALID_PC,
    CUresult::CUDA_ERROR_LAUNCH_FAILED,
    CUresult::CUDA_ERROR_UNKNOWN,
];

/// Tells losses of one GPU from its other errors.
pub(super) struct LossDetector {
    number: usize,
    context: Arc<CudaContext>,
}

impl LossDetector {
    pub(super) fn new(number: usize, context: Arc<CudaContext>) -> Self {
        Self { number, context }
    }

    /// Returns whether the context is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.context.synchronize().is_err_and(|error| is_sticky(&error))
    }

    /// Returns the loss behind an error, or `None` for any other error. A library that fails does
    /// not give the driver's error, so the driver is asked.
    pub(super) fn loss(&self, error: &GpuError) -> Option<DeviceError> {
        let sticky = match error {
            GpuError::Driver(error) => is_sticky(error).then_some(*error),
            GpuError::Blas(_) | GpuError::Dnn(_) | GpuError::Candle(_) => {
                self.context.synchronize().err().filter(is_sticky)
            }
            GpuError::Memory { .. } | GpuError::BatchTooLarge { .. } => None,
        }?;
        let device = format!("cuda:{}", self.number);
        Some(DeviceError::Lost(Loss { device, source: Arc::new(GpuError::Driver(sticky)) }))
    }
}

fn is_sticky(error: &DriverError) -> bool {
    STICKY.contains(&error.0)
}
