//! An open GPU with its kernels and libraries, all on one stream.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::cublas::{self, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError,
    LaunchConfig, PushKernelArg, result, sys,
};
use parking_lot::Mutex;

use super::arguments::Address;
use super::cudnn::Cudnn;
use super::element_type::ElementType;
use super::lazy;
use crate::Precision;

/// The kernels as PTX, which the driver translates for its GPU.
const MODULES: [&str; 4] = [
    include_str!(concat!(env!("OUT_DIR"), "/elements.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/pictures.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/reductions.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/windows.ptx")),
];

/// The kernels of each module, in the order of [`MODULES`]. Each kernel exists for both types of
/// floats.
const KERNELS: [&[&str]; 4] = [
    &["elementwise", "copy", "binary", "fill"],
    &["pictures"],
    &["reduce", "reduce_block", "softmax", "softmax_block"],
    &["depthwise", "patches", "border", "pool", "resize"],
];

/// Kernels that also exist in a version for packs of channels.
const PACKED_KERNELS: [&str; 6] =
    ["elementwise", "depthwise", "patches", "border", "pool", "resize"];

/// Kernels that convert between the two types.
const CONVERSION_KERNELS: [&str; 2] = ["copy_f32_f16", "copy_f16_f32"];

/// Threads of a block. Every GPU since 2018 can run a block of this size, however many registers
/// the kernel uses. `reductions.cu` relies on this number.
const BLOCK_THREADS: u32 = 256;

/// Scratch memory for matrix products, so that cuBLAS allocates none. NVIDIA recommends this size
/// for its largest GPUs.
const BLAS_WORKSPACE_BYTES: usize = 32 << 20;

/// An error on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The driver refused a call.
    #[error("the CUDA driver reports {0}")]
    Driver(#[from] DriverError),
    /// cuBLAS refused a matrix product.
    #[error("cuBLAS reports {0}")]
    Blas(#[from] cublas::result::CublasError),
    /// cuDNN refused a convolution.
    #[error("cuDNN reports {0}")]
    Dnn(#[from] candle_core::cuda_backend::cudarc::cudnn::result::CudnnError),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The network does not fit in the GPU's memory.
    #[error("{needed_mib} MiB of GPU memory are needed, {free_mib} MiB are free")]
    Memory {
        /// MiB for weights, values and scratch memory.
        needed_mib: usize,
        /// MiB that [`free_bytes`] returned.
        free_mib: usize,
    },
    /// One value of the batch has more elements than kernels can count.
    #[error("a batch of {items} items has a value of more than {max} elements")]
    BatchTooLarge {
        /// Items of the batch.
        items: usize,
        /// The most elements.
        max: u32,
    },
}

/// An open GPU with its kernels and libraries, which are loaded once.
pub struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    functions: HashMap<String, CudaFunction>,
    blas: Arc<cublas::CudaBlas>,
    /// Used by cuBLAS as long as the handle lives.
    _blas_workspace: CudaSlice<u8>,
    cudnn: Option<Mutex<Cudnn>>,
}

/// One call of cuBLAS: a product of row-major matrices, `y[m, n] = x[m, k] × weightᵀ[k, n]`, for
/// each of `groups` groups. The groups of `x` and of `y` are neighbouring columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct GemmCall {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) x: Address,
    pub(super) weight: Address,
    pub(super) y: Address,
    /// Elements from one row of `x` to the next.
    pub(super) x_row_stride: usize,
    /// Elements from one row of `y` to the next.
    pub(super) y_row_stride: usize,
    pub(super) groups: usize,
}

impl Gpu {
    /// Loads kernels and libraries onto an open device.
    ///
    /// # Errors
    /// The driver cannot translate a kernel, or a library does not start.
    pub fn load(device: &CudaDevice) -> Result<Self, GpuError> {
        let stream = device.cuda_stream();
        let mut functions = HashMap::new();
        for (module, kernels) in MODULES.iter().zip(KERNELS) {
            let module = stream.context().load_module((*module).into())?;
            for name in kernels.iter().flat_map(|kernel| kernel_names(kernel)) {
                functions.insert(name.clone(), module.load_function(&name)?);
            }
        }
        let cudnn = match lazy::missing(lazy::Library::CuDnn) {
            None => Some(Mutex::new(Cudnn::open(&stream)?)),
            Some(_) => None,
        };
        let blas = device.cublas_handle();
        let workspace = stream.alloc_zeros::<u8>(BLAS_WORKSPACE_BYTES)?;
        let address = workspace.device_ptr(&stream).0 as *mut c_void;
        // SAFETY: the workspace lives as long as this GPU, which alone uses the handle.
        unsafe { blas::cublasSetWorkspace_v2(*blas.handle(), address, BLAS_WORKSPACE_BYTES) }
            .result()?;
        // Without this mode, cuBLAS may add partial sums of 16-bit products in 16 bits.
        let math_mode = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: the handle is this device's own.
        unsafe { blas::cublasSetMathMode(*blas.handle(), math_mode) }.result()?;
        let device = device.clone();
        Ok(Self { device, stream, functions, blas, _blas_workspace: workspace, cudnn })
    }

