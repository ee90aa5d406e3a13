//! Continuity of a session: one person, no repeated picture, no repeated part.

use std::time::Duration;

use super::admission::AdmittedFrame;
use super::limits::ContinuityLimits;
use super::measures::{FrameJudgement, FrameMeasures};
use crate::face::decision::{Reason, Subject};
use crate::face::{Embedding, Point, ReasonCode, cosine};
use crate::image::DifferenceHash;

/// The values by which a repeated frame is recognised.
#[derive(Debug, Clone, Copy)]
struct FrameRecord {
    captured: Duration,
    difference_hash: DifferenceHash,
    points: [Point; 5],
}

/// Keeps a record of every frame with a face. Admission limits the number of frames.
#[derive(Debug)]
pub(super) struct Continuity {
    limits: ContinuityLimits,
    size: Option<[usize; 2]>,
    size_changes: usize,
    records: Vec<FrameRecord>,
    repeats: usize,
    loops: usize,
    least_similarity: Option<f64>,
}

impl Continuity {
    pub(super) fn new(limits: ContinuityLimits) -> Self {
        Self {
            limits,
            size: None,
            size_changes: 0,
            records: Vec::new(),
            repeats: 0,
            loops: 0,
            least_similarity: None,
        }
    }

    /// Returns the number of pictures that repeated within [`ContinuityLimits::loop_time_min`].
    pub(super) fn repeats(&self) -> usize {
        self.repeats
    }

    /// Returns the number of pictures that repeated after more than
    /// [`ContinuityLimits::loop_time_min`].
    pub(super) fn loops(&self) -> usize {
        self.loops
    }

    /// Returns the least cosine of any two judged frames.
    pub(super) fn least_similarity(&self) -> Option<f64> {
        self.least_similarity
    }

    /// Compares a frame with all frames before it.
    pub(super) fn check_frame(
        &mut self,
        frame: &AdmittedFrame,
        measures: &FrameMeasures,
        size_changes_max: usize,
    ) -> Result<(), Reason> {
        if self.size.replace(measures.size).is_some_and(|size| size != measures.size) {
            self.size_changes += 1;
        }
        check_count(ReasonCode::InjectionSuspect, self.size_changes, size_changes_max)?;
        let Some(face) = measures.faces.first() else { return Ok(()) };
        let record = FrameRecord {
            captured: frame.captured,
            difference_hash: measures.difference_hash,
            points: face.points,
        };
        self.count_repeats(&record);
        self.records.push(record);
        check_count(ReasonCode::DuplicateFrames, self.repeats, self.limits.repeated_pictures_max)?;
        check_count(ReasonCode::LoopSuspect, self.loops, self.limits.loops_max)
    }

    fn count_repeats(&mut self, record: &FrameRecord) {
        let alike =
            || self.records.iter().filter(|old| old.difference_hash == record.difference_hash);
        let is_old = |old: &FrameRecord| {
            record.captured.saturating_sub(old.captured) > self.limits.loop_time_min
        };
        let is_near = |old: &FrameRecord| {
            largest_point_distance(old, record) <= self.limits.loop_distance_max
        };
        let is_loop = alike().any(|old| is_old(old) && is_near(old));
        let is_repeat = alike().any(|old| !is_old(old) && old.points == record.points);
        self.loops += usize::from(is_loop);
        self.repeats += usize::from(is_repeat);
    }

    /// Compares a judged face with the others. Faces that cannot be compared count as different.
    pub(super) fn check_identity<'a>(
        &mut self,
        judgement: &FrameJudgement,
        others: impl Iterator<Item = &'a Embedding>,
    ) -> Result<(), Reason> {
        let similarity = |other| cosine(&judgement.embedding, other).map_or(-1.0, f64::from);
        let Some(least) = others.map(similarity).reduce(f64::min) else { return Ok(()) };
        self.least_similarity = Some(self.least_similarity.map_or(least, |old| old.min(least)));
        let limit = self.limits.identity_min();
        if least >= limit {
            return Ok(());
        }
        Err(Reason::limited(ReasonCode::IdentitySwitch, Subject::Request, least, limit))
    }
}

fn check_count(code: ReasonCode, count: usize, count_max: usize) -> Result<(), Reason> {
    if count <= count_max {
        return Ok(());
    }
    Err(Reason::limited(code, Subject::Request, count as f64, count_max as f64))
}

/// Returns the largest distance that one of the five points moved, in pixels.
fn largest_point_distance(one: &FrameRecord, other: &FrameRecord) -> f64 {
    let pairs = one.points.iter().zip(&other.points);
    pairs.map(|(a, b)| f64::from((a.x - b.x).hypot(a.y - b.y))).fold(0.0, f64::max)
}
