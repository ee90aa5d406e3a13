//! A synthetic head in front of a camera, for tests and fuzzing. It has five points, from which the
//! measures of detector, mesh and iris network are derived.

use super::measures::{FaceMeasures, FrameMeasures, MeshMeasures};
use crate::face::{DetectedFace, Point, Rect};
use crate::image::{DifferenceHash, LumaImage, RgbImage};

/// Frame size of the camera at a shop's counter, in pixels.
pub(super) const SIZE: [usize; 2] = [480, 640];

/// Right eye, left eye, nose tip, right mouth corner, left mouth corner. Centimetres from the
/// middle of the eyes: to the person's left, down, towards the camera. Fitted to the ratios of the
/// canonical face mesh.
const HEAD: [[f64; 3]; 5] =
    [[-3.15, 0.0, 0.0], [3.15, 0.0, 0.0], [0.0, 3.6, 3.4], [-2.5, 6.9, 1.2], [2.5, 6.9, 1.2]];

/// Distance from the eyes back to the neck's axis, and from the camera to the eyes, in centimetres.
const NECK: f64 = 9.0;
const DISTANCE: f64 = 45.0;

/// Focal length in pixels: eyes 6.3 cm apart at 45 cm are 75 pixels apart.
const FOCAL: f64 = 536.0;

/// Pose and expression of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Degrees to the person's own left.
    pub yaw: f64,
    /// Degrees down.
    pub pitch: f64,
    /// Openness of the eyes.
    pub eyes: f64,
    /// Opening of the mouth.
    pub mouth: f64,
    /// Displacement to image right and down, in pixels.
    pub moved: [f64; 2],
}

impl Default for Head {
    fn default() -> Self {
        Self { yaw: 0.0, pitch: 0.0, eyes: 0.3, mouth: 0.03, moved: [0.0, 0.0] }
    }
}

impl Head {
    /// Returns the five points in pixels.
    pub(super) fn points(&self) -> [[f64; 2]; 5] {
        HEAD.map(|point| {
            let [x, y, z] = self.turned(point);
            let scale = FOCAL / (DISTANCE - z);
            [240.0 + x * scale + self.moved[0], 270.0 + y * scale + self.moved[1]]
        })
    }

    fn turned(&self, [x, y, z]: [f64; 3]) -> [f64; 3] {
        let z = z + NECK;
        let (sin, cos) = self.pitch.to_radians().sin_cos();
        let (y, z) = (y * cos + z * sin, z * cos - y * sin);
        let (sin, cos) = self.yaw.to_radians().sin_cos();
        let (x, z) = (x * cos + z * sin, z * cos - x * sin);
        [x, y, z - NECK]
    }
}

/// Returns the measures of a frame that shows `head`.
pub fn measures_of(head: &Head) -> FrameMeasures {
    measures_with(head, head.points())
}

/// Returns the measures of a frame whose points differ from those of `head`.
pub(super) fn measures_with(head: &Head, points: [[f64; 2]; 5]) -> FrameMeasures {
    let face = face_at(points);
    let mesh = MeshMeasures {
        points: face.points,
        mouth_open: head.mouth,
        yaw: head.yaw,
        pitch: head.pitch,
    };
    let main = FaceMeasures {
        brightness: 0.5,
        sharpness: 1000.0,
        mesh: Some(mesh),
        eyes: Some([head.eyes; 2]),
    };
    let difference_hash = DifferenceHash::new(&LumaImage::new(&RgbImage::black(9, 9)));
    FrameMeasures { size: SIZE, difference_hash, faces: vec![face], main: Some(main) }
}

/// Returns a detected face around its points.
pub(super) fn face_at(points: [[f64; 2]; 5]) -> DetectedFace {
    let sum = |axis: usize| points.iter().map(|point| point[axis]).sum::<f64>() / 5.0;
    let (x, y) = (sum(0) as f32, sum(1) as f32);
    let rect = Rect { x: x - 75.0, y: y - 95.0, width: 150.0, height: 190.0 };
    let points = points.map(|[x, y]| Point { x: x as f32, y: y as f32 });
    DetectedFace { rect, score: 0.95, points }
}

/// Returns a hash that differs between neighbouring frames and from all earlier frames of a
/// session.
pub fn difference_hash(sequence: u32) -> DifferenceHash {
    let pixels = (0..9 * 9 * 3).map(|at| (sequence.wrapping_mul(31) as usize * at % 251) as u8);
    let mut image = RgbImage::black(9, 9);
    for (pixel, value) in image.pixels_mut().iter_mut().zip(pixels) {
        *pixel = value;
    }
    DifferenceHash::new(&LumaImage::new(&image))
}

#[cfg(test)]
mod tests {
    use super::super::planarity::residual;
    use super::super::pose::Pose;
    use super::*;

    fn pose(yaw: f64, pitch: f64) -> Pose {
        let head = Head { yaw, pitch, ..Head::default() };
        Pose::new(&measures_of(&head).faces[0].points).unwrap()
    }

    #[test]
    fn the_ratios_are_those_of_the_canonical_mesh_at_45_centimetres() {
        for (yaw, turn) in [(10.0, 0.27), (15.0, 0.41), (20.0, 0.55), (25.0, 0.70), (30.0, 0.87)] {
            assert!((pose(yaw, 0.0).turn - turn).abs() < 0.03, "{yaw}: {}", pose(yaw, 0.0).turn);
            assert!((pose(-yaw, 0.0).turn + turn).abs() < 0.03);
        }
        for (pitch, nod) in [(0.0, 0.537), (10.0, 0.638), (20.0, 0.739), (-10.0, 0.432)] {
            assert!((pose(0.0, pitch).nod - nod).abs() < 0.03, "{pitch}: {}", pose(0.0, pitch).nod);
        }
    }

    #[test]
    fn a_turned_head_has_the_depth_of_the_canonical_mesh() {
        for (yaw, depth) in [(15.0, 0.066), (20.0, 0.087)] {
            let residual = residual(&pose(0.0, 0.0).shape, &pose(yaw, 0.0).shape);
            assert!((residual - depth).abs() < 0.008, "{yaw}: {residual}");
        }
    }
}
