//! An open GPU as networks see it: its kernels and libraries, all on one stream.

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

/// The compiled kernels, for the driver to translate for its GPU.
const MODULES: [&str; 4] = [
    include_str!(concat!(env!("OUT_DIR"), "/elements.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/pictures.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/reductions.ptx")),
    include_str!(concat!(env!("OUT_DIR"), "/windows.ptx")),
];

/// Every kernel, in the order of [`MODULES`]; each exists for both kinds of floats.
const KERNELS: [&[&str]; 4] = [
    &["elementwise", "copy", "binary", "fill"],
    &["pictures"],
    &["reduce", "reduce_block", "softmax", "softmax_block"],
    &["depthwise", "patches", "border", "pool", "resize"],
];

/// Kernels that also exist for packs of channels.
const PACKED_KERNELS: [&str; 6] =
    ["elementwise", "depthwise", "patches", "border", "pool", "resize"];

/// Kernels between the two kinds.
const CONVERSION_KERNELS: [&str; 2] = ["copy_f32_f16", "copy_f16_f32"];

/// Threads of a block: enough of them on every GPU since 2018, whatever registers a kernel takes.
/// `reductions.cu` counts on it.
const BLOCK_THREADS: u32 = 256;

/// Scratch memory for matrix products, so that cuBLAS allocates none: what NVIDIA recommends for
/// its largest GPUs.
const BLAS_WORKSPACE_BYTES: usize = 32 << 20;

/// What can go wrong on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The driver refuses.
    #[error("the CUDA driver says {0}")]
    Driver(#[from] DriverError),
    /// A matrix product is refused.
    #[error("cuBLAS says {0}")]
    Blas(#[from] cublas::result::CublasError),
    /// A convolution is refused.
    #[error("cuDNN says {0}")]
    Dnn(#[from] candle_core::cuda_backend::cudarc::cudnn::result::CudnnError),
    /// candle's part fails.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The network does not fit.
    #[error("{needed_mib} MiB of GPU memory are needed, {free_mib} MiB are free")]
    Memory {
        /// For weights, values and scratch memory.
        needed_mib: usize,
        /// What [`free_bytes`] says.
        free_mib: usize,
    },
    /// More numbers in one value than kernels count.
    #[error("a batch of {items} items has a value of more than {max} numbers")]
    BatchTooLarge {
        /// Items of the batch.
        items: usize,
        /// The most numbers.
        max: u32,
    },
}

/// A GPU with everything that is loaded once.
pub struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    functions: HashMap<String, CudaFunction>,
    blas: Arc<cublas::CudaBlas>,
    /// Held by the library.
    _blas_workspace: CudaSlice<u8>,
    cudnn: Option<Mutex<Cudnn>>,
}

/// A row-major product `y[m, n] = x[m, k] × weightᵀ[k, n]`, with steps between rows and groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatrixProduct {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) x: Address,
    pub(super) weight: Address,
    pub(super) y: Address,
    /// Between rows of `x` and of `y`.
    pub(super) x_row_stride: usize,
    pub(super) y_row_stride: usize,
    pub(super) groups: usize,
}

impl Gpu {
    /// Loads kernels and libraries onto an open device.
    ///
    /// # Errors
    /// Kernels that the driver cannot translate, or libraries that do not start.
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
        // SAFETY: the workspace lives as long as this GPU, and so does the handle's use.
        unsafe { blas::cublasSetWorkspace_v2(*blas.handle(), address, BLAS_WORKSPACE_BYTES) }
            .result()?;
        // Else it may add up parts of a product of 16-bit floats in 16 bits.
        let sums = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: the handle is this device's own.
        unsafe { blas::cublasSetMathMode(*blas.handle(), sums) }.result()?;
        let device = device.clone();
        Ok(Self { device, stream, functions, blas, _blas_workspace: workspace, cudnn })
    }

    /// The same GPU as if cuDNN were not there.
    #[cfg(test)]
    pub(super) fn without_cudnn(self) -> Self {
        Self { cudnn: None, ..self }
    }

    /// candle's device, on whose stream everything runs.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// The stream everything runs on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Whether convolutions run in cuDNN; else each is cut into patches and multiplied by cuBLAS.
    pub fn has_cudnn(&self) -> bool {
        self.cudnn.is_some()
    }

    pub(super) fn cudnn(&self) -> Option<&Mutex<Cudnn>> {
        self.cudnn.as_ref()
    }

    /// Runs `kernel` on as many threads as there are elements or packs.
    pub(super) fn launch<A: DeviceRepr>(
        &self,
        kernel: &str,
        threads: u32,
        arguments: &A,
    ) -> Result<(), GpuError> {
        self.launch_blocks(kernel, threads.div_ceil(BLOCK_THREADS), arguments)
    }

    /// Runs `kernel` on as many blocks.
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
        // SAFETY: the arguments are of the kernel's own structure; the plan keeps every address
        // that stands in them within its allocation.
        unsafe { launch.launch(config) }?;
        Ok(())
    }

    /// Multiplies in the precision of the network; sums are 32-bit floats.
    pub(super) fn multiply(
        &self,
        precision: Precision,
        product: MatrixProduct,
    ) -> Result<(), GpuError> {
        let kind = match ElementType::of(precision) {
            ElementType::F16 => blas::cudaDataType::CUDA_R_16F,
            ElementType::F32 => blas::cudaDataType::CUDA_R_32F,
        };
        let compute = match precision {
            Precision::Tf32 => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let MatrixProduct { m, n, k, x, weight, y, x_row_stride, y_row_stride, groups } = product;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // cuBLAS counts columns first, so it is asked for yᵀ = weight × xᵀ.
        // SAFETY: the plan's addresses hold the sizes stated; scalars are read before the return.
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
                kind,
                k as i32,
                (n * k) as i64,
                x as *const c_void,
                kind,
                x_row_stride as i32,
                k as i64,
                (&raw const zero).cast(),
                y as *mut c_void,
                kind,
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

/// Bytes that this process can have: what nobody has taken, and what its memory pool keeps of what
/// was freed.
///
/// # Errors
/// What the driver refuses.
pub fn free_bytes(context: &CudaContext) -> Result<usize, DriverError> {
    use sys::CUmemPool_attribute as Attribute;
    let (free, _) = context.mem_get_info()?;
    // SAFETY: the device is the context's own.
    let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }?;
    let read_attribute = |attribute| -> Result<usize, DriverError> {
        let mut bytes = 0_u64;
        // SAFETY: the attributes asked for have 64 bits.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }?;
        Ok(bytes as usize)
    };
    let reserved = read_attribute(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = read_attribute(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok(free + reserved.saturating_sub(used))
}

/// The names under which a kernel exists.
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
