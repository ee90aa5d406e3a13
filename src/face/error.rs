//! What can go wrong about a face, short of its being a poor photograph.

use thiserror::Error;

/// Why numbers cannot be taken for faces, points or embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FaceError {
    /// YuNet runs on square canvases whose side its coarsest stride divides.
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
        /// Values received.
        actual: usize,
        /// Values of that output on this canvas.
        expected: usize,
    },
    /// A landmark network's output has the wrong number of values.
    #[error("{network} output has {actual} values, expected {expected}")]
    LandmarkOutput {
        /// Which network.
        network: &'static str,
        /// Values received.
        actual: usize,
        /// Values of that output.
        expected: usize,
    },
    /// The points that place a crop coincide or are not finite.
    #[error("facial points are degenerate")]
    DegeneratePoints,
    /// An embedding has no values or too many.
    #[error("embedding has {length} values, expected 1 to {length_max}")]
    EmbeddingLength {
        /// Values received.
        length: usize,
        /// The limit.
        length_max: usize,
    },
    /// An embedding has a value that is not a number or infinite.
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
    /// An embedding that should have unit length has not.
    #[error("embedding has a norm of {norm}, expected 1 within {tolerance}")]
    EmbeddingNotUnit {
        /// L2 norm received.
        norm: f64,
        /// The limit.
        tolerance: f64,
    },
}
