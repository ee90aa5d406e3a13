//! MediaPipe's face mesh: the crop for the network, its 468 points in the image, and the measures
//! of mouth and head.
//!
//! Source of the crop and the points: mediapipe `modules/face_landmark/`,
//! `calculators/util/landmark_projection_calculator.cc`.

use crate::face::{DetectedFace, FaceError, Point};
use crate::image::TurnedSquare;

/// Number of points of a mesh.
const POINTS: usize = 468;

/// Indices of points in MediaPipe's canonical face. Right and left are the person's own.
const UPPER_LIP: usize = 13;
const LOWER_LIP: usize = 14;
const MOUTH_CORNERS: [usize; 2] = [61, 291];
const NOSE_TIP: usize = 1;
const FOREHEAD: usize = 10;
const CHIN: usize = 152;

/// One of the person's own eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eye {
    /// On the left of an unmirrored image.
    Right,
    /// On the right of an unmirrored image.
    Left,
}

impl Eye {
    /// Returns the indices of the corners, from image left to image right.
    fn corners(self) -> [usize; 2] {
        match self {
            Self::Right => [33, 133],
            Self::Left => [362, 263],
        }
    }
}

/// Returns the mesh network's crop: `size` pixels wide, covering `scale` times the longer side of
/// the face's box about its centre, rotated so that the eyes are level.
///
/// # Errors
/// [`FaceError::DegeneratePoints`] when box or eyes do not define a square.
pub fn mesh_square(
    face: &DetectedFace,
    scale: f64,
    size: usize,
) -> Result<TurnedSquare, FaceError> {
    let center = face.rect.center();
    let side = scale * f64::from(face.rect.width.max(face.rect.height));
    let [right_eye, left_eye, ..] = face.points.map(|point| [point.x, point.y].map(f64::from));
    let along = [left_eye[0] - right_eye[0], left_eye[1] - right_eye[1]];
    TurnedSquare::new([center.x, center.y].map(f64::from), side, along, size)
        .ok_or(FaceError::DegeneratePoints)
}

/// The mesh points of a face in pixels of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// [`POINTS`] of x, y and depth in pixels of the image. Depth decreases towards the camera.
    points: Vec<Vector>,
}

impl Mesh {
    /// Decodes the network's output for the crop `square`: 468 × (x, y, z) in pixels of the crop.
    ///
    /// # Errors
    /// [`FaceError::LandmarkOutput`] for a wrong number of values.
    pub fn decode(values: &[f32], square: &TurnedSquare) -> Result<Self, FaceError> {
        let (actual, expected) = (values.len(), POINTS * 3);
        if actual != expected {
            return Err(FaceError::LandmarkOutput { network: "face mesh", actual, expected });
        }
        let in_image = |point: &[f32; 3]| {
            let [x, y, z] = point.map(f64::from);
            let (image_x, image_y) = square.to_image(x, y);
            [image_x, image_y, z * square.image_pixels_per_crop_pixel()]
        };
        Ok(Self { points: values.as_chunks().0.iter().map(in_image).collect() })
    }

    /// Returns the middles of the eyes, the nose tip and the corners of the mouth, in the order of
    /// [`DetectedFace::points`].
    pub fn five_points(&self) -> [Point; 5] {
        let at = |index: usize| {
            let [x, y, _] = self.points[index];
            [x, y]
        };
        let middle = |eye: Eye| {
            let [one, other] = eye.corners().map(at);
            [(one[0] + other[0]) / 2.0, (one[1] + other[1]) / 2.0]
        };
        let [right, left] = MOUTH_CORNERS.map(at);
        let points = [middle(Eye::Right), middle(Eye::Left), at(NOSE_TIP), right, left];
        points.map(|[x, y]| Point { x: x as f32, y: y as f32 })
    }

    /// Returns the distance of the inner lips over the width of the mouth.
    pub fn mouth_open(&self) -> f64 {
        let [right, left] = MOUTH_CORNERS;
        self.distance(UPPER_LIP, LOWER_LIP) / self.distance(right, left)
    }

