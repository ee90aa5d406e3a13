//! Alignment of a face: rotation, scale and shift that move its points to the places a network
//! expects.

use serde::{Deserialize, Serialize};

use crate::face::{FaceError, Point};
use crate::image::{RgbImage, SimilarityTransform, warp};

/// A template of facial points, named in manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// The 112×112 template of ArcFace, also used by SFace.
    Arcface112,
}

/// Right eye, left eye, nose tip, right and left mouth corner (the person's own sides). Source:
/// insightface `utils/face_align.py`, OpenCV `objdetect/src/face_recognize.cpp`.
const ARCFACE_112: [Point; 5] = [
    Point { x: 38.2946, y: 51.6963 },
    Point { x: 73.5318, y: 51.5014 },
    Point { x: 56.0252, y: 71.7366 },
    Point { x: 41.5493, y: 92.3655 },
    Point { x: 70.7299, y: 92.2041 },
];

/// The fit of a face's points to a template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Maps image pixels to template pixels.
    pub transform: SimilarityTransform,
    /// Root mean square distance of the mapped points from the template, in inter-eye distances of
    /// the template. A head turned by 40° has 0.19, swapped sides 0.64.
    pub residual: f64,
}

impl Alignment {
    /// Returns name and version. They are part of every embedding space: change them with the
    /// template or with the way pixels are sampled.
    pub fn id(self) -> &'static str {
        match self {
            Self::Arcface112 => "arcface112/1",
        }
    }

    /// Returns the side of the aligned square in pixels.
    pub fn side(self) -> usize {
        match self {
            Self::Arcface112 => 112,
        }
    }

    fn template(self) -> &'static [Point; 5] {
        match self {
            Self::Arcface112 => &ARCFACE_112,
        }
    }

    /// Returns the similarity transform without reflection that fits `points` best to the template.
    ///
    /// Umeyama's least squares in two dimensions has a closed form: with s and t the centred source
    /// and template points, `a = Σ(s·t) / Σ|s|²` and `b = Σ(s×t) / Σ|s|²`.
    ///
    /// # Errors
    /// [`FaceError::DegeneratePoints`] when the points coincide or are not finite.
    pub fn fit(self, points: &[Point; 5]) -> Result<Fit, FaceError> {
        let template = self.template();
        let (source_mean, target_mean) = (mean(points), mean(template));
        let mut dot = 0.0;
        let mut cross = 0.0;
        let mut spread = 0.0;
        for (source, target) in points.iter().zip(template) {
            let (sx, sy) =
                (f64::from(source.x) - source_mean.0, f64::from(source.y) - source_mean.1);
            let (tx, ty) =
                (f64::from(target.x) - target_mean.0, f64::from(target.y) - target_mean.1);
            dot += sx * tx + sy * ty;
            cross += sx * ty - sy * tx;
            spread += sx * sx + sy * sy;
        }
        let (a, b) = (dot / spread, cross / spread);
        let shift_x = target_mean.0 - (a * source_mean.0 - b * source_mean.1);
        let shift_y = target_mean.1 - (b * source_mean.0 + a * source_mean.1);
        let transform =
            SimilarityTransform::new(a, b, shift_x, shift_y).ok_or(FaceError::DegeneratePoints)?;
        Ok(Fit { transform, residual: residual(&transform, points, template) })
    }

    /// Returns the aligned face: a square of [`Alignment::side`] pixels, black outside the image.
    pub fn crop(self, image: &RgbImage, fit: &Fit) -> RgbImage {
        warp(image, &fit.transform, self.side(), self.side())
    }
}

fn residual(transform: &SimilarityTransform, points: &[Point; 5], template: &[Point; 5]) -> f64 {
    let square = |source: &Point, target: &Point| {
        let (x, y) = transform.apply(f64::from(source.x), f64::from(source.y));
        (x - f64::from(target.x)).powi(2) + (y - f64::from(target.y)).powi(2)
    };
    let sum: f64 = points.iter().zip(template).map(|(p, t)| square(p, t)).sum();
    let eyes =
        f64::from(template[1].x - template[0].x).hypot((template[1].y - template[0].y).into());
    (sum / 5.0).sqrt() / eyes
}

fn mean(points: &[Point; 5]) -> (f64, f64) {
    let sum = |value: fn(&Point) -> f32| points.iter().map(|p| f64::from(value(p))).sum::<f64>();
    (sum(|p| p.x) / 5.0, sum(|p| p.y) / 5.0)
}
