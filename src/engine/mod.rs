//! How any network runs.
//!
//! ```text
//! ONNX bytes → import → graph → passes → executor (chosen at load) → candle tensors
//! ```
