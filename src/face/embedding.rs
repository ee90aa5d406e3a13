//! Face embeddings: unit vectors, each in an embedding space.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::face::FaceError;
use crate::trust::Secret;

/// Most values of an embedding; the largest published face networks have 2048.
const LENGTH_MAX: usize = 4096;

/// Least norm of a raw vector. A shorter vector has no meaningful direction.
const NORM_MIN: f64 = 1e-6;

/// Largest deviation of a caller's embedding from norm 1; covers rounding to a few decimals.
const UNIT_TOLERANCE: f64 = 1e-3;

/// Identifier of an embedding space: weights, alignment, preprocessing and precision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpaceId(Arc<str>);

impl SpaceId {
    /// Creates the identifier of a space.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The embeddings are of different spaces or of different lengths, so they have no similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("embeddings live in different spaces and cannot be compared")]
pub struct SpaceMismatch;

/// A face as a vector of norm 1. Biometric data: redacted, not clonable, wiped on drop.
#[derive(Debug)]
pub struct Embedding {
    values: Secret<Vec<f32>>,
    space: SpaceId,
}

impl Embedding {
    /// Normalises a network's output to norm 1. Also returns the L2 norm of the output, which is
    /// lower for poorer images.
    ///
    /// # Errors
    /// [`FaceError::EmbeddingLength`], [`FaceError::EmbeddingNotFinite`] or, below a norm of 1e-6,
    /// [`FaceError::EmbeddingZero`].
    pub fn from_raw(raw: &[f32], space: SpaceId) -> Result<(Self, f32), FaceError> {
        let norm = checked_norm(raw)?;
        if norm < NORM_MIN {
            return Err(FaceError::EmbeddingZero { norm, norm_min: NORM_MIN });
        }
        Ok((Self::divided_by_norm(raw, norm, space), norm as f32))
    }

    /// Creates an embedding from a caller's values and scales it to norm 1.
    ///
    /// # Errors
    /// [`FaceError::EmbeddingLength`], [`FaceError::EmbeddingNotFinite`] or, if the norm differs
    /// from 1 by more than 0.001, [`FaceError::EmbeddingNotUnit`].
    pub fn from_unit(values: &[f32], space: SpaceId) -> Result<Self, FaceError> {
        let norm = checked_norm(values)?;
        if (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(FaceError::EmbeddingNotUnit { norm, tolerance: UNIT_TOLERANCE });
        }
        Ok(Self::divided_by_norm(values, norm, space))
    }

    fn divided_by_norm(values: &[f32], norm: f64, space: SpaceId) -> Self {
        let unit = values.iter().map(|&v| (f64::from(v) / norm) as f32).collect();
        Self { values: Secret::new(unit), space }
    }

    /// Returns the components; their squares sum to 1.
    pub fn values(&self) -> &[f32] {
        self.values.expose()
    }

