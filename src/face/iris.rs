//! MediaPipe's iris network: the crop of one eye for the network, and the openness of the lids.
//!
//! Source of the crop: mediapipe `modules/iris_landmark/`. The network expects right eyes, so the
//! crop of a left eye is mirrored.

use crate::face::{Eye, FaceError, Mesh, Point};
use crate::image::{Orientation, RgbImage, TurnedSquare};

/// Number of output values: 71 contour and 5 iris points of x, y, z.
const VALUES: usize = (71 + 5) * 3;

/// Number of contour points used: the lower lid from corner to corner (0 to 8), then the upper lid
/// between the corners (9 to 15).
const LID_POINTS: usize = 16;

/// Positions along the upper lid, from 0, where the distance to the lower lid is measured. Two at
/// each end are left out, because the distance is too small there.
const OPENING: std::ops::RangeInclusive<usize> = 2..=4;

/// The part of the image that shows one eye.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EyeCrop {
    eye: Eye,
    square: TurnedSquare,
}

impl EyeCrop {
    /// Returns the crop of an eye: `size` pixels wide, covering `scale` times the eye's width about
    /// the middle of its corners, rotated so that the corners are level.
    ///
    /// # Errors
    /// [`FaceError::DegeneratePoints`] when the corners coincide.
    pub fn new(eye: Eye, mesh: &Mesh, scale: f64, size: usize) -> Result<Self, FaceError> {
        let [left, right] = mesh.eye_corners(eye);
        let center = [(left[0] + right[0]) / 2.0, (left[1] + right[1]) / 2.0];
        let along = [right[0] - left[0], right[1] - left[1]];
        let side = scale * along[0].hypot(along[1]);
        let square =
            TurnedSquare::new(center, side, along, size).ok_or(FaceError::DegeneratePoints)?;
        Ok(Self { eye, square })
    }

    /// Returns the network's input.
    pub fn sample(&self, image: &RgbImage) -> RgbImage {
        let crop = self.square.sample(image);
        match self.eye {
            Eye::Right => crop,
            Eye::Left => Orientation::MIRRORED.make_upright(crop),
        }
    }

    /// Decodes the network's output for [`Self::sample`].
    ///
    /// # Errors
    /// [`FaceError::LandmarkOutput`] for a wrong number of values.
    pub fn decode(&self, values: &[f32]) -> Result<Lids, FaceError> {
        if values.len() != VALUES {
            let (actual, expected) = (values.len(), VALUES);
            return Err(FaceError::LandmarkOutput { network: "iris", actual, expected });
        }
        let points = values.as_chunks::<3>().0;
        Ok(Lids { points: std::array::from_fn(|index| self.in_image(&points[index])) })
    }

    fn in_image(&self, &[x, y, _]: &[f32; 3]) -> Point {
        let x = match self.eye {
            Eye::Right => f64::from(x),
            Eye::Left => (self.square.size() - 1) as f64 - f64::from(x),
        };
        let (x, y) = self.square.to_image(x, y.into());
        Point { x: x as f32, y: y as f32 }
    }
}

/// The lids of one eye in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lids {
    /// The lower lid from the outer to the inner corner (9 points), then the upper lid between the
    /// corners (7 points).
    points: [Point; LID_POINTS],
}

impl Lids {
    /// Returns the mean distance of the lids over the width of the eye: about 0.3 for an open eye,
    /// below 0.12 for a closed one.
    pub fn openness(&self) -> f64 {
        let gaps = OPENING.map(|k| self.distance(9 + k, 1 + k));
        let count = OPENING.count() as f64;
        gaps.sum::<f64>() / count / self.distance(0, 8)
    }

