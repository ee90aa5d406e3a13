//! Decoding of the YuNet detector's outputs.
//!
//! Source: OpenCV 4.x `modules/objdetect/src/face_detect.cpp` and `dnn/src/nms.cpp`.

use crate::face::{DetectedFace, FACES_MAX, FaceError, Point, Rect};

/// Canvas pixels per cell of the three output levels.
pub const STRIDES: [usize; 3] = [8, 16, 32];

/// A box is dropped if its intersection over union with a better box exceeds this value.
const OVERLAP_MAX: f32 = 0.3;

/// Most boxes that enter suppression, best first; OpenCV's `topK`. An ordinary face activates a few
/// dozen cells.
const CANDIDATES_MAX: usize = 5000;

/// Largest logarithm of a box side in strides: e⁸ × 32 pixels is wider than any canvas.
const LOG_SIDE_MAX: f32 = 8.0;

/// Outputs for one canvas, one level for each of the strides 8, 16 and 32. The cells of a level,
/// `(side / stride)²`, are line by line.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'a> {
    /// Probability of a face, 1 value per cell.
    pub cls: [&'a [f32]; 3],
    /// Expected overlap of the box, 1 value per cell.
    pub obj: [&'a [f32]; 3],
    /// Box: centre relative to the cell in strides, logarithms of width and height in strides; 4
    /// values per cell.
    pub bbox: [&'a [f32]; 3],
    /// Five points x, y relative to the cell in strides; 10 values per cell.
    pub kps: [&'a [f32]; 3],
}

/// Returns the faces on a square canvas of `side` pixels, best score first, at most [`FACES_MAX`].
///
/// Coordinates are canvas pixels. A cell is left out if one of its values is not finite, or if its
/// box or a point lies far outside the canvas.
///
/// # Errors
/// [`FaceError::CanvasSide`] and [`FaceError::DetectorOutput`] when lengths do not fit the canvas.
pub fn decode(
    outputs: &Outputs<'_>,
    side: usize,
    score_min: f32,
) -> Result<Vec<DetectedFace>, FaceError> {
    check_lengths(outputs, side)?;
    let mut candidates = Vec::new();
    for (level, stride) in STRIDES.into_iter().enumerate() {
        let cells_per_line = side / stride;
        for cell in 0..cells_per_line * cells_per_line {
            let score = score(outputs.cls[level][cell], outputs.obj[level][cell]);
            if score >= score_min {
                let corner = ((cell % cells_per_line) as f32, (cell / cells_per_line) as f32);
                let bbox = &outputs.bbox[level][cell * 4..][..4];
                let kps = &outputs.kps[level][cell * 10..][..10];
                candidates.push(read_face(score, corner, stride as f32, bbox, kps));
            }
        }
    }
    candidates.retain(|face| is_plausible(face, side as f32));
    Ok(suppress_overlaps(candidates))
}

/// Returns the geometric mean of both probabilities, or NaN if one of them is NaN.
fn score(cls: f32, obj: f32) -> f32 {
    (cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0)).sqrt()
}

fn read_face(
    score: f32,
    (column, line): (f32, f32),
    stride: f32,
    bbox: &[f32],
    kps: &[f32],
) -> DetectedFace {
    let (center_x, center_y) = ((column + bbox[0]) * stride, (line + bbox[1]) * stride);
    let width = bbox[2].min(LOG_SIDE_MAX).exp() * stride;
    let height = bbox[3].min(LOG_SIDE_MAX).exp() * stride;
    let point =
        |i: usize| Point { x: (kps[2 * i] + column) * stride, y: (kps[2 * i + 1] + line) * stride };
    DetectedFace {
        rect: Rect { x: center_x - width / 2.0, y: center_y - height / 2.0, width, height },
        score,
        points: std::array::from_fn(point),
    }
}

/// Returns true if the box has a side of 1 pixel to 4 canvas sides, and its centre and all points
/// lie within two canvas sides of the canvas's top left corner. Comparisons with NaN are false.
fn is_plausible(face: &DetectedFace, side: f32) -> bool {
    let is_near = |p: Point| p.x.abs() <= 2.0 * side && p.y.abs() <= 2.0 * side;
    let Rect { width, height, .. } = face.rect;
    let is_sized = |length: f32| (1.0..=4.0 * side).contains(&length);
    is_sized(width)
        && is_sized(height)
        && is_near(face.rect.center())
        && face.points.iter().all(|&p| is_near(p))
}

/// Greedy non-maximum suppression, best score first; equal scores keep their order.
fn suppress_overlaps(mut candidates: Vec<DetectedFace>) -> Vec<DetectedFace> {
    candidates.sort_by(|one, other| other.score.total_cmp(&one.score));
    let mut kept: Vec<DetectedFace> = Vec::new();
    for face in candidates.iter().take(CANDIDATES_MAX) {
        if kept.len() == FACES_MAX {
            break;
        }
        if kept.iter().all(|better| overlap(&better.rect, &face.rect) <= OVERLAP_MAX) {
            kept.push(*face);
        }
    }
    kept
}

/// Returns the intersection over union of both boxes, truncated to whole pixels as in OpenCV.
fn overlap(one: &Rect, other: &Rect) -> f32 {
    let common = |start: f32, length: f32, other_start: f32, other_length: f32| {
        let end = (start.trunc() + length.trunc()).min(other_start.trunc() + other_length.trunc());
        (end - start.trunc().max(other_start.trunc())).max(0.0)
    };
    let area = |rect: &Rect| rect.width.trunc() * rect.height.trunc();
    let both = common(one.x, one.width, other.x, other.width)
        * common(one.y, one.height, other.y, other.height);
    both / (area(one) + area(other) - both)
}

fn check_lengths(outputs: &Outputs<'_>, side: usize) -> Result<(), FaceError> {
    if side == 0 || !side.is_multiple_of(STRIDES[2]) {
        return Err(FaceError::CanvasSide { side });
    }
    let named = [
        ("cls", outputs.cls, 1),
        ("obj", outputs.obj, 1),
        ("bbox", outputs.bbox, 4),
        ("kps", outputs.kps, 10),
    ];
    for (output, levels, values_a_cell) in named {
        for (stride, values) in STRIDES.into_iter().zip(levels) {
            let expected = (side / stride).pow(2) * values_a_cell;
            let actual = values.len();
            if actual != expected {
                return Err(FaceError::DetectorOutput { output, stride, actual, expected });
            }
        }
    }
    Ok(())
}
