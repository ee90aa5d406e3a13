//! A person's own neutral levels, computed from the frames on which the person was neutral.

use std::collections::VecDeque;

use super::percentile::percentile;
use super::pose::{FaceShape, mean_shape};
use super::reading::Reading;

/// Number of neutral frames kept: a second and a half. Levels then follow a person who leans back,
/// and noise averages out.
const FRAMES_MAX: usize = 16;

/// The latest neutral frames of a person.
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

    /// Returns the number of frames with measured eyes.
    pub(super) fn eye_frames(&self) -> usize {
        self.frames.iter().filter(|frame| frame.eyes.is_some()).count()
    }

    /// Returns the median height of the nose.
    pub(super) fn nod_median(&self) -> Option<f64> {
        percentile(self.frames.iter().map(|frame| frame.nod), 0.5)
    }

    /// Returns the openness of the right and the left eye at the percentile `share`.
    pub(super) fn eye_openness(&self, share: f64) -> Option<[f64; 2]> {
        let eye = |side: usize| {
            let open = self.frames.iter().filter_map(move |frame| Some(frame.eyes?[side]));
            percentile(open, share)
        };
        Some([eye(0)?, eye(1)?])
    }

    /// Returns the mean shape of the five points.
    pub(super) fn mean_shape(&self) -> Option<FaceShape> {
        mean_shape(self.frames.iter().map(|frame| &frame.pose.shape))
    }
}
