//! Decision on a `Verify` and on a `CheckLiveness`: from the evidence to a verdict with reasons.
//!
//! The rules, in order:
//!
//! 1. RETRY if evidence is missing: the portrait or every live photograph is unusable.
//! 2. FAIL if there is evidence against the customer: a live photograph that is the portrait's own
//!    picture, a low PAD score, live photographs of different people, or a low similarity.
//! 3. REVIEW if the evidence is not clear: no calibration entry, or a similarity in the review
//!    band.
//! 4. PASS otherwise.
//!
//! Reasons that decided come first. Notes that decided nothing come last.

use super::ReasonCode;
use super::decision::{Decision, Reason, Subject, Thresholds};

/// The decision and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// The reasons, deciding reasons first.
    pub reasons: Vec<Reason>,
}

/// Evidence of one live photograph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LivePhotoEvidence {
    /// Reasons why the photograph is unusable; empty if it is usable.
    pub problems: Vec<Reason>,
    /// True if it is the same picture as the portrait.
    pub same_image: bool,
    /// PAD score: probability of a live person, 0..1.
    pub pad_score: Option<f64>,
    /// Cosine to the matched live photograph; `None` for the matched one itself.
    pub similarity_to_matched: Option<f64>,
}

impl LivePhotoEvidence {
    /// Returns true if the photograph has no problems and a PAD score.
    fn is_usable(&self) -> bool {
        self.problems.is_empty() && self.pad_score.is_some()
    }
}

/// All evidence of a `Verify`.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyEvidence {
    /// Reasons why the portrait is unusable; empty if it is usable.
    pub portrait_problems: Vec<Reason>,
    /// One item per live photograph, in the request's order.
    pub live_photos: Vec<LivePhotoEvidence>,
    /// Cosine of the portrait and the best live photograph.
    pub similarity: Option<f64>,
    /// Similarity thresholds.
    pub thresholds: Thresholds,
    /// Least PAD score.
    pub pad_score_min: f64,
}

/// Decides a `Verify` by the rules of this module.
pub fn decide_verify(evidence: &VerifyEvidence) -> Verdict {
    let is_any_usable = evidence.live_photos.iter().any(LivePhotoEvidence::is_usable);
    let live_problems =
        evidence.live_photos.iter().flat_map(|photo| photo.problems.iter().copied());
    if !evidence.portrait_problems.is_empty() || !is_any_usable {
        let mut reasons = evidence.portrait_problems.clone();
        reasons.extend(live_problems);
        return Verdict { decision: Decision::Retry, reasons };
    }

    let fail = verify_fail_reasons(evidence);
    let review = verify_review_reasons(evidence);
    let decision = match (fail.is_empty(), review.is_empty()) {
        (false, _) => Decision::Fail,
        (true, false) => Decision::Review,
        (true, true) => Decision::Pass,
    };
    let mut reasons = fail;
    reasons.extend(review);
    reasons.extend(live_problems);
    if matches!(evidence.thresholds, Thresholds::Calibrated { generic: true, .. }) {
        reasons.push(Reason::plain(ReasonCode::GenericCalibration, Subject::Request));
    }
    Verdict { decision, reasons }
}

/// Decides on the PAD score of one photograph.
pub fn decide_liveness(photo: &LivePhotoEvidence, subject: Subject, pad_score_min: f64) -> Verdict {
    match photo.pad_score {
        Some(score) if photo.is_usable() => {
            let low = (score < pad_score_min)
                .then(|| Reason::limited(ReasonCode::LivenessLow, subject, score, pad_score_min));
            let decision = if low.is_some() { Decision::Fail } else { Decision::Pass };
            Verdict { decision, reasons: low.into_iter().collect() }
        }
        _ => Verdict { decision: Decision::Retry, reasons: photo.problems.clone() },
    }
}

fn verify_fail_reasons(evidence: &VerifyEvidence) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let usable = || evidence.live_photos.iter().enumerate().filter(|(_, photo)| photo.is_usable());
    for (index, photo) in usable() {
        let subject = Subject::LivePhoto(index);
        if photo.same_image {
            reasons.push(Reason::plain(ReasonCode::SameImage, subject));
        }
        if let Some(score) = photo.pad_score.filter(|score| *score < evidence.pad_score_min) {
            let limit = evidence.pad_score_min;
            reasons.push(Reason::limited(ReasonCode::LivenessLow, subject, score, limit));
        }
    }
    let Thresholds::Calibrated { pass_min, review_min, .. } = evidence.thresholds else {
        return reasons;
    };
    for (index, photo) in usable() {
        if let Some(similarity) = photo.similarity_to_matched.filter(|s| *s < review_min) {
            reasons.push(photos_differ_reason(index, similarity, pass_min));
        }
    }
    if let Some(similarity) = evidence.similarity.filter(|s| *s < review_min) {
        let code = ReasonCode::SimilarityLow;
        reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
    }
    reasons
}

