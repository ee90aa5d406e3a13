//! How any network runs.
//!
//! ```text
//! ONNX bytes → import → graph → passes → executor (chosen at load) → candle tensors
//! ```
//!
//! A [`Graph`] describes **one row**: networks are exported with a batch of one, the importer
//! strips that axis, and running a [`Network`] adds a leading batch axis to every value. A row can
//! therefore never see its neighbours.

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
/// The ONNX file format, package `onnx`.
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