    /// Returns the yaw in degrees; positive when the person turns to their own left (image right,
    /// unmirrored).
    pub fn yaw(&self) -> f64 {
        let [along, _, toward] = self.face_normal();
        along.atan2(toward).to_degrees()
    }

    /// Returns the pitch in degrees; positive when the person looks down. The zero differs between
    /// faces by some 5 to 10 degrees.
    pub fn pitch(&self) -> f64 {
        let [along, down, toward] = self.face_normal();
        down.atan2(along.hypot(toward)).to_degrees()
    }

    /// Returns the corners of an eye from image left to image right.
    pub(super) fn eye_corners(&self, eye: Eye) -> [[f64; 2]; 2] {
        eye.corners().map(|index| {
            let [x, y, _] = self.points[index];
            [x, y]
        })
    }

    /// Returns the normal of the plane through the eye line and the forehead-chin line. Its
    /// components are along the eye line in the image, downward at a right angle to it, and towards
    /// the camera. The axes follow the eye line, so a tilt of the head does not change the
    /// components.
    fn face_normal(&self) -> Vector {
        let (right, left) = (Eye::Right.corners()[0], Eye::Left.corners()[1]);
        let eyes = difference(&self.points[right], &self.points[left]);
        let height = difference(&self.points[FOREHEAD], &self.points[CHIN]);
        // The cross product of right and down points into the image, away from the camera.
        let [x, y, z] = cross(&eyes, &height).map(|part| -part);
        let [along_x, along_y, _] = eyes;
        let length = along_x.hypot(along_y);
        let along = (x * along_x + y * along_y) / length;
        let down = (y * along_x - x * along_y) / length;
        [along, down, -z]
    }

    /// Returns the distance in the image plane; x and y are more accurate than the depth.
    fn distance(&self, one: usize, other: usize) -> f64 {
        let [x, y, _] = difference(&self.points[one], &self.points[other]);
        x.hypot(y)
    }
}

type Vector = [f64; 3];

fn difference(from: &Vector, to: &Vector) -> Vector {
    std::array::from_fn(|axis| to[axis] - from[axis])
}

