//! What a detector finds, and which of several faces the request is about.

/// Most faces of one image that are looked at; a group photograph of a class fits.
pub const FACES_MAX: usize = 64;

/// A point in pixels of the decoded image: x right, y down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Right of the left edge.
    pub x: f32,
    /// Below the top edge.
    pub y: f32,
}

/// A rectangle in pixels of the decoded image; it may stick out of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width, positive.
    pub width: f32,
    /// Height, positive.
    pub height: f32,
}

impl Rect {
    /// Square pixels.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// The point in the middle.
    pub fn center(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }
}

/// One face. Right and left are the person's own: in an unmirrored image the right eye is on the
/// image's left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectedFace {
    /// Bounding box.
    pub rect: Rect,
    /// Detector score, 0..=1.
    pub score: f32,
    /// Right eye, left eye, nose tip, right mouth corner, left mouth corner.
    pub points: [Point; 5],
}

impl DetectedFace {
    /// The face in the source image, given where it is on a canvas of `scale` canvas pixels per
    /// source pixel (see [`crate::image::letterbox`]).
    pub fn to_source(&self, scale: f32) -> Self {
        let Rect { x, y, width, height } = self.rect;
        Self {
            rect: Rect { x: x / scale, y: y / scale, width: width / scale, height: height / scale },
            score: self.score,
            points: self.points.map(|p| Point { x: p.x / scale, y: p.y / scale }),
        }
    }
}

/// The face a request is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MainFace {
    /// Its place in the list it was chosen from.
    pub index: usize,
    /// The face.
    pub face: DetectedFace,
    /// Area of the largest other face relative to this one's; 0 when it is alone. ISO/IEC 29794-5
    /// "single face present".
    pub second_area_ratio: f32,
}

/// Chooses the face that the photograph is of: the largest, where a face counts for less the
/// farther it is from the middle of the image.
///
/// Weight = area × (1 − d/2), with d the distance of the box centre from the image centre in half
/// image diagonals, at most 1: in a corner a face must be twice as large as one in the middle.
/// Equal weights are decided by score, then by position (left, then top).
pub fn choose_main_face(faces: &[DetectedFace], width: usize, height: usize) -> Option<MainFace> {
    let weight = |face: &DetectedFace| {
        let center = face.rect.center();
        let (dx, dy) = (center.x - width as f32 / 2.0, center.y - height as f32 / 2.0);
        let half_diagonal = (width as f32).hypot(height as f32) / 2.0;
        face.rect.area() * (1.0 - (dx.hypot(dy) / half_diagonal).min(1.0) / 2.0)
    };
    let (index, &face) = faces.iter().enumerate().max_by(|(_, one), (_, other)| {
        weight(one)
            .total_cmp(&weight(other))
            .then(one.score.total_cmp(&other.score))
            .then(other.rect.x.total_cmp(&one.rect.x))
            .then(other.rect.y.total_cmp(&one.rect.y))
    })?;
    let others = faces.iter().enumerate().filter(|&(other, _)| other != index);
    let second_area = others.map(|(_, other)| other.rect.area()).fold(0.0, f32::max);
    Some(MainFace { index, face, second_area_ratio: second_area / face.rect.area() })
}
