//! Presentation attack detection (PAD) from one photograph: the crop for the network, and the
//! score.
//!
//! Source: minivision-ai Silent-Face-Anti-Spoofing `src/generate_patches.py`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::face::Rect;
use crate::image::{PixelRect, RgbImage};

/// Reasons why a PAD score cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PadError {
    /// The face is empty or lies outside the image.
    #[error("face box cannot be cropped from the image")]
    FaceOutside,
    /// The manifest names a class that the network does not have.
    #[error("liveness network has {classes} classes, the live one is given as {live_class}")]
    ClassMissing {
        /// Number of values that the network returned.
        classes: usize,
        /// Class index in the manifest.
        live_class: usize,
    },
    /// An output is NaN or infinite.
    #[error("liveness output is not finite")]
    NotFinite,
    /// Outputs that should be probabilities are negative or do not sum to 1.
    #[error("liveness outputs are not probabilities")]
    NotProbabilities,
    /// There is no score, because no network was run.
    #[error("no liveness network has judged the face")]
    NoScore,
}

/// Meaning of a network's outputs, as given in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadOutputKind {
    /// Unbounded numbers; softmax converts them to probabilities.
    Logits,
    /// Probabilities of all classes.
    Probabilities,
}

/// PAD score: probability that the face belongs to a live person, 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct PadScore(f64);

/// Combination of the scores of several networks, as given in the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// Mean of the scores.
    Mean,
    /// Minimum of the scores: every network must be convinced.
    Min,
}

impl Fusion {
    /// Combines the scores.
    ///
    /// # Errors
    /// [`PadError::NoScore`] without scores.
    pub fn fuse(self, scores: &[PadScore]) -> Result<PadScore, PadError> {
        let values = || scores.iter().map(|score| score.value());
        let least = values().min_by(f64::total_cmp).ok_or(PadError::NoScore)?;
        Ok(PadScore(match self {
            Self::Mean => values().sum::<f64>() / scores.len() as f64,
            Self::Min => least,
        }))
    }
}

/// Tolerance for the sum of probabilities; covers rounding to f16.
const SUM_TOLERANCE: f64 = 1e-2;

impl PadScore {
    /// Computes the score from the outputs of one row, one value per class.
    ///
    /// # Errors
    /// [`PadError::ClassMissing`], [`PadError::NotFinite`] or [`PadError::NotProbabilities`].
    pub fn new(outputs: &[f32], kind: PadOutputKind, live_class: usize) -> Result<Self, PadError> {
        let classes = outputs.len();
        let live_output =
            *outputs.get(live_class).ok_or(PadError::ClassMissing { classes, live_class })?;
        if outputs.iter().any(|value| !value.is_finite()) {
            return Err(PadError::NotFinite);
        }
        match kind {
            PadOutputKind::Logits => Ok(Self(softmax_of(live_output, outputs))),
            PadOutputKind::Probabilities => {
                let sum: f64 = outputs.iter().map(|&p| f64::from(p)).sum();
                let is_negative = outputs.iter().any(|&p| p < 0.0);
                if is_negative || (sum - 1.0).abs() > SUM_TOLERANCE {
                    return Err(PadError::NotProbabilities);
                }
                Ok(Self(f64::from(live_output).min(1.0)))
            }
        }
    }

    /// Returns the probability, 0..=1.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// Returns the softmax probability of the class with the logit `logit`. The largest term is 1, so
/// nothing overflows.
fn softmax_of(logit: f32, logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let term = |logit: f32| (f64::from(logit) - f64::from(largest)).exp();
    term(logit) / logits.iter().map(|&logit| term(logit)).sum::<f64>()
}

/// Returns the part of `image` for a PAD network: the face box, enlarged by `scale` about its
/// centre. The scale is reduced where the image is too small, and a box that crosses the border is
/// shifted inside. [`crate::image::crop_resize`] makes the network's input from it.
///
/// Shifting instead of cutting keeps the face's share of the crop. The networks rely on that share.
///
/// # Errors
/// [`PadError::FaceOutside`] when the box is empty, not finite or wholly outside.
pub fn pad_crop_rect(face: &Rect, image: &RgbImage, scale: f64) -> Result<PixelRect, PadError> {
    let [x, y, width, height] = [face.x, face.y, face.width, face.height].map(f64::from);
    let (last_x, last_y) = ((image.width() - 1) as f64, (image.height() - 1) as f64);
    let is_crossing = x < last_x && y < last_y && x + width > 0.0 && y + height > 0.0;
    let is_sized = width > 0.0 && height > 0.0 && width.is_finite() && height.is_finite();
    if !is_crossing || !is_sized {
        return Err(PadError::FaceOutside);
    }
    let scale = scale.min(last_x / width).min(last_y / height);
    let (left, right) = span(x + width / 2.0, width * scale, last_x);
    let (top, bottom) = span(y + height / 2.0, height * scale, last_y);
    Ok(PixelRect { x: left, y: top, width: right - left + 1, height: bottom - top + 1 })
}

/// Returns the first and the last of `length` pixels about `center`, shifted into `0..=last`.
fn span(center: f64, length: f64, last: f64) -> (usize, usize) {
    let (mut start, mut end) = (center - length / 2.0, center + length / 2.0);
    if start < 0.0 {
        end -= start;
        start = 0.0;
    }
    if end > last {
        start -= end - last;
        end = last;
    }
    // Rounding may leave the start slightly below zero; the cast makes it zero.
    (start as usize, end as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(probability: f64) -> PadScore {
        let outputs = [probability as f32, 1.0 - probability as f32];
        PadScore::new(&outputs, PadOutputKind::Probabilities, 0).unwrap()
    }

    #[test]
    fn scores_are_fused_by_their_mean_or_the_least() {
        let scores = [0.75, 0.25, 0.5].map(score);
        assert_eq!(Fusion::Mean.fuse(&scores).unwrap().value(), 0.5);
        assert_eq!(Fusion::Min.fuse(&scores).unwrap().value(), 0.25);
        for fusion in [Fusion::Mean, Fusion::Min] {
            assert_eq!(fusion.fuse(&scores[..1]).unwrap(), scores[0]);
            assert_eq!(fusion.fuse(&[]), Err(PadError::NoScore));
        }
    }

    proptest! {
        #[test]
        fn a_fused_score_lies_among_those_it_is_made_of(
            values in prop::collection::vec(0.0..=1.0_f64, 1..8),
        ) {
            let scores: Vec<PadScore> = values.into_iter().map(score).collect();
            let fuse = |fusion: Fusion| fusion.fuse(&scores).unwrap().value();
            let [least, mean] = [Fusion::Min, Fusion::Mean].map(fuse);
            let most = scores.iter().map(|score| score.value()).fold(0.0, f64::max);
            prop_assert!(scores.iter().all(|score| score.value() >= least));
            prop_assert!(least <= mean + 1e-12 && mean <= most + 1e-12);
        }
    }
}
