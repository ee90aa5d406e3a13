//! Selection of the frames that are judged, and the results of the networks on them.
//!
//! Judging a frame means running the embedder and the PAD networks on it.

use super::action::STEPS;
use super::limits::JudgingLimits;
use super::measures::FrameJudgement;
use super::percentile::percentile;
use crate::face::Embedding;

/// Frames judged for their position in an uninterrupted session: one before each prompt, one after
/// each action, and the last. The remaining frames are chosen for sharpness.
const POSITIONS: usize = 1 + 2 * STEPS;

/// Results of the PAD networks over a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PadEvidence {
    /// Number of judged frames.
    pub frames: usize,
    /// Number of judged frames required.
    pub frames_min: usize,
    /// Median PAD score (probability of a live person); `None` without frames.
    pub median: Option<f64>,
    /// Share of frames with a low PAD score.
    pub low_share: f64,
    /// Largest allowed share of such frames.
    pub low_share_max: f64,
}

/// Chosen frames and judged frames.
#[derive(Debug)]
pub(super) struct JudgedFrames {
    limits: JudgingLimits,
    /// Sequence number and turn of each chosen frame: one before each prompt, one after each
    /// action, one at the end, and sharp ones.
    chosen: Vec<(u32, f64)>,
    sharp_count: usize,
    sharpness_max: f64,
    judged: Vec<JudgedFrame>,
}

#[derive(Debug)]
struct JudgedFrame {
    sequence: u32,
    turn: f64,
    judgement: FrameJudgement,
}

impl JudgedFrame {
    /// Returns the quality for matching. The norm falls when the image gets worse; a turned face
    /// matches worse than a straight one.
    fn quality(&self) -> f64 {
        self.judgement.norm * (1.0 - self.turn.abs())
    }

