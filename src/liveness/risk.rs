//! Risks: what makes a picture of a picture more likely and proves nothing. They are listed with
//! value and limit; a deployment may have a person look at sessions that show one. Nobody fails
//! for them.

use super::baseline::percentile;
use super::outcome::{Rule, RuleCheck};
use crate::face::verdict::{Reason, Subject};
use crate::face::{ReasonCode, Rect};

/// When a risk is listed, and what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct RiskLimits {
    /// Strongest regular pattern in the face, in decibels above what surrounds it.
    pub pattern_db_max: f64,
    /// Least share of the face's box that lies in the frame.
    pub face_inside_min: f64,
    /// Least distance of the eyes in widths of the face's box.
    pub eye_share_min: f64,
    /// Largest distance of the eyes in widths of the face's box.
    pub eye_share_max: f64,
    /// A session that would pass goes to a person if it shows a risk.
    pub is_review: bool,
}

impl Default for RiskLimits {
    fn default() -> Self {
        Self {
            // Photographs of faces have up to 9, screens 26 and more.
            pattern_db_max: 15.0,
            // A face that does not fit into the frame is no customer at arm's length.
            face_inside_min: 0.9,
            // Rendered heads that look into the camera have 0.415 to 0.497, bent prints up to 0.63.
            eye_share_min: 0.36,
            eye_share_max: 0.58,
            is_review: false,
        }
    }
}

/// What the picture of a judged face shows besides the face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceRisks {
    /// See [`crate::image::pattern_db`]; unset where the frame is too small for it.
    pub pattern_db: Option<f64>,
    /// Share of the face's box that lies in the frame.
    pub face_inside: f64,
    /// Distance of the eyes in widths of the face's box.
    pub eye_share: f64,
}

/// Share of a box that lies in a frame of this width and height.
pub fn share_inside(face: &Rect, [width, height]: [usize; 2]) -> f64 {
    let within = |from: f32, length: f32, side: usize| {
        let (from, to) = (f64::from(from), f64::from(from) + f64::from(length));
        (to.min(side as f64) - from.max(0.0)).max(0.0) / f64::from(length)
    };
    within(face.x, face.width, width) * within(face.y, face.height, height)
}

/// The medians of all judged frames against their limits.
pub(super) fn checks(frames: &[FaceRisks], limits: &RiskLimits) -> Vec<RuleCheck> {
    let median =
        |value: fn(&FaceRisks) -> Option<f64>| percentile(frames.iter().filter_map(value), 0.5);
    let eyes = median(|face| Some(face.eye_share));
    let checks = [
        median(|face| face.pattern_db)
            .map(|db| RuleCheck::at_most(Rule::RiskPattern, db, limits.pattern_db_max)),
        median(|face| Some(face.face_inside))
            .map(|share| RuleCheck::at_least(Rule::RiskFaceInside, share, limits.face_inside_min)),
        eyes.map(|share| RuleCheck::at_least(Rule::RiskEyeShare, share, limits.eye_share_min)),
        eyes.map(|share| RuleCheck::at_most(Rule::RiskEyeShare, share, limits.eye_share_max)),
    ];
    checks.into_iter().flatten().collect()
}

/// The risks among a session's checks.
pub(super) fn reasons(checks: &[RuleCheck]) -> Vec<Reason> {
    let reason = |check: &RuleCheck| {
        let code = match check.rule {
            Rule::RiskPattern => ReasonCode::RiskPattern,
            Rule::RiskFaceInside => ReasonCode::RiskFaceCut,
            Rule::RiskEyeShare => ReasonCode::RiskFaceShape,
            _ => return None,
        };
        let reason = Reason::limited(code, Subject::Request, check.value, check.limit);
        (!check.passed).then_some(reason)
    };
    checks.iter().filter_map(reason).collect()
}

/// Whether a reason is a risk.
pub(super) fn is_risk(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::RiskPattern | ReasonCode::RiskFaceCut | ReasonCode::RiskFaceShape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: FaceRisks = FaceRisks { pattern_db: Some(6.0), face_inside: 1.0, eye_share: 0.46 };

    fn codes(frames: &[FaceRisks]) -> Vec<ReasonCode> {
        let checks = checks(frames, &RiskLimits::default());
        reasons(&checks).iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn a_risk_is_what_most_frames_show() {
        let screen = FaceRisks { pattern_db: Some(27.0), ..PLAIN };
        let small = FaceRisks { pattern_db: None, ..PLAIN };
        let cut = FaceRisks { face_inside: 0.8, ..PLAIN };
        let [wide, narrow] = [0.6, 0.3].map(|eye_share| FaceRisks { eye_share, ..PLAIN });
        assert!(codes(&[PLAIN, small]).is_empty() && codes(&[]).is_empty());
        assert!(codes(&[PLAIN, PLAIN, screen]).is_empty());
        assert_eq!(codes(&[PLAIN, screen, screen]), [ReasonCode::RiskPattern]);
        assert_eq!(codes(&[cut]), [ReasonCode::RiskFaceCut]);
        assert_eq!(codes(&[wide]), [ReasonCode::RiskFaceShape]);
        assert_eq!(codes(&[narrow]), [ReasonCode::RiskFaceShape]);
    }

    #[test]
    fn a_box_is_inside_by_the_share_of_its_area() {
        let face = |x, y| Rect { x, y, width: 100.0, height: 100.0 };
        assert_eq!(share_inside(&face(0.0, 0.0), [100, 100]), 1.0);
        assert_eq!(share_inside(&face(-25.0, 50.0), [100, 100]), 0.375);
        assert_eq!(share_inside(&face(200.0, 0.0), [100, 100]), 0.0);
    }
}