fn cross(a: &Vector, b: &Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::face::{Point, Rect};

    const GOLDEN: &[u8] = include_bytes!("../../models/facemesh/3.3.6/golden.safetensors");

    /// A flat face of 2 × 2 units: eyes at −0.5, forehead and chin at −1 and 1, the mouth at 0.5.
    /// It is turned about the vertical axis, then nodded, then tilted, in degrees.
    fn face(yaw: f64, pitch: f64, roll: f64) -> Mesh {
        let mut values = vec![0.0_f32; POINTS * 3];
        let marks = [
            (33, [-0.5, -0.5]),
            (133, [-0.2, -0.5]),
            (362, [0.2, -0.5]),
            (263, [0.5, -0.5]),
            (FOREHEAD, [0.0, -1.0]),
            (CHIN, [0.0, 1.0]),
            (MOUTH_CORNERS[0], [-0.4, 0.5]),
            (MOUTH_CORNERS[1], [0.4, 0.5]),
            (UPPER_LIP, [0.0, 0.4]),
            (LOWER_LIP, [0.0, 0.6]),
        ];
        for (index, [x, y]) in marks {
            let (sin, cos) = yaw.to_radians().sin_cos();
            // A turn to the person's own left moves the left half of the face away from the camera.
            let (x, z) = (x * cos, x * sin);
            let (sin, cos) = pitch.to_radians().sin_cos();
            // Looking down moves the forehead towards the camera.
            let (y, z) = (y * cos - z * sin, y * sin + z * cos);
            let (sin, cos) = roll.to_radians().sin_cos();
            let point = [x * cos - y * sin, x * sin + y * cos, z].map(|v| v as f32 * 50.0 + 95.5);
            values[index * 3..index * 3 + 3].copy_from_slice(&point);
        }
        Mesh::decode(&values, &TurnedSquare::new([95.5, 95.5], 192.0, [1.0, 0.0], 192).unwrap())
            .unwrap()
    }

    #[test]
    fn turning_and_nodding_are_read_with_their_signs() {
        for (yaw, pitch) in [(0.0, 0.0), (20.0, 0.0), (-30.0, 0.0), (0.0, 15.0), (0.0, -10.0)] {
            let mesh = face(yaw, pitch, 0.0);
            assert!((mesh.yaw() - yaw).abs() < 1e-3, "yaw {} for {yaw}", mesh.yaw());
            assert!((mesh.pitch() - pitch).abs() < 1e-3, "pitch {} for {pitch}", mesh.pitch());
        }
    }

    #[test]
    fn tilting_the_head_is_neither_turning_nor_nodding() {
        for roll in [-30.0, 45.0, 90.0] {
            let mesh = face(20.0, 0.0, roll);
            assert!((mesh.yaw() - 20.0).abs() < 1e-3, "yaw {} at {roll}", mesh.yaw());
            assert!(mesh.pitch().abs() < 1e-3, "pitch {} at {roll}", mesh.pitch());
        }
    }

    #[test]
    fn the_mouth_is_measured_by_its_own_width() {
        assert!((face(0.0, 0.0, 30.0).mouth_open() - 0.25).abs() < 1e-6);
    }

    #[test]
    fn the_golden_faces_measure_as_in_numpy() {
        // p is one row of output.out_Identity_2 as 468 × 3, e = p[263] - p[33],
        // n = -cross(e, p[152] - p[10]), u = e without z, of length 1, w = (-u[1], u[0], 0).
        // The values are norm(p[13] - p[14]) / norm(p[61] - p[291]) in x and y, and the degrees of
        // atan2(n@u, -n[2]) and of atan2(n@w, hypot(n@u, n[2])).
        let expected = [
            [0.163_693_16, -0.577_152_52, 12.246_646_39],
            [0.017_059_68, 0.262_780_74, 7.715_297_71],
        ];
        let golden = SafeTensors::deserialize(GOLDEN).unwrap();
        let bytes = golden.tensor("output.out_Identity_2").unwrap().data().to_vec();
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let square = TurnedSquare::new([300.0, 200.0], 250.0, [3.0, 1.0], 192).unwrap();
        for (row, expected) in values.chunks(POINTS * 3).zip(expected) {
            let mesh = Mesh::decode(row, &square).unwrap();
            let found = [mesh.mouth_open(), mesh.yaw(), mesh.pitch()];
            let error = |(found, expected): (&f64, &f64)| (found - expected).abs();
            let worst = found.iter().zip(&expected).map(error).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn points_are_mapped_back_into_the_image() {
        let rect = Rect { x: 100.0, y: 200.0, width: 80.0, height: 128.0 };
        let mut points = [Point { x: 0.0, y: 0.0 }; 5];
        // The eyes lie on a line that falls by 90 degrees, so the square is rotated by 90 degrees.
        points[1] = Point { x: 0.0, y: 10.0 };
        let face = DetectedFace { rect, score: 1.0, points };
        let square = mesh_square(&face, 1.5, 192).unwrap();
        let mut values = vec![0.0; POINTS * 3];
        values[..3].copy_from_slice(&[191.5, 95.5, 10.0]);
        let [x, y, z] = Mesh::decode(&values, &square).unwrap().points[0];
        // Half the square of 1.5 × 128 below the centre.
        assert!((x - 140.0).abs() < 1e-9 && (y - 360.0).abs() < 1e-9, "{x} {y}");
        assert!((z - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_output_or_a_degenerate_face_is_an_error() {
        let square = TurnedSquare::new([0.0, 0.0], 1.0, [1.0, 0.0], 1).unwrap();
        let message = Mesh::decode(&[0.0; 1403], &square).unwrap_err().to_string();
        assert_eq!(message, "face mesh output has 1403 values, expected 1404");
        let rect = Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 };
        let face = DetectedFace { rect, score: 1.0, points: [Point { x: 4.0, y: 4.0 }; 5] };
        assert_eq!(mesh_square(&face, 1.5, 192), Err(FaceError::DegeneratePoints));
    }
}
