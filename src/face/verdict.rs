//! From evidence to a decision with reasons.
//!
//! The rules, in order:
//!
//! 1. Evidence is missing (the portrait or every live photograph is unusable): RETRY.
//! 2. Something speaks against the customer (the same picture twice, low liveness, live
//!    photographs of different people, low similarity): FAIL.
//! 3. Nobody can tell (no calibration entry, or a similarity in the review band): REVIEW.
//! 4. Otherwise PASS.
//!
//! Reasons stand with those that decided first; notes that decided nothing come last.

use std::fmt;

use super::{Check, ReasonCode};

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same, live person, at the false-match rate asked for.
    Pass,
    /// Not the same person, or not a live one.
    Fail,
    /// A person must decide.
    Review,
    /// Take the photograph again.
    Retry,
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The request as a whole.
    Request,
    /// The portrait of a `Verify`.
    Portrait,
    /// A live photograph of a `Verify`, by its place in the request.
    LivePhoto(usize),
    /// The image of a request about one image.
    Image,
    /// The first side of a `Compare`.
    SideA,
    /// The second side of a `Compare`.
    SideB,
}

/// Prints the field of the request that holds the image; nothing for the request itself.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Portrait => f.write_str("portrait"),
            Self::LivePhoto(index) => write!(f, "live_photos[{index}]"),
            Self::Image => f.write_str("image"),
            Self::SideA => f.write_str("a.image"),
            Self::SideB => f.write_str("b.image"),
        }
    }
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// Which of the fixed list.
    pub code: ReasonCode,
    /// What it is about.
    pub subject: Subject,
    /// What was measured, where the reason has a number.
    pub value: Option<f64>,
    /// What it was held against.
    pub limit: Option<f64>,
}

impl Reason {
    /// A reason without numbers.
    pub fn plain(code: ReasonCode, subject: Subject) -> Self {
        Self { code, subject, value: None, limit: None }
    }

    /// A reason with a value and its limit.
    pub fn limited(code: ReasonCode, subject: Subject, value: f64, limit: f64) -> Self {
        Self { code, subject, value: Some(value), limit: Some(limit) }
    }

    /// The reason behind a check that failed; `None` when it held.
    pub fn of_check(check: &Check, subject: Subject) -> Option<Self> {
        check.reason().map(|code| Self::limited(code, subject, check.value, check.limit))
    }
}

/// The answer, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What the caller should do.
    pub decision: Decision,
    /// Why, deciding reasons first.
    pub reasons: Vec<Reason>,
}

/// The similarities a comparison is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// Thresholds of a calibration entry.
    Calibrated {
        /// Least cosine that passes at the policy's false-match rate.
        pass_min: f64,
        /// Least cosine that goes to a person; not above `pass_min`.
        review_min: f64,
        /// The entry was not measured on this deployment's own kind of pairs.
        generic: bool,
    },
    /// No entry: nothing may pass.
    Uncalibrated,
}

/// What was found about one live photograph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LiveEvidence {
    /// Why the photograph cannot be used; empty when it can.
    pub problems: Vec<Reason>,
    /// It is the portrait's picture over again.
    pub same_image: bool,
    /// Probability of a live person, 0..1.
    pub liveness: Option<f64>,
    /// Cosine to the live photograph that was matched; unset for that one itself.
    pub similarity_to_matched: Option<f64>,
}

impl LiveEvidence {
    /// A photograph whose liveness is unknown counts for nothing.
    fn usable(&self) -> bool {
        self.problems.is_empty() && self.liveness.is_some()
    }
}

/// Everything a `Verify` is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Why the portrait cannot be used; empty when it can.
    pub portrait_problems: Vec<Reason>,
    /// One entry per live photograph, in the request's order.
    pub live: Vec<LiveEvidence>,
    /// Cosine of the portrait and the best live photograph.
    pub similarity: Option<f64>,
    /// Thresholds for similarity.
    pub bar: Bar,
    /// Least probability of a live person.
    pub liveness_min: f64,
}

/// Judges a `Verify` by the rules of this module.
pub fn judge(evidence: &Evidence) -> Verdict {
    let live_usable = evidence.live.iter().any(LiveEvidence::usable);
    let live_problems = evidence.live.iter().flat_map(|photo| photo.problems.iter().copied());
    if !evidence.portrait_problems.is_empty() || !live_usable {
        let mut reasons = evidence.portrait_problems.clone();
        reasons.extend(live_problems);
        return Verdict { decision: Decision::Retry, reasons };
    }

    let against = against(evidence);
    let unsure = unsure(evidence);
    let decision = match (against.is_empty(), unsure.is_empty()) {
        (false, _) => Decision::Fail,
        (true, false) => Decision::Review,
        (true, true) => Decision::Pass,
    };
    let mut reasons = against;
    reasons.extend(unsure);
    reasons.extend(live_problems);
    if matches!(evidence.bar, Bar::Calibrated { generic: true, .. }) {
        reasons.push(Reason::plain(ReasonCode::GenericCalibration, Subject::Request));
    }
    Verdict { decision, reasons }
}

