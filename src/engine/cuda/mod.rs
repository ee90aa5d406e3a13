//! Runs networks on NVIDIA GPUs, planned.
//!
//! ```text
//! graph → lower (work, constants, orders) → plan (memory) → steps on one stream
//! ```
//!
//! | what | where |
//! |---|---|
//! | images lie with their channels last, as tensor cores read them | `layout` |
//! | convolutions are cuDNN's or, without it and where it refuses one, products of patches in cuBLAS; depthwise ones, epilogues and all else are our own kernels | `work`, `kernels/*.cu` |
//! | one block of memory for all values, which lie where no living one lies; nothing is allocated while a network runs, so that it can be captured once and replayed | `plan` |
//! | transposes and reshapes that move nothing cost nothing | `lower` |
//! | the libraries are loaded when they are first called | [`lazy`] |
//!
//! Only networks run here, from bytes of scaled pictures and crops to numbers; the black borders of
//! letterboxed ones are made here. Decoding, warping and comparing stay on the host: a photograph is
//! megabytes to upload and a crop 37 KB, quality is judged by the crop before a network sees it, and
//! a comparison is shorter than the launch of a kernel.
//!
//! # Precision
//!
//! Weights and values are stored in 32-bit or in 16-bit floats; sums are always 32-bit floats. A
//! network in TF32 stores 32-bit floats and lets the libraries round the factors of its products to
//! 10 bits, as tensor cores do from Ampere on; one in `f32` never does.
//! Which algorithm a library takes depends on the batch, so a row's answer may differ in the last
//! digits between buckets; the device checks by how much.

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

pub use arguments::Picture;
pub use gpu::{Gpu, GpuError, free_bytes};
pub use network::{CudaNetwork, PixelFormat};