    /// Returns the embedding space.
    pub fn space(&self) -> &SpaceId {
        &self.space
    }
}

/// Returns the cosine of the angle between two embeddings, −1..=1.
///
/// # Errors
/// `SpaceMismatch` unless both are of the same space and of the same length.
pub fn cosine(one: &Embedding, other: &Embedding) -> Result<f32, SpaceMismatch> {
    let (a, b) = (one.values(), other.values());
    if one.space != other.space || a.len() != b.len() {
        return Err(SpaceMismatch);
    }
    let dot: f64 = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    Ok(dot.clamp(-1.0, 1.0) as f32)
}

/// Returns the L2 norm of between 1 and [`LENGTH_MAX`] finite values.
fn checked_norm(values: &[f32]) -> Result<f64, FaceError> {
    if values.is_empty() || values.len() > LENGTH_MAX {
        return Err(FaceError::EmbeddingLength { length: values.len(), length_max: LENGTH_MAX });
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(FaceError::EmbeddingNotFinite);
    }
    Ok(values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> SpaceId {
        SpaceId::new("sface@1/arcface112/1/f32")
    }

    fn raw(values: &[f32]) -> Result<(Embedding, f32), FaceError> {
        Embedding::from_raw(values, space())
    }

    #[test]
    fn a_raw_output_is_normalised_and_its_norm_returned() {
        let (embedding, norm) = raw(&[3.0, -4.0]).unwrap();
        assert_eq!(embedding.values(), [0.6, -0.8]);
        assert_eq!(norm, 5.0);
    }

    #[test]
    fn outputs_without_a_direction_are_refused() {
        assert_eq!(raw(&[1.0, f32::NAN]).unwrap_err(), FaceError::EmbeddingNotFinite);
        assert_eq!(raw(&[f32::INFINITY, 1.0]).unwrap_err(), FaceError::EmbeddingNotFinite);
        assert!(matches!(raw(&[1e-7, 0.0]), Err(FaceError::EmbeddingZero { .. })));
        assert!(matches!(raw(&[]), Err(FaceError::EmbeddingLength { length: 0, .. })));
        assert!(matches!(raw(&[1.0; 4097]), Err(FaceError::EmbeddingLength { .. })));
    }

    #[test]
    fn a_callers_embedding_must_nearly_be_a_unit_vector() {
        let rounded = Embedding::from_unit(&[0.6003, 0.8004], space()).unwrap();
        assert!((rounded.values()[0] - 0.6).abs() < 1e-4);
        let long = Embedding::from_unit(&[0.6012, 0.8016], space());
        assert!(matches!(long, Err(FaceError::EmbeddingNotUnit { .. })));
        let zero = Embedding::from_unit(&[0.0, 0.0], space());
        assert!(matches!(zero, Err(FaceError::EmbeddingNotUnit { .. })));
    }

    #[test]
    fn two_spaces_cannot_be_compared() {
        let (one, _) = raw(&[1.0, 0.0]).unwrap();
        let other = Embedding::from_unit(&[1.0, 0.0], SpaceId::new("another")).unwrap();
        assert_eq!(cosine(&one, &other), Err(SpaceMismatch));
        let (longer, _) = raw(&[1.0, 0.0, 0.0]).unwrap();
        assert_eq!(cosine(&one, &longer), Err(SpaceMismatch));
    }

    #[test]
    fn cosine_of_known_angles() {
        let (right, _) = raw(&[2.0, 0.0]).unwrap();
        let (diagonal, _) = raw(&[1.0, 1.0]).unwrap();
        let (left, _) = raw(&[-7.0, 0.0]).unwrap();
        assert!((cosine(&right, &diagonal).unwrap() - 0.5_f32.sqrt()).abs() < 1e-6);
        assert_eq!(cosine(&right, &left), Ok(-1.0));
    }

    #[test]
    fn debug_shows_no_values() {
        let (embedding, _) = raw(&[3.0, 4.0]).unwrap();
        let text = format!("{embedding:?}");
        assert!(text.contains("redacted") && !text.contains("0.6"));
    }

    proptest! {
        #[test]
        fn cosine_is_symmetric_bounded_and_one_with_itself(
            pairs in prop::collection::vec((-1e3..1e3_f32, -1e3..1e3_f32), 1..300),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            if let (Ok((a, _)), Ok((b, _))) = (raw(&a), raw(&b)) {
                let similarity = cosine(&a, &b).unwrap();
                prop_assert!(similarity.abs() <= 1.0);
                prop_assert_eq!(similarity, cosine(&b, &a).unwrap());
                prop_assert!((cosine(&a, &a).unwrap() - 1.0).abs() < 1e-5);
            }
        }

        #[test]
        fn any_values_give_an_embedding_or_an_error(
            values in prop::collection::vec(any::<f32>(), 0..64),
        ) {
            if let Ok((embedding, norm)) = raw(&values) {
                prop_assert!(norm > 0.0);
                prop_assert!(embedding.values().iter().all(|v| v.is_finite()));
            }
            let _ = Embedding::from_unit(&values, space());
        }
    }
}