    /// Returns the PAD score, or 0 if the score is not finite.
    fn pad_score(&self) -> f64 {
        let score = self.judgement.pad_score;
        if score.is_finite() { score.clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl JudgedFrames {
    pub(super) fn new(limits: JudgingLimits) -> Self {
        Self { limits, chosen: Vec::new(), sharp_count: 0, sharpness_max: 0.0, judged: Vec::new() }
    }

    /// Chooses a frame for its position in the session. The number of such frames is not limited:
    /// otherwise an attacker could use up the limit early and act on frames that are not judged.
    pub(super) fn choose_for_position(&mut self, sequence: u32, turn: f64, sharpness: f64) -> bool {
        self.sharpness_max = self.sharpness_max.max(sharpness);
        self.choose(sequence, turn)
    }

    /// Chooses a frame if it is clearly sharper than all chosen before.
    pub(super) fn choose_if_sharper(&mut self, sequence: u32, turn: f64, sharpness: f64) -> bool {
        let sharp_max = self.limits.frames_max.saturating_sub(POSITIONS);
        let is_sharper = sharpness > self.sharpness_max * self.limits.sharper_min;
        if self.sharp_count >= sharp_max || !is_sharper || !self.choose(sequence, turn) {
            return false;
        }
        self.sharp_count += 1;
        self.sharpness_max = sharpness;
        true
    }

    /// Chooses a frame. Returns false if the face is turned too far to be judged.
    fn choose(&mut self, sequence: u32, turn: f64) -> bool {
        let is_frontal = turn.abs() <= self.limits.turn_max;
        if is_frontal && self.chosen.iter().all(|(chosen, _)| *chosen != sequence) {
            self.chosen.push((sequence, turn));
        }
        is_frontal
    }

    /// Returns true if the frame was chosen and is not judged yet.
    pub(super) fn is_pending(&self, sequence: u32) -> bool {
        let is_chosen = self.chosen.iter().any(|(chosen, _)| *chosen == sequence);
        is_chosen && self.judged.iter().all(|other| other.sequence != sequence)
    }

    /// Adds the result of a chosen frame. Other frames are ignored.
    pub(super) fn add(&mut self, sequence: u32, judgement: FrameJudgement) {
        let chosen = self.chosen.iter().find(|(chosen, _)| *chosen == sequence);
        if let Some(&(_, turn)) = chosen {
            self.judged.push(JudgedFrame { sequence, turn, judgement });
        }
    }

    pub(super) fn embeddings(&self) -> impl Iterator<Item = &Embedding> {
        self.judged.iter().map(|one| &one.judgement.embedding)
    }

    /// Returns the judged frame of the best quality. It is matched with the portrait.
    pub(super) fn matched(&self) -> Option<(u32, &Embedding)> {
        let usable = self.judged.iter().filter(|one| one.quality().is_finite());
        let best = usable.max_by(|one, other| one.quality().total_cmp(&other.quality()))?;
        Some((best.sequence, &best.judgement.embedding))
    }

    pub(super) fn pad_evidence(&self) -> PadEvidence {
        let frames = self.judged.len();
        let low =
            self.judged.iter().filter(|one| one.pad_score() < self.limits.low_score_below).count();
        PadEvidence {
            frames,
            // Every chosen frame must be judged.
            frames_min: self.limits.frames_min.max(self.chosen.len()),
            median: percentile(self.judged.iter().map(JudgedFrame::pad_score), 0.5),
            low_share: low as f64 / frames.max(1) as f64,
            low_share_max: self.limits.low_share_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::SpaceId;

    fn judged_frames() -> JudgedFrames {
        JudgedFrames::new(JudgingLimits::default())
    }

    fn judgement(norm: f64, pad_score: f64) -> FrameJudgement {
        let (embedding, _) = Embedding::from_raw(&[1.0, 2.0], SpaceId::new("any")).unwrap();
        FrameJudgement { embedding, norm, pad_score }
    }

    #[test]
    fn sharp_frames_are_few_and_the_others_always_have_a_place() {
        let mut frames = judged_frames();
        let sharp = (0..100)
            .filter(|at| frames.choose_if_sharper(*at, 0.0, 2.0_f64.powi(*at as i32)))
            .count();
        assert_eq!(sharp, 12 - POSITIONS);
        let placed = (100..200).filter(|at| frames.choose_for_position(*at, 0.0, 1.0)).count();
        assert_eq!(placed, 100);
    }

    #[test]
    fn turned_and_hardly_sharper_frames_are_not_judged() {
        let mut frames = judged_frames();
        assert!(!frames.choose_for_position(0, -0.4, 100.0));
        assert!(!frames.choose_if_sharper(1, 0.0, 110.0));
        assert!(frames.choose_if_sharper(2, 0.0, 130.0));
    }

    #[test]
    fn a_frame_is_judged_once_and_only_if_it_was_chosen() {
        let mut frames = judged_frames();
        frames.choose_for_position(3, 0.0, 1.0);
        assert!(frames.is_pending(3) && !frames.is_pending(4));
        frames.add(4, judgement(10.0, 0.9));
        assert_eq!(frames.pad_evidence().frames, 0);
        frames.add(3, judgement(10.0, 0.9));
        assert!(!frames.is_pending(3));
    }

    #[test]
    fn the_straightest_frame_of_the_highest_norm_is_matched() {
        let mut frames = judged_frames();
        for (sequence, turn, norm) in [(0, 0.3, 13.0), (1, 0.0, 12.0), (2, 0.0, f64::NAN)] {
            frames.choose_for_position(sequence, turn, 1.0);
            frames.add(sequence, judgement(norm, 0.9));
        }
        assert_eq!(frames.matched().map(|(sequence, _)| sequence), Some(1));
    }

    #[test]
    fn a_pad_score_that_is_not_a_number_counts_as_zero() {
        let mut frames = judged_frames();
        for (sequence, pad_score) in [(0, f64::NAN), (1, 0.9), (2, 0.95), (3, 0.1)] {
            frames.choose_for_position(sequence, 0.0, 1.0);
            frames.add(sequence, judgement(10.0, pad_score));
        }
        assert_eq!(frames.pad_evidence().low_share, 0.5);
        assert_eq!(frames.pad_evidence().median, Some(0.1));
    }
}
