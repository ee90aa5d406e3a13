//! A person's own neutral levels, from the frames on which the person was neutral.

use std::collections::VecDeque;

use super::percentile::percentile;
use super::pose::{FaceShape, mean_shape};
use super::reading::Reading;

/// Neutral frames that are remembered: a second and a half, so that levels follow a person who
/// sits back, and noise averages out.
const FRAMES_MAX: usize = 16;

/// The latest neutral frames.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    frames: VecDeque<Reading>,
}

impl Baseline {
    pub(super) fn add(&mut self, reading: &Reading) {
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back(*reading);
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Frames on which the eyes were measured.
    pub(super) fn eye_frames(&self) -> usize {
        self.frames.iter().filter(|frame| frame.eyes.is_some()).count()
    }

    /// Median height of the nose.
    pub(super) fn nod_median(&self) -> Option<f64> {
        percentile(self.frames.iter().map(|frame| frame.nod), 0.5)
    }

    /// Openness of the right and left eye at this percentile.
    pub(super) fn eye_openness(&self, share: f64) -> Option<[f64; 2]> {
        let eye = |side: usize| {
            let open = self.frames.iter().filter_map(move |frame| Some(frame.eyes?[side]));
            percentile(open, share)
        };
        Some([eye(0)?, eye(1)?])
    }

    /// The mean of the five points.
    pub(super) fn mean_shape(&self) -> Option<FaceShape> {
        mean_shape(self.frames.iter().map(|frame| &frame.pose.shape))
    }
}
