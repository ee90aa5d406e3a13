//! Detected faces, and the choice of the face that a request is about.

/// Most faces evaluated in one image; a class photograph fits.
pub const FACES_MAX: usize = 64;

/// A point in pixels, x right, y down: of the decoded image, or of the detector's canvas until
/// [`DetectedFace::to_source`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Distance from the left edge.
    pub x: f32,
    /// Distance from the top edge.
    pub y: f32,
}

/// A rectangle, in pixels as a [`Point`]. It may extend beyond the image.
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
    /// Returns the area in square pixels.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// Returns the centre.
    pub fn center(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }
}

/// A detected face. Right and left are the person's own: in an unmirrored image the right eye is on
/// the image's left.
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
    /// Maps the face from the detector's canvas to the source image. `scale` is canvas pixels per
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

/// The face that a request is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MainFace {
    /// Index in the list it was chosen from.
    pub index: usize,
    /// The face.
    pub face: DetectedFace,
}

/// Chooses the main face of a photograph: the largest, with less weight the farther it is from the
/// image centre.
///
/// Weight = area × (1 − d/2). d is the distance of the box centre from the image centre in half
/// image diagonals, at most 1. In a corner a face must therefore have twice the area of one in the
/// middle. Equal weights are decided by score, then by position (left, then top).
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
    Some(MainFace { index, face })
}