    fn distance(&self, one: usize, other: usize) -> f64 {
        let (one, other) = (self.points[one], self.points[other]);
        f64::from(one.x - other.x).hypot(f64::from(one.y - other.y))
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../models/iris/3.3.6/golden.safetensors");

    /// A mesh whose points all lie at `[0, 0]`, except for the corners of both eyes.
    fn mesh() -> Mesh {
        let mut values = vec![0.0; 468 * 3];
        let corners = [(33, [10.0, 40.0]), (133, [40.0, 40.0]), (362, [60.0, 40.0])];
        for (index, corner) in corners.into_iter().chain([(263, [60.0, 70.0])]) {
            values[index * 3..index * 3 + 2].copy_from_slice(&corner);
        }
        let square = TurnedSquare::new([49.5, 49.5], 100.0, [1.0, 0.0], 100).unwrap();
        Mesh::decode(&values, &square).unwrap()
    }

    fn crop(eye: Eye) -> EyeCrop {
        EyeCrop::new(eye, &mesh(), 2.0, 60).unwrap()
    }

    #[test]
    fn the_openness_of_the_golden_eyes_is_that_of_numpy() {
        // mean(norm(p[9+k] - p[1+k]) for k in (2, 3, 4)) / norm(p[0] - p[8]) of each row's
        // output.out_Identity, x and y.
        let golden = SafeTensors::deserialize(GOLDEN).unwrap();
        let bytes = golden.tensor("output.out_Identity").unwrap().data().to_vec();
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        for (row, expected) in values.chunks(VALUES).zip([0.363_160_8, 0.363_571]) {
            for eye in [Eye::Right, Eye::Left] {
                let openness = crop(eye).decode(row).unwrap().openness();
                assert!((openness - expected).abs() < 1e-5, "{openness}");
            }
        }
    }

    #[test]
    fn the_left_eye_is_mirrored_and_its_points_are_mirrored_back() {
        // The right eye's corners are level; the left eye's corners lie on a falling line.
        for (eye, outer, inner) in
            [(Eye::Right, (10.0, 40.0), (40.0, 40.0)), (Eye::Left, (60.0, 70.0), (60.0, 40.0))]
        {
            let mut values = vec![0.0; VALUES];
            // The crop is twice as wide as the eye, so the corners are at a quarter and three
            // quarters.
            values[..2].copy_from_slice(&[14.5, 29.5]);
            values[24..26].copy_from_slice(&[44.5, 29.5]);
            let lids = crop(eye).decode(&values).unwrap();
            for (point, (x, y)) in [(lids.points[0], outer), (lids.points[8], inner)] {
                assert!((point.x - x).abs() < 1e-4 && (point.y - y).abs() < 1e-4, "{point:?}");
            }
        }
    }

    #[test]
    fn the_outer_corner_is_at_the_left_of_what_the_network_is_fed() {
        // Each pixel encodes its position: red grows to the right, green grows downward.
        let pixels = (0..100_u8).flat_map(|y| (0..100_u8).flat_map(move |x| [x, y, 0])).collect();
        let image = RgbImage::new(100, 100, pixels).unwrap();
        let pixel = |crop: &RgbImage, x: usize| crop.pixels()[(30 * 60 + x) * 3..][..2].to_vec();
        let right = crop(Eye::Right).sample(&image);
        assert_eq!([pixel(&right, 15), pixel(&right, 45)], [[11, 41], [41, 41]]);
        let left = crop(Eye::Left).sample(&image);
        assert_eq!([pixel(&left, 15), pixel(&left, 45)], [[60, 70], [60, 40]]);
    }

    #[test]
    fn a_wrong_output_or_a_degenerate_eye_is_an_error() {
        let message = crop(Eye::Left).decode(&[0.0; 213]).unwrap_err().to_string();
        assert_eq!(message, "iris output has 213 values, expected 228");
        let square = TurnedSquare::new([0.0, 0.0], 9.0, [1.0, 0.0], 9).unwrap();
        let flat = Mesh::decode(&[0.0; 1404], &square).unwrap();
        assert_eq!(EyeCrop::new(Eye::Right, &flat, 2.3, 64), Err(FaceError::DegeneratePoints));
    }
}
