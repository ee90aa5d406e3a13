//! Runs networks that are exported as ONNX.
//!
//! ```text
//! ONNX bytes → import → graph → passes → executor (chosen at load) → candle tensors
//! ```
//!
//! A [`Graph`] describes **one item**, one element of a batch. Networks are exported with a batch
//! of one, and the importer strips the batch axis. Running a [`Network`] adds a leading batch axis
//! to every value. An item can therefore never influence another item of its batch.

mod constant;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
#[cfg(test)]
mod fixtures;
mod graph;
mod import;
mod network;
/// The ONNX file format, generated from `onnx.proto`.
mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}
mod op;
mod passes;
mod precision;
mod reference;
mod shape;

pub use error::{EngineError, ImportError, InputError, NodeError, TensorError};
pub use graph::{Graph, ValueInfo};
pub use import::import;
pub use network::Network;
pub use passes::optimise;
pub use precision::{Precision, UnknownPrecision};
