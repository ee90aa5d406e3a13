//! A person's own neutral levels, from the frames on which the person was neutral.

use std::collections::VecDeque;

use super::gesture::Reading;
use super::pose::{Shape, mean_shape};

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
    pub(super) fn eyes_len(&self) -> usize {
        self.frames.iter().filter(|frame| frame.eyes.is_some()).count()
    }

    /// Median height of the nose.
    pub(super) fn nod(&self) -> Option<f64> {
        percentile(self.frames.iter().map(|frame| frame.nod), 0.5)
    }

    /// Openness of the right and left eye at this percentile.
    pub(super) fn eyes(&self, share: f64) -> Option<[f64; 2]> {
        let eye = |side: usize| {
            let open = self.frames.iter().filter_map(move |frame| Some(frame.eyes?[side]));
            percentile(open, share)
        };
        Some([eye(0)?, eye(1)?])
    }

    /// The mean of the five points.
    pub(super) fn shape(&self) -> Option<Shape> {
        mean_shape(self.frames.iter().map(|frame| &frame.pose.shape))
    }
}

/// The value below which a `share` of the values lies; `None` of none.
pub(super) fn percentile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // Of two middle values the lower.
    let at = (sorted.len().checked_sub(1)? as f64 * share.clamp(0.0, 1.0)) as usize;
    sorted.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values = [0.3, f64::NAN, 0.1, 0.2, 0.5, 0.4];
        assert_eq!(percentile(values.into_iter(), 0.5), Some(0.3));
        assert_eq!(percentile(values.into_iter(), 0.8), Some(0.4));
        assert_eq!(percentile(values.into_iter(), 1.0), Some(0.5));
        assert_eq!(percentile([].into_iter(), 0.5), None);
    }
}