fn verify_review_reasons(evidence: &VerifyEvidence) -> Vec<Reason> {
    let Thresholds::Calibrated { pass_min, review_min, .. } = evidence.thresholds else {
        return vec![Reason::plain(ReasonCode::Uncalibrated, Subject::Request)];
    };
    let band = review_min..pass_min;
    let mut reasons = Vec::new();
    match evidence.similarity {
        Some(similarity) if band.contains(&similarity) => {
            let code = ReasonCode::SimilarityBorderline;
            reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
        }
        Some(_) => {}
        // Usable photographs always have a similarity. Without one nothing may pass.
        None => reasons.push(Reason::plain(ReasonCode::Uncalibrated, Subject::Request)),
    }
    for (index, photo) in
        evidence.live_photos.iter().enumerate().filter(|(_, photo)| photo.is_usable())
    {
        if let Some(similarity) = photo.similarity_to_matched.filter(|s| band.contains(s)) {
            reasons.push(photos_differ_reason(index, similarity, pass_min));
        }
    }
    reasons
}

fn photos_differ_reason(index: usize, similarity: f64, pass_min: f64) -> Reason {
    let subject = Subject::LivePhoto(index);
    Reason::limited(ReasonCode::LivePhotosDiffer, subject, similarity, pass_min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds =
        Thresholds::Calibrated { pass_min: 0.425, review_min: 0.37, generic: false };

    fn live_photo(pad_score: f64) -> LivePhotoEvidence {
        LivePhotoEvidence { pad_score: Some(pad_score), ..LivePhotoEvidence::default() }
    }

    fn evidence(similarity: f64) -> VerifyEvidence {
        VerifyEvidence {
            portrait_problems: vec![],
            live_photos: vec![live_photo(0.99)],
            similarity: Some(similarity),
            thresholds: THRESHOLDS,
            pad_score_min: 0.5,
        }
    }

    fn codes(verdict: &Verdict) -> Vec<ReasonCode> {
        verdict.reasons.iter().map(|reason| reason.code).collect()
    }

    fn blurred(subject: Subject) -> Reason {
        Reason::limited(ReasonCode::Blurred, subject, 1.0, 2.0)
    }

    #[test]
    fn similarity_decides_pass_review_and_fail() {
        for (similarity, decision, want) in [
            (0.425, Decision::Pass, vec![]),
            (0.4249, Decision::Review, vec![ReasonCode::SimilarityBorderline]),
            (0.37, Decision::Review, vec![ReasonCode::SimilarityBorderline]),
            (0.3699, Decision::Fail, vec![ReasonCode::SimilarityLow]),
        ] {
            let verdict = decide_verify(&evidence(similarity));
            assert_eq!((verdict.decision, codes(&verdict)), (decision, want), "{similarity}");
        }
    }

    #[test]
    fn without_a_calibration_entry_nothing_passes() {
        let verdict = decide_verify(&VerifyEvidence {
            thresholds: Thresholds::Uncalibrated,
            ..evidence(0.99)
        });
        assert_eq!(verdict.decision, Decision::Review);
        assert_eq!(codes(&verdict), [ReasonCode::Uncalibrated]);
    }

    #[test]
    fn without_a_similarity_nothing_passes() {
        let verdict = decide_verify(&VerifyEvidence { similarity: None, ..evidence(0.0) });
        assert_eq!(verdict.decision, Decision::Review);
    }

    #[test]
    fn a_generic_entry_is_noted_and_decides_nothing() {
        let thresholds = Thresholds::Calibrated { pass_min: 0.4, review_min: 0.4, generic: true };
        let verdict = decide_verify(&VerifyEvidence { thresholds, ..evidence(0.5) });
        assert_eq!(verdict.decision, Decision::Pass);
        assert_eq!(codes(&verdict), [ReasonCode::GenericCalibration]);
    }

    #[test]
    fn a_spoofed_photograph_fails_however_similar() {
        let verdict = decide_verify(&VerifyEvidence {
            live_photos: vec![live_photo(0.99), live_photo(0.49)],
            ..evidence(0.9)
        });
        assert_eq!(verdict.decision, Decision::Fail);
        assert_eq!(verdict.reasons[0].subject, Subject::LivePhoto(1));
        assert_eq!(codes(&verdict), [ReasonCode::LivenessLow]);
    }

    #[test]
    fn the_portrait_shown_as_the_live_photograph_fails() {
        let copy = LivePhotoEvidence { same_image: true, ..live_photo(0.99) };
        let verdict = decide_verify(&VerifyEvidence { live_photos: vec![copy], ..evidence(1.0) });
        assert_eq!(
            (verdict.decision, codes(&verdict)),
            (Decision::Fail, vec![ReasonCode::SameImage])
        );
    }

    #[test]
    fn another_person_among_the_live_photographs_fails() {
        for (similarity, decision) in
            [(0.1, Decision::Fail), (0.4, Decision::Review), (0.6, Decision::Pass)]
        {
            let other =
                LivePhotoEvidence { similarity_to_matched: Some(similarity), ..live_photo(0.99) };
            let verdict = decide_verify(&VerifyEvidence {
                live_photos: vec![live_photo(0.99), other],
                ..evidence(0.6)
            });
            assert_eq!(verdict.decision, decision, "{similarity}");
        }
    }

    #[test]
    fn an_unusable_portrait_or_no_usable_live_photograph_is_a_retry() {
        let problems = vec![blurred(Subject::Portrait)];
        let verdict =
            decide_verify(&VerifyEvidence { portrait_problems: problems, ..evidence(0.9) });
        assert_eq!(
            (verdict.decision, codes(&verdict)),
            (Decision::Retry, vec![ReasonCode::Blurred])
        );

        let problems = vec![blurred(Subject::LivePhoto(0))];
        let live_photos = vec![LivePhotoEvidence { problems, ..LivePhotoEvidence::default() }];
        assert_eq!(
            decide_verify(&VerifyEvidence { live_photos, ..evidence(0.9) }).decision,
            Decision::Retry
        );
        assert_eq!(
            decide_verify(&VerifyEvidence { live_photos: vec![], ..evidence(0.9) }).decision,
            Decision::Retry
        );
    }

    #[test]
    fn a_photograph_that_is_left_out_is_noted_behind_the_decision() {
        let problems = vec![blurred(Subject::LivePhoto(1))];
        let left_out = LivePhotoEvidence { problems, ..LivePhotoEvidence::default() };
        let verdict = decide_verify(&VerifyEvidence {
            live_photos: vec![live_photo(0.9), left_out],
            ..evidence(0.1)
        });
        assert_eq!(verdict.decision, Decision::Fail);
        assert_eq!(codes(&verdict), [ReasonCode::SimilarityLow, ReasonCode::Blurred]);
    }

    #[test]
    fn liveness_alone_is_judged_by_its_score_and_a_poor_photograph_is_a_retry() {
        let decide = |photo| decide_liveness(&photo, Subject::Image, 0.5).decision;
        assert_eq!(decide(live_photo(0.5)), Decision::Pass);
        assert_eq!(decide(live_photo(0.49)), Decision::Fail);
        assert_eq!(decide(LivePhotoEvidence::default()), Decision::Retry);
        let problems = vec![blurred(Subject::Image)];
        assert_eq!(decide(LivePhotoEvidence { problems, ..live_photo(0.9) }), Decision::Retry);
    }

    proptest! {
        #[test]
        fn a_pass_means_that_every_rule_held(
            similarity in prop::option::of(-1.0..1.0_f64),
            live_photos in prop::collection::vec(
                (
                    any::<bool>(),
                    any::<bool>(),
                    prop::option::of(0.0..1.0_f64),
                    prop::option::of(-1.0..1.0_f64),
                ),
                0..4,
            ),
            portrait_bad in any::<bool>(),
            calibrated in any::<bool>(),
        ) {
            let live_photos: Vec<LivePhotoEvidence> = live_photos
                .into_iter()
                .enumerate()
                .map(|(index, (bad, same_image, pad_score, similarity_to_matched))| {
                    let subject = Subject::LivePhoto(index);
                    let problems = if bad { vec![blurred(subject)] } else { vec![] };
                    LivePhotoEvidence { problems, same_image, pad_score, similarity_to_matched }
                })
                .collect();
            let portrait_problems =
                if portrait_bad { vec![blurred(Subject::Portrait)] } else { vec![] };
            let thresholds = if calibrated { THRESHOLDS } else { Thresholds::Uncalibrated };
            let evidence = VerifyEvidence {
                portrait_problems,
                live_photos,
                similarity,
                thresholds,
                pad_score_min: 0.5,
            };
            let verdict = decide_verify(&evidence);
            if verdict.decision == Decision::Pass {
                prop_assert!(calibrated && !portrait_bad);
                prop_assert!(similarity.is_some_and(|s| s >= 0.425));
                let usable = evidence.live_photos.iter().filter(|photo| photo.is_usable());
                let mut usable = usable.peekable();
                prop_assert!(usable.peek().is_some());
                for photo in usable {
                    prop_assert!(!photo.same_image);
                    prop_assert!(photo.pad_score.is_some_and(|score| score >= 0.5));
                    prop_assert!(photo.similarity_to_matched.is_none_or(|s| s >= 0.425));
                }
            } else {
                prop_assert!(!verdict.reasons.is_empty() || verdict.decision == Decision::Retry);
            }
        }
    }
}
