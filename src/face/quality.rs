//! Quality of a face image: measures with limits, after ISO/IEC 29794-5.

use crate::face::{DetectedFace, MainFace, Point, QualityLimits, SourceLimits};
use crate::image::{LumaImage, RgbImage};

/// Source of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageSource {
    /// A photograph just taken at the counter.
    LivePhoto,
    /// A portrait from a document scan or a registry file.
    IdFile,
    /// A portrait read from an identity card's chip.
    IdChip,
}

impl ImageSource {
    /// Returns the limits for images of this source.
    pub fn limits(self, limits: &QualityLimits) -> &SourceLimits {
        match self {
            Self::LivePhoto => &limits.live_photo,
            Self::IdFile => &limits.id_file,
            Self::IdChip => &limits.id_chip,
        }
    }
}

/// A property of a photographed face; the same list as `Measure` of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Number of faces that compete with the main face, itself included.
    FaceCount,
    /// Detector score, 0..=1.
    DetectorScore,
    /// Distance of the eye centres in pixels, corrected for yaw.
    InterEyeDistance,
    /// Degrees; positive: the face points to image left.
    Yaw,
    /// Degrees; positive: looking down.
    Pitch,
    /// Degrees; positive: clockwise in the image.
    Roll,
    /// Variance of the Laplacian of the aligned face's luma.
    Sharpness,
    /// Mean luma of the aligned face, 0..=1.
    Brightness,
    /// Fraction of the aligned face's pixels with luma 25 or less.
    UnderExposed,
    /// Fraction of the aligned face's pixels with luma 247 or more.
    OverExposed,
    /// L2 norm of the raw embedding.
    EmbeddingNorm,
    /// Residual of the alignment in inter-eye distances of the template.
    LandmarkFit,
}

/// The side of the limit on which a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// At least the limit.
    Min,
    /// At most the limit.
    Max,
}

/// A measured property and its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// The property.
    pub measure: Measure,
    /// The value; signed for angles.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// The side of the limit on which the value must be.
    pub kind: LimitKind,
    /// True if the limit was kept. A NaN keeps no limit.
    pub passed: bool,
}

impl Check {
    fn at_least(measure: Measure, value: f64, limit: f64) -> Self {
        Self { measure, value, limit, kind: LimitKind::Min, passed: value >= limit }
    }

    fn at_most(measure: Measure, value: f64, limit: f64) -> Self {
        Self { measure, value, limit, kind: LimitKind::Max, passed: value <= limit }
    }

    /// Checks an angle: the value keeps its sign, its absolute value is compared.
    fn angle(measure: Measure, value: f64, limit: f64) -> Self {
        Self { passed: value.abs() <= limit, ..Self::at_most(measure, value, limit) }
    }
}

/// Returns the checks of the detector's output: number of faces, score, size and pose.
pub fn check_detection(
    faces: &[DetectedFace],
    main: &MainFace,
    limits: &SourceLimits,
) -> [Check; 6] {
    let competing_area = main.face.rect.area() * limits.second_face_area_max as f32;
    let competitors = faces
        .iter()
        .enumerate()
        .filter(|(index, face)| *index != main.index && face.rect.area() > competing_area)
        .count();
    let pose = HeadPose::from_points(&main.face.points);
    let eye_distance = inter_eye_distance(&main.face.points, &pose);
    let score = f64::from(main.face.score);
    [
        Check::at_most(Measure::FaceCount, (competitors + 1) as f64, 1.0),
        Check::at_least(Measure::DetectorScore, score, limits.detector_score_min),
        Check::at_least(Measure::InterEyeDistance, eye_distance, limits.inter_eye_distance_min),
        Check::angle(Measure::Yaw, pose.yaw, limits.yaw_max),
        Check::angle(Measure::Pitch, pose.pitch, limits.pitch_max),
        Check::angle(Measure::Roll, pose.roll, limits.roll_max),
    ]
}

/// Returns the checks of the aligned face: residual of the alignment
/// ([`crate::face::Alignment::fit`]), focus and light.
pub fn check_crop(aligned: &RgbImage, fit_residual: f64, limits: &SourceLimits) -> [Check; 6] {
    let luma = LumaImage::new(aligned);
    let brightness = brightness(&luma);
    let dark = fraction_of_pixels(&luma, |value| value <= LUMA_DARK);
    let bright = fraction_of_pixels(&luma, |value| value >= LUMA_BRIGHT);
    [
        Check::at_most(Measure::LandmarkFit, fit_residual, limits.landmark_fit_max),
        Check::at_least(Measure::Sharpness, sharpness(&luma), limits.sharpness_min),
        Check::at_least(Measure::Brightness, brightness, limits.brightness_min),
        Check::at_most(Measure::Brightness, brightness, limits.brightness_max),
        Check::at_most(Measure::UnderExposed, dark, limits.under_exposed_max),
        Check::at_most(Measure::OverExposed, bright, limits.over_exposed_max),
    ]
}