/// Judges the passive liveness of one photograph.
pub fn judge_liveness(photo: &LiveEvidence, subject: Subject, score_min: f64) -> Verdict {
    match photo.liveness {
        Some(score) if photo.usable() => {
            let low = (score < score_min)
                .then(|| Reason::limited(ReasonCode::LivenessLow, subject, score, score_min));
            let decision = if low.is_some() { Decision::Fail } else { Decision::Pass };
            Verdict { decision, reasons: low.into_iter().collect() }
        }
        _ => Verdict { decision: Decision::Retry, reasons: photo.problems.clone() },
    }
}

/// Reasons that fail the request.
fn against(evidence: &Evidence) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let usable = || evidence.live.iter().enumerate().filter(|(_, photo)| photo.usable());
    for (index, photo) in usable() {
        let subject = Subject::LivePhoto(index);
        if photo.same_image {
            reasons.push(Reason::plain(ReasonCode::SameImage, subject));
        }
        if let Some(score) = photo.liveness.filter(|score| *score < evidence.liveness_min) {
            let limit = evidence.liveness_min;
            reasons.push(Reason::limited(ReasonCode::LivenessLow, subject, score, limit));
        }
    }
    let Bar::Calibrated { pass_min, review_min, .. } = evidence.bar else { return reasons };
    for (index, photo) in usable() {
        if let Some(similarity) = photo.similarity_to_matched.filter(|s| *s < review_min) {
            reasons.push(differ(index, similarity, pass_min));
        }
    }
    if let Some(similarity) = evidence.similarity.filter(|s| *s < review_min) {
        let code = ReasonCode::SimilarityLow;
        reasons.push(Reason::limited(code, Subject::Request, similarity, pass_min));
    }
    reasons
}

/// Reasons that send the request to a person.
fn unsure(evidence: &Evidence) -> Vec<Reason> {
    let Bar::Calibrated { pass_min, review_min, .. } = evidence.bar else {
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
        // Usable photographs always have a similarity; without one nothing may pass.
        None => reasons.push(Reason::plain(ReasonCode::Uncalibrated, Subject::Request)),
    }
    for (index, photo) in evidence.live.iter().enumerate().filter(|(_, photo)| photo.usable()) {
        if let Some(similarity) = photo.similarity_to_matched.filter(|s| band.contains(s)) {
            reasons.push(differ(index, similarity, pass_min));
        }
    }
    reasons
}

