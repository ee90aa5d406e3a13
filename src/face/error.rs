//! Errors of the networks' outputs and of embeddings. A poor photograph is not an error.

use thiserror::Error;

/// Errors of values that are not valid faces, points or embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FaceError {
    /// YuNet needs a square canvas whose side is a multiple of its coarsest stride.
    #[error("detector canvas has a side of {side} pixels, expected a positive multiple of 32")]
    CanvasSide {
        /// Side of the canvas.
        side: usize,
    },
    /// A detector output has the wrong number of values.
    #[error("detector output {output}_{stride} has {actual} values, expected {expected}")]
    DetectorOutput {
        /// `cls`, `obj`, `bbox` or `kps`.
        output: &'static str,
        /// Canvas pixels per cell.
        stride: usize,
        /// Number of values received.
        actual: usize,
        /// Number of values expected on this canvas.
        expected: usize,
    },
    /// A landmark network's output has the wrong number of values.
    #[error("{network} output has {actual} values, expected {expected}")]
    LandmarkOutput {
        /// The network.
        network: &'static str,
        /// Number of values received.
        actual: usize,
        /// Number of values expected.
        expected: usize,
    },
    /// The points that define a crop coincide or are not finite.
    #[error("facial points are degenerate")]
    DegeneratePoints,
    /// An embedding has no values or too many.
    #[error("embedding has {length} values, expected 1 to {length_max}")]
    EmbeddingLength {
        /// Number of values received.
        length: usize,
        /// The limit.
        length_max: usize,
    },
    /// An embedding has a NaN or infinite value.
    #[error("embedding has a value that is not finite")]
    EmbeddingNotFinite,
    /// An embedding is too short a vector to have a direction.
    #[error("embedding has a norm of {norm}, at least {norm_min} is needed")]
    EmbeddingZero {
        /// L2 norm received.
        norm: f64,
        /// The limit.
        norm_min: f64,
    },
    /// An embedding does not have unit norm.
    #[error("embedding has a norm of {norm}, expected 1 within {tolerance}")]
    EmbeddingNotUnit {
        /// L2 norm received.
        norm: f64,
        /// Largest allowed deviation from 1.
        tolerance: f64,
    },
}