/// Returns the check of the raw embedding's norm.
pub fn check_norm(norm: f32, limits: &SourceLimits) -> Check {
    Check::at_least(Measure::EmbeddingNorm, f64::from(norm), limits.embedding_norm_min)
}

/// Luma up to which a pixel is under-exposed, and from which it is over-exposed (BSI OFIQ).
const LUMA_DARK: u8 = 25;
const LUMA_BRIGHT: u8 = 247;

/// Head pose in degrees, estimated from five points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct HeadPose {
    /// Positive: the face points to image left.
    pub yaw: f64,
    /// Positive: looking down. Comparable between pictures of one person; the zero differs between
    /// faces by some 5 degrees.
    pub pitch: f64,
    /// Positive: clockwise in the image.
    pub roll: f64,
}

/// Degrees of yaw per offset of the nose from the middle, in inter-eye distances. Fitted on 163
/// faces against a 66-bin pose network and the normal of a dense mesh (correlation 0.93).
const YAW_PER_OFFSET: f64 = -77.0;

/// Height of the nose tip between eyes (0) and mouth (1) of a frontal face.
const NOSE_HEIGHT_FRONTAL: f64 = 0.537;

/// Change of that height per degree of pitch, on a canonical face mesh.
const NOSE_HEIGHT_PER_DEGREE: f64 = 0.010;

impl HeadPose {
    /// Estimates the pose from points in the order of [`DetectedFace::points`]. Points that
    /// coincide give NaN, which passes no check.
    fn from_points(points: &[Point; 5]) -> Self {
        let [right_eye, left_eye, nose, right_mouth, left_mouth] = points.map(Vector::from);
        let eye_line = left_eye - right_eye;
        let along = eye_line * (1.0 / eye_line.length());
        let down = Vector { x: -along.y, y: along.x };
        let eyes = (right_eye + left_eye) * 0.5;
        let mouth = (right_mouth + left_mouth) * 0.5;
        let offset = (nose - (eyes + mouth) * 0.5).dot(along) / eye_line.length();
        let nose_height = (nose - eyes).dot(down) / (mouth - eyes).dot(down);
        Self {
            yaw: YAW_PER_OFFSET * offset,
            pitch: (nose_height - NOSE_HEIGHT_FRONTAL) / NOSE_HEIGHT_PER_DEGREE,
            roll: eye_line.y.atan2(eye_line.x).to_degrees(),
        }
    }
}

/// Returns the distance of the eyes in a frontal view. The correction ends at 60° of yaw, beyond
/// which the five points do not determine the angle.
fn inter_eye_distance(points: &[Point; 5], pose: &HeadPose) -> f64 {
    let apparent = (Vector::from(points[1]) - Vector::from(points[0])).length();
    apparent / pose.yaw.abs().min(60.0).to_radians().cos()
}

/// Returns the mean luma, 0..=1.
pub fn brightness(luma: &LumaImage) -> f64 {
    mean(luma.values().iter().map(|&value| f64::from(value))) / 255.0
}

/// Returns the variance of the 4-neighbour Laplacian over all inner pixels (Pech-Pacheco et al.,
/// 2000).
pub fn sharpness(luma: &LumaImage) -> f64 {
    let (width, values) = (luma.width(), luma.values());
    let laplacian = |at: usize| {
        let around = [at - 1, at + 1, at - width, at + width];
        let sum: i32 = around.iter().map(|&i| i32::from(values[i])).sum();
        f64::from(sum - 4 * i32::from(values[at]))
    };
    let inner = || {
        let lines = 1..luma.height().saturating_sub(1);
        lines.flat_map(|y| (1..width.saturating_sub(1)).map(move |x| y * width + x)).map(laplacian)
    };
    let center = mean(inner());
    mean(inner().map(|value| (value - center).powi(2)))
}

fn fraction_of_pixels(luma: &LumaImage, counts: impl Fn(u8) -> bool) -> f64 {
    mean(luma.values().iter().map(|&value| f64::from(u8::from(counts(value)))))
}

/// Returns the mean, or NaN without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

#[derive(Clone, Copy)]
struct Vector {
    x: f64,
    y: f64,
}

impl Vector {
    fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y
    }

    fn length(self) -> f64 {
        self.x.hypot(self.y)
    }
}

impl From<Point> for Vector {
    fn from(point: Point) -> Self {
        Self { x: point.x.into(), y: point.y.into() }
    }
}

impl std::ops::Add for Vector {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { x: self.x + other.x, y: self.y + other.y }
    }
}

impl std::ops::Sub for Vector {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + other * -1.0
    }
}

impl std::ops::Mul<f64> for Vector {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { x: self.x * factor, y: self.y * factor }
    }
}