    #[cfg(test)]
    pub(super) fn without_cudnn(self) -> Self {
        Self { cudnn: None, ..self }
    }

    /// Returns candle's device, whose stream runs all work.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Returns the stream that runs all work.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// True if convolutions run in cuDNN. Otherwise they are products of patches in cuBLAS.
    pub fn has_cudnn(&self) -> bool {
        self.cudnn.is_some()
    }

    pub(super) fn cudnn(&self) -> Option<&Mutex<Cudnn>> {
        self.cudnn.as_ref()
    }

    /// Enqueues `kernel` with at least `threads` threads, one for each element or pack.
    pub(super) fn launch<A: DeviceRepr>(
        &self,
        kernel: &str,
        threads: u32,
        arguments: &A,
    ) -> Result<(), GpuError> {
        self.launch_blocks(kernel, threads.div_ceil(BLOCK_THREADS), arguments)
    }

    /// Enqueues `kernel` with `blocks` blocks.
    pub(super) fn launch_blocks<A: DeviceRepr>(
        &self,
        kernel: &str,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), GpuError> {
        if blocks == 0 {
            return Ok(());
        }
        let function = self.functions.get(kernel).expect("every kernel was loaded");
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (BLOCK_THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(function);
        launch.arg(arguments);
        // SAFETY: `arguments` is the structure that the kernel expects, and the plan keeps every
        // address in it within its allocation.
        unsafe { launch.launch(config) }?;
        Ok(())
    }

    /// Enqueues a matrix product in the precision of the network. Sums are 32-bit floats.
    pub(super) fn multiply(&self, precision: Precision, product: GemmCall) -> Result<(), GpuError> {
        let data_type = match ElementType::of(precision) {
            ElementType::F16 => blas::cudaDataType::CUDA_R_16F,
            ElementType::F32 => blas::cudaDataType::CUDA_R_32F,
        };
        let compute = match precision {
            Precision::Tf32 => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let GemmCall { m, n, k, x, weight, y, x_row_stride, y_row_stride, groups } = product;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // cuBLAS matrices are column-major, so the call computes yᵀ = weight × xᵀ.
        // SAFETY: the plan's addresses hold matrices of these sizes, and cuBLAS reads the scalars
        // before it returns.
        unsafe {
            cublas::result::gemm_strided_batched_ex(
                *self.blas.handle(),
                blas::cublasOperation_t::CUBLAS_OP_T,
                blas::cublasOperation_t::CUBLAS_OP_N,
                n as i32,
                m as i32,
                k as i32,
                (&raw const one).cast(),
                weight as *const c_void,
                data_type,
                k as i32,
                (n * k) as i64,
                x as *const c_void,
                data_type,
                x_row_stride as i32,
                k as i64,
                (&raw const zero).cast(),
                y as *mut c_void,
                data_type,
                y_row_stride as i32,
                n as i64,
                groups as i32,
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }?;
        Ok(())
    }
}

/// Returns the bytes of GPU memory that this process can still allocate: the free memory of the
/// device, and the freed memory that the process's pool keeps.
///
/// # Errors
/// The driver refuses a call.
pub fn free_bytes(context: &CudaContext) -> Result<usize, DriverError> {
    use sys::CUmemPool_attribute as Attribute;
    let (free, _) = context.mem_get_info()?;
    // SAFETY: the device is the context's own.
    let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }?;
    let read_attribute = |attribute| -> Result<usize, DriverError> {
        let mut bytes = 0_u64;
        // SAFETY: both attributes have 64 bits.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }?;
        Ok(bytes as usize)
    };
    let reserved = read_attribute(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = read_attribute(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok(free + reserved.saturating_sub(used))
}

/// Returns the names of all versions of a kernel.
fn kernel_names(kernel: &str) -> Vec<String> {
    let mut names = vec![format!("{kernel}_f32"), format!("{kernel}_f16")];
    if PACKED_KERNELS.contains(&kernel) {
        names.extend([format!("{kernel}_f32_packed"), format!("{kernel}_f16_packed")]);
    }
    if kernel == "copy" {
        names.extend(CONVERSION_KERNELS.map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_threads_that_the_kernels_expect() {
        let kernels = include_str!("kernels/reductions.cu");
        assert!(kernels.contains(&format!("constexpr unsigned BLOCK_THREADS = {BLOCK_THREADS};")));
    }
}
