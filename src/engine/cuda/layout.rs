//! The memory layouts of values, and pairs of strided arrays that a kernel reads and writes.

use super::arguments::{AXES_MAX, StridedAxes};
use crate::shape::{element_count, strides};

/// The memory layout of one item of a value, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ValueLayout {
    /// The elements in the order of the shape: the last axis is innermost.
    Flat,
    /// An image `[channels, height, width]` with its channels innermost.
    ChannelsLast,
}

impl ValueLayout {
    /// Returns the stride of each axis, in elements.
    pub(super) fn strides(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::ChannelsLast, &[channels, _, width]) => vec![1, width * channels, channels],
            _ => strides(shape),
        }
    }
}

/// Two strided arrays of one shape, described for one item. [`StridedPair::argument`] adds the
/// batch.
#[derive(Debug, Clone)]
pub(super) struct StridedPair {
    sizes: Vec<usize>,
    first: Vec<usize>,
    second: Vec<usize>,
    /// Elements from one item to the next, in each array.
    item_strides: [usize; 2],
    len: usize,
}

impl StridedPair {
    /// Describes two arrays by their strides and by the strides between their items. `written` are
    /// the strides of the array that the kernel writes: axes are ordered by them, so that
    /// neighbouring threads write neighbouring elements.
    pub(super) fn new(
        shape: &[usize],
        [first, second]: [&[usize]; 2],
        item_strides: [usize; 2],
        written: &[usize],
    ) -> Self {
        let mut axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != 1).collect();
        axes.sort_by_key(|&axis| std::cmp::Reverse(written[axis]));
        let mut merged: Vec<[usize; 3]> = Vec::new();
        for axis in axes {
            let inner = [shape[axis], first[axis], second[axis]];
            match merged.last_mut() {
                Some(outer)
                    if outer[1] == inner[1] * inner[0] && outer[2] == inner[2] * inner[0] =>
                {
                    *outer = [outer[0] * inner[0], inner[1], inner[2]];
                }
                _ => merged.push(inner),
            }
        }
        let column = |index: usize| merged.iter().map(|axis| axis[index]).collect();
        let len = element_count(shape);
        Self { sizes: column(0), first: column(1), second: column(2), item_strides, len }
    }

    /// Returns the elements of one item.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// True if every element has the same offset in both arrays and both arrays have no gaps, so
    /// that a copy would change nothing.
    pub(super) fn is_identity(&self) -> bool {
        let is_contiguous = match (self.first.as_slice(), self.second.as_slice()) {
            ([], []) => true,
            ([first], [second]) => (*first, *second) == (1, 1),
            _ => false,
        };
        is_contiguous && self.item_strides == [self.len, self.len]
    }

    /// Returns the kernel argument for `items` items of both arrays.
    pub(super) fn argument(&self, items: u32) -> StridedAxes {
        let mut axes = StridedAxes {
            sizes: [1; AXES_MAX],
            first: [0; AXES_MAX],
            second: [0; AXES_MAX],
            axis_count: self.sizes.len() as i32 + 1,
        };
        axes.sizes[0] = items;
        axes.first[0] = self.item_strides[0] as u32;
        axes.second[0] = self.item_strides[1] as u32;
        for (axis, &size) in self.sizes.iter().enumerate() {
            axes.sizes[axis + 1] = size as u32;
            axes.first[axis + 1] = self.first[axis] as u32;
            axes.second[axis + 1] = self.second[axis] as u32;
        }
        axes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relayout(shape: &[usize], first: ValueLayout, second: ValueLayout) -> StridedPair {
        let (len, second) = (element_count(shape), second.strides(shape));
        StridedPair::new(shape, [&first.strides(shape), &second], [len, len], &second)
    }

    #[test]
    fn layouts_are_the_same_for_an_image_of_one_channel_or_one_pixel() {
        let (flat, last) = (ValueLayout::Flat, ValueLayout::ChannelsLast);
        assert!(relayout(&[3, 4, 5], flat, flat).is_identity());
        assert!(relayout(&[3, 4, 5], last, last).is_identity());
        assert!(relayout(&[1, 4, 5], flat, last).is_identity());
        assert!(relayout(&[7, 1, 1], flat, last).is_identity());
        assert!(!relayout(&[3, 4, 5], flat, last).is_identity());
        assert!(!relayout(&[3, 1, 5], flat, last).is_identity());
    }

    #[test]
    fn axes_that_are_contiguous_in_both_arrays_are_merged() {
        let pair = relayout(&[3, 4, 5], ValueLayout::Flat, ValueLayout::ChannelsLast);
        let axes = pair.argument(2);
        assert_eq!(axes.axis_count, 3);
        assert_eq!(axes.sizes[..3], [2, 20, 3]);
        assert_eq!(axes.first[..3], [60, 1, 20]);
        assert_eq!(axes.second[..3], [60, 3, 1]);
    }

    #[test]
    fn a_part_of_an_item_is_not_the_whole_item() {
        let part = StridedPair::new(&[2], [&[1], &[1]], [2, 4], &[1]);
        assert!(!part.is_identity());
    }
}