fn differ(index: usize, similarity: f64, pass_min: f64) -> Reason {
    let subject = Subject::LivePhoto(index);
    Reason::limited(ReasonCode::LivePhotosDiffer, subject, similarity, pass_min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAR: Bar = Bar::Calibrated { pass_min: 0.425, review_min: 0.37, generic: false };

    fn live(liveness: f64) -> LiveEvidence {
        LiveEvidence { liveness: Some(liveness), ..LiveEvidence::default() }
    }

    fn evidence(similarity: f64) -> Evidence {
        Evidence {
            portrait_problems: vec![],
            live: vec![live(0.99)],
            similarity: Some(similarity),
            bar: BAR,
            liveness_min: 0.5,
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
            let verdict = judge(&evidence(similarity));
            assert_eq!((verdict.decision, codes(&verdict)), (decision, want), "{similarity}");
        }
    }

    #[test]
    fn without_a_row_nothing_passes() {
        let verdict = judge(&Evidence { bar: Bar::Uncalibrated, ..evidence(0.99) });
        assert_eq!(verdict.decision, Decision::Review);
        assert_eq!(codes(&verdict), [ReasonCode::Uncalibrated]);
    }

    #[test]
    fn without_a_similarity_nothing_passes() {
        let verdict = judge(&Evidence { similarity: None, ..evidence(0.0) });
        assert_eq!(verdict.decision, Decision::Review);
    }

    #[test]
    fn a_generic_row_is_noted_and_decides_nothing() {
        let bar = Bar::Calibrated { pass_min: 0.4, review_min: 0.4, generic: true };
        let verdict = judge(&Evidence { bar, ..evidence(0.5) });
        assert_eq!(verdict.decision, Decision::Pass);
        assert_eq!(codes(&verdict), [ReasonCode::GenericCalibration]);
    }

    #[test]
    fn a_spoofed_photograph_fails_however_similar() {
        let verdict = judge(&Evidence { live: vec![live(0.99), live(0.49)], ..evidence(0.9) });
        assert_eq!(verdict.decision, Decision::Fail);
        assert_eq!(verdict.reasons[0].subject, Subject::LivePhoto(1));
        assert_eq!(codes(&verdict), [ReasonCode::LivenessLow]);
    }

    #[test]
    fn the_portrait_shown_as_the_live_photograph_fails() {
        let copy = LiveEvidence { same_image: true, ..live(0.99) };
        let verdict = judge(&Evidence { live: vec![copy], ..evidence(1.0) });
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
            let other = LiveEvidence { similarity_to_matched: Some(similarity), ..live(0.99) };
            let verdict = judge(&Evidence { live: vec![live(0.99), other], ..evidence(0.6) });
            assert_eq!(verdict.decision, decision, "{similarity}");
        }
    }

    #[test]
    fn an_unusable_portrait_or_no_usable_live_photograph_is_a_retry() {
        let problems = vec![blurred(Subject::Portrait)];
        let verdict = judge(&Evidence { portrait_problems: problems, ..evidence(0.9) });
        assert_eq!(
            (verdict.decision, codes(&verdict)),
            (Decision::Retry, vec![ReasonCode::Blurred])
        );

        let problems = vec![blurred(Subject::LivePhoto(0))];
        let live = vec![LiveEvidence { problems, ..LiveEvidence::default() }];
        assert_eq!(judge(&Evidence { live, ..evidence(0.9) }).decision, Decision::Retry);
        assert_eq!(judge(&Evidence { live: vec![], ..evidence(0.9) }).decision, Decision::Retry);
    }

    #[test]
    fn a_photograph_that_is_left_out_is_noted_behind_the_decision() {
        let problems = vec![blurred(Subject::LivePhoto(1))];
        let left_out = LiveEvidence { problems, ..LiveEvidence::default() };
        let verdict = judge(&Evidence { live: vec![live(0.9), left_out], ..evidence(0.1) });
        assert_eq!(verdict.decision, Decision::Fail);
        assert_eq!(codes(&verdict), [ReasonCode::SimilarityLow, ReasonCode::Blurred]);
    }

    #[test]
    fn liveness_alone_is_judged_by_its_score_and_a_poor_photograph_is_a_retry() {
        let judge = |photo| judge_liveness(&photo, Subject::Image, 0.5).decision;
        assert_eq!(judge(live(0.5)), Decision::Pass);
        assert_eq!(judge(live(0.49)), Decision::Fail);
        assert_eq!(judge(LiveEvidence::default()), Decision::Retry);
        let problems = vec![blurred(Subject::Image)];
        assert_eq!(judge(LiveEvidence { problems, ..live(0.9) }), Decision::Retry);
    }

    proptest! {
        #[test]
        fn a_pass_means_that_every_rule_held(
            similarity in prop::option::of(-1.0..1.0_f64),
            live in prop::collection::vec(
                (any::<bool>(), any::<bool>(), prop::option::of(0.0..1.0_f64), prop::option::of(-1.0..1.0_f64)),
                0..4,
            ),
            portrait_bad in any::<bool>(),
            calibrated in any::<bool>(),
        ) {
            let live: Vec<LiveEvidence> = live
                .into_iter()
                .enumerate()
                .map(|(index, (bad, same_image, liveness, similarity_to_matched))| LiveEvidence {
                    problems: if bad { vec![blurred(Subject::LivePhoto(index))] } else { vec![] },
                    same_image,
                    liveness,
                    similarity_to_matched,
                })
                .collect();
            let portrait_problems =
                if portrait_bad { vec![blurred(Subject::Portrait)] } else { vec![] };
            let bar = if calibrated { BAR } else { Bar::Uncalibrated };
            let evidence = Evidence { portrait_problems, live, similarity, bar, liveness_min: 0.5 };
            let verdict = judge(&evidence);
            if verdict.decision == Decision::Pass {
                prop_assert!(calibrated && !portrait_bad);
                prop_assert!(similarity.is_some_and(|s| s >= 0.425));
                let mut usable = evidence.live.iter().filter(|photo| photo.usable()).peekable();
                prop_assert!(usable.peek().is_some());
                for photo in usable {
                    prop_assert!(!photo.same_image);
                    prop_assert!(photo.liveness.is_some_and(|score| score >= 0.5));
                    prop_assert!(photo.similarity_to_matched.is_none_or(|s| s >= 0.425));
                }
            } else {
                prop_assert!(!verdict.reasons.is_empty() || verdict.decision == Decision::Retry);
            }
        }
    }
}
