//! Runs networks on NVIDIA GPUs by a plan.
//!
//! ```text
//! graph → lower (work, constants, layouts) → plan (memory) → steps on one stream
//! ```
//!
//! - `layout`: images are stored with their channels last, as tensor cores read them.
//! - `work`, `kernels/*.cu`: matrix products, and 1×1 convolutions of one group, of stride 1 and
//!   without border, run in cuBLAS. Depthwise convolutions, epilogues and all other operations are
//!   our own kernels. Other convolutions run in cuDNN. Without cuDNN, or where cuDNN refuses one,
//!   cuBLAS multiplies patches of the image.
//! - `plan`: one arena holds all values, and buffers with disjoint live ranges share its bytes. No
//!   memory is allocated while a network runs, so a run can be captured once and replayed.
//! - `lower`: transposes and reshapes that would move no element cost nothing.
//! - [`lazy`]: the CUDA libraries are loaded at the first call.
//!
//! Only networks run here: from the bytes of scaled pictures and crops to the numbers of the
//! outputs. The black borders of letterboxed pictures are added here. Decoding, warping and
//! comparing stay on the host, for three reasons: a photograph is megabytes to upload and a crop 37
//! KB; quality is judged by the crop before a network reads it; a comparison takes less time than a
//! kernel's launch.
//!
//! # Precision
//!
//! Weights and values are stored as 32-bit or 16-bit floats. Sums are always 32-bit floats. A
//! network in TF32 stores 32-bit floats and lets the libraries round the operands of products to 10
//! bits, as tensor cores do from Ampere on. A network in `f32` never rounds them.
//!
//! The libraries choose an algorithm by the batch size, so the last digits of an item's outputs may
//! differ between batch sizes. When a device loads a model, it checks by how much.

#![expect(unsafe_code, reason = "C functions of the driver; each block states why it is sound")]

mod arguments;
mod cudnn;
mod element_type;
mod gpu;
mod layout;
pub mod lazy;
mod lower;
mod network;
mod plan;
#[cfg(test)]
mod tests;
mod work;

pub use arguments::PictureHeader;
pub use gpu::{Gpu, GpuError, free_bytes};
pub use network::{CudaNetwork, PixelFormat};
