//! In which order the numbers of a value lie, and how to walk over two of them at once.

use super::arguments::{AXES_MAX, Strided};
use crate::shape::{known_elements, strides};

/// How one row of a value lies in memory, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Order {
    /// The last axis innermost.
    Plain,
    /// An image `[channels, height, width]` with its channels innermost.
    ChannelsLast,
}

impl Order {
    /// For each axis, how far apart its neighbours lie.
    pub(super) fn strides(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::ChannelsLast, &[channels, _, width]) => vec![1, width * channels, channels],
            _ => strides(shape),
        }
    }
}

/// Two arrays of one shape, for one row; the batch comes when they are walked over.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    sizes: Vec<usize>,
    first: Vec<usize>,
    second: Vec<usize>,
    /// How far apart rows lie in each.
    rows: [usize; 2],
    len: usize,
}

impl Pair {
    /// The strides of both arrays, how far apart their rows lie, and the strides of the array that is
    /// written, which neighbouring threads do next to one another.
    pub(super) fn new(
        shape: &[usize],
        [first, second]: [&[usize]; 2],
        rows: [usize; 2],
        written: &[usize],
    ) -> Self {
        let mut axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != 1).collect();
        axes.sort_by_key(|&axis| std::cmp::Reverse(written[axis]));
        let mut merged: Vec<[usize; 3]> = Vec::new();
        for [size, first, second] in
            axes.iter().map(|&axis| [shape[axis], first[axis], second[axis]])
        {
            match merged.last_mut() {
                Some([outer, f, s]) if *f == first * size && *s == second * size => {
                    (*outer, *f, *s) = (*outer * size, first, second);
                }
                _ => merged.push([size, first, second]),
            }
        }
        let column = |index: usize| merged.iter().map(|axis| axis[index]).collect();
        let len = known_elements(shape);
        Self { sizes: column(0), first: column(1), second: column(2), rows, len }
    }

    /// Elements of one row.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether both arrays are the same numbers in the same order, row after row.
    pub(super) fn is_same(&self) -> bool {
        let is_line = match (self.first.as_slice(), self.second.as_slice()) {
            ([], []) => true,
            ([first], [second]) => (*first, *second) == (1, 1),
            _ => false,
        };
        is_line && self.rows == [self.len, self.len]
    }

    /// For the kernels: `batch` rows of both arrays.
    pub(super) fn batched(&self, batch: u32) -> Strided {
        let mut strided = Strided {
            sizes: [1; AXES_MAX],
            first: [0; AXES_MAX],
            second: [0; AXES_MAX],
            axes: self.sizes.len() as i32 + 1,
        };
        let (sizes, [first, second]) = (&self.sizes, self.rows);
        strided.sizes[0] = batch;
        (strided.first[0], strided.second[0]) = (first as u32, second as u32);
        for (axis, &size) in sizes.iter().enumerate() {
            strided.sizes[axis + 1] = size as u32;
            strided.first[axis + 1] = self.first[axis] as u32;
            strided.second[axis + 1] = self.second[axis] as u32;
        }
        strided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(shape: &[usize], first: Order, second: Order) -> Pair {
        let (len, second) = (known_elements(shape), second.strides(shape));
        Pair::new(shape, [&first.strides(shape), &second], [len, len], &second)
    }

    #[test]
    fn an_order_is_its_own_and_that_of_an_image_with_one_channel_or_one_pixel() {
        let (plain, last) = (Order::Plain, Order::ChannelsLast);
        assert!(between(&[3, 4, 5], plain, plain).is_same());
        assert!(between(&[3, 4, 5], last, last).is_same());
        assert!(between(&[1, 4, 5], plain, last).is_same());
        assert!(between(&[7, 1, 1], plain, last).is_same());
        assert!(!between(&[3, 4, 5], plain, last).is_same());
        assert!(!between(&[3, 1, 5], plain, last).is_same());
    }

    #[test]
    fn axes_that_lie_alike_in_both_arrays_are_one() {
        let pair = between(&[3, 4, 5], Order::Plain, Order::ChannelsLast);
        let strided = pair.batched(2);
        assert_eq!(strided.axes, 3);
        assert_eq!(strided.sizes[..3], [2, 20, 3]);
        assert_eq!(strided.first[..3], [60, 1, 20]);
        assert_eq!(strided.second[..3], [60, 3, 1]);
    }

    #[test]
    fn a_part_of_a_row_is_not_the_row() {
        let part = Pair::new(&[2], [&[1], &[1]], [2, 4], &[1]);
        assert!(!part.is_same());
    }
}
