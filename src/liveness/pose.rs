//! Head pose from five points, as ratios that need no camera parameters and no pixel size.
//!
//! The values per degree are those of MediaPipe's canonical face mesh seen from 45 cm.

use crate::face::Point;

/// The five points, in the order of [`crate::face::DetectedFace::points`]. The origin is the middle
/// of the eyes, the x axis is the eye line, the unit is the distance of the eyes.
pub(super) type FaceShape = [[f64; 2]; 5];

/// Least distance of the eyes in pixels. Below it, a detector cannot tell the eyes apart.
const EYE_DISTANCE_MIN: f64 = 1.0;

/// Pose of a head by its five points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    /// Middle of the eyes in pixels.
    pub(super) eyes_middle: [f64; 2],
    /// Distance of the eyes in pixels.
    pub(super) eye_distance: f64,
    /// Distance of the nose from the middle of the eyes along the eye line, in halves of the eye
    /// distance. Positive: turned to the person's own left. 10° give 0.27, 15° 0.41, 20° 0.55, 30°
    /// 0.87. Noise of 1.5 % in the points gives 0.045.
    pub(super) turn: f64,
    /// Height of the nose between eyes (0) and mouth (1). Frontal heads have about 0.54; each
    /// degree down adds 0.010. Noise of 1.5 % in the points gives 0.015.
    pub(super) nod: f64,
    /// The five points in face coordinates.
    pub(super) shape: FaceShape,
}

impl Pose {
    /// Computes the pose. Returns `None` if the points are not finite, or if eyes or mouth do not
    /// lie like those of a face.
    pub(super) fn new(points: &[Point; 5]) -> Option<Self> {
        let points = points.map(|point| [f64::from(point.x), f64::from(point.y)]);
        let [right, left, ..] = points;
        let eyes_middle = middle(right, left);
        let eye_distance = distance(right, left);
        if !eye_distance.is_finite() || eye_distance < EYE_DISTANCE_MIN {
            return None;
        }
        let along = [(left[0] - right[0]) / eye_distance, (left[1] - right[1]) / eye_distance];
        let shape = points.map(|[x, y]| {
            let [x, y] = [(x - eyes_middle[0]) / eye_distance, (y - eyes_middle[1]) / eye_distance];
            [x * along[0] + y * along[1], y * along[0] - x * along[1]]
        });
        let [_, _, nose, right_mouth, left_mouth] = shape;
        let (turn, nod) = (2.0 * nose[0], nose[1] / middle(right_mouth, left_mouth)[1]);
        let is_finite = turn.is_finite() && nod.is_finite();
        is_finite.then_some(Self { eyes_middle, eye_distance, turn, nod, shape })
    }
}

/// Returns the mean of the shapes, or `None` without shapes.
pub(super) fn mean_shape<'a>(shapes: impl Iterator<Item = &'a FaceShape>) -> Option<FaceShape> {
    let (mut sum, mut count) = ([[0.0; 2]; 5], 0.0);
    for shape in shapes {
        count += 1.0;
        for (total, point) in sum.iter_mut().zip(shape) {
            *total = [total[0] + point[0], total[1] + point[1]];
        }
    }
    (count > 0.0).then(|| sum.map(|[x, y]| [x / count, y / count]))
}

/// Returns the distance of two points.
pub(super) fn distance(one: [f64; 2], other: [f64; 2]) -> f64 {
    (one[0] - other[0]).hypot(one[1] - other[1])
}

fn middle(one: [f64; 2], other: [f64; 2]) -> [f64; 2] {
    [(one[0] + other[0]) / 2.0, (one[1] + other[1]) / 2.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(pixels: [[f32; 2]; 5]) -> [Point; 5] {
        pixels.map(|[x, y]| Point { x, y })
    }

    const FRONTAL: [[f32; 2]; 5] =
        [[100.0, 100.0], [160.0, 100.0], [130.0, 140.0], [110.0, 170.0], [150.0, 170.0]];

    #[test]
    fn a_nose_towards_the_left_eye_is_a_turn_to_the_own_left() {
        let mut turned = FRONTAL;
        turned[2][0] = 145.0;
        let pose = Pose::new(&points(turned)).unwrap();
        assert!((pose.turn - 0.5).abs() < 1e-6);
        assert!((pose.nod - 4.0 / 7.0).abs() < 1e-6);
    }

    #[test]
    fn rotation_and_distance_in_the_image_change_neither_turn_nor_nod() {
        let (sin, cos) = 0.7_f32.sin_cos();
        let moved =
            FRONTAL.map(|[x, y]| [(x * cos - y * sin) * 2.0 + 9.0, (x * sin + y * cos) * 2.0]);
        let (one, other) =
            (Pose::new(&points(FRONTAL)).unwrap(), Pose::new(&points(moved)).unwrap());
        assert!((one.turn - other.turn).abs() < 1e-5 && (one.nod - other.nod).abs() < 1e-5);
        assert!((other.eye_distance - 2.0 * one.eye_distance).abs() < 1e-3);
    }

    #[test]
    fn points_that_coincide_or_are_no_numbers_have_no_pose() {
        assert_eq!(Pose::new(&points([[5.0, 5.0]; 5])), None);
        assert_eq!(Pose::new(&points([[f32::NAN; 2]; 5])), None);
        assert_eq!(Pose::new(&points([[f32::MAX; 2]; 5])), None);
    }
}
