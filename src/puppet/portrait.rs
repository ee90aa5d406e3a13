//! A portrait fitted to the puppet's canvas: eyes level, and a face of the size that sessions need.

use crate::picture::Picture;

/// Width and height of a session's frames, in pixels.
pub(crate) const FRAME: [usize; 2] = [480, 640];
/// Margin of the canvas around a frame, in pixels, so that a frame can move over the canvas.
pub(crate) const MARGIN: usize = 80;
pub(crate) const CANVAS: [usize; 2] = [FRAME[0] + 2 * MARGIN, FRAME[1] + 2 * MARGIN];
/// Distance of the eyes on the canvas, in pixels. The face is then 200 pixels wide; 90 is the
/// limit.
pub(crate) const EYE_DISTANCE: f32 = 104.0;
/// Midpoint of the eyes on the canvas.
pub(crate) const EYE_MIDPOINT: [f32; 2] = [CANVAS[0] as f32 / 2.0, MARGIN as f32 + 280.0];

/// Numbers of mesh points; left and right are the person's own.
pub(crate) const NOSE_TIP: usize = 1;
pub(crate) const CHIN: usize = 152;
pub(crate) const FOREHEAD: usize = 10;
pub(crate) const CHEEKS: [usize; 2] = [234, 454];
const RIGHT_EYE: [usize; 2] = [33, 133];
const LEFT_EYE: [usize; 2] = [362, 263];

/// A point: x to the right, y down, z away from the camera.
pub type Point = [f32; 3];

/// A face on the canvas and its 468 mesh points, in pixels of the canvas.
#[derive(Debug, Clone)]
pub(crate) struct Portrait {
    pub(crate) canvas: Picture,
    pub(crate) points: Vec<Point>,
}

impl Portrait {
    /// Scales, levels and centres a picture by its mesh points, given in pixels of the picture.
    pub(crate) fn new(picture: &Picture, points: &[Point]) -> Self {
        assert_eq!(points.len(), 468, "a face mesh has 468 points");
        let similarity = SimilarityTransform::new(points);
        let mut source = picture.clone();
        let mut shrunk = 1.0;
        // Bilinear sampling skips pixels when it shrinks by more than two.
        while similarity.scale / shrunk > 1.5 {
            source = source.halved();
            shrunk *= 2.0;
        }
        let mut canvas = Picture::filled(CANVAS[0], CANVAS[1], [0; 3]);
        for y in 0..CANVAS[1] {
            for x in 0..CANVAS[0] {
                let [u, v] = similarity.canvas_to_picture([x as f32, y as f32]);
                let half = 0.5 / shrunk - 0.5;
                canvas.put(x, y, source.sample(u / shrunk + half, v / shrunk + half));
            }
        }
        Self {
            canvas,
            points: points.iter().map(|point| similarity.picture_to_canvas(*point)).collect(),
        }
    }

    /// Returns the midpoint of the corners of each eye: the person's right eye, then the left eye.
    pub(crate) fn eyes(&self) -> [Point; 2] {
        eyes(&self.points)
    }
}

fn eyes(points: &[Point]) -> [Point; 2] {
    [RIGHT_EYE, LEFT_EYE].map(|[a, b]| middle(points[a], points[b]))
}

fn middle(a: Point, b: Point) -> Point {
    std::array::from_fn(|axis| (a[axis] + b[axis]) / 2.0)
}

/// Similarity transform from the canvas to the picture.
struct SimilarityTransform {
    /// Pixels of the picture per pixel of the canvas.
    scale: f32,
    /// Unit vector along the line of the eyes, in the picture.
    along: [f32; 2],
    /// Midpoint of the eyes in the picture.
    middle: Point,
}

impl SimilarityTransform {
    fn new(points: &[Point]) -> Self {
        let [right, left] = eyes(points);
        let line = [left[0] - right[0], left[1] - right[1]];
        let length = line[0].hypot(line[1]);
        assert!(length > 1.0, "the eyes stand apart");
        Self {
            scale: length / EYE_DISTANCE,
            along: line.map(|component| component / length),
            middle: middle(right, left),
        }
    }

    fn canvas_to_picture(&self, at: [f32; 2]) -> [f32; 2] {
        let (x, y) =
            ((at[0] - EYE_MIDPOINT[0]) * self.scale, (at[1] - EYE_MIDPOINT[1]) * self.scale);
        let [c, s] = self.along;
        [self.middle[0] + c * x - s * y, self.middle[1] + s * x + c * y]
    }

    fn picture_to_canvas(&self, point: Point) -> Point {
        let [x, y, z] = std::array::from_fn(|axis| (point[axis] - self.middle[axis]) / self.scale);
        let [c, s] = self.along;
        [EYE_MIDPOINT[0] + c * x + s * y, EYE_MIDPOINT[1] - s * x + c * y, z]
    }
}
