//! Trained numbers of a network: dense `f32` data in host memory.

use std::sync::Arc;

use super::shape::{broadcast, broadcast_strides, element_count, offsets, permute, strides};

/// A dense `f32` tensor in host memory. A clone shares the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    shape: Vec<usize>,
    data: Arc<Vec<f32>>,
}

impl Constant {
    /// Wraps `data`. The length of `data` must be the product of `shape`.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        Self::from_shared(shape, Arc::new(data))
    }

    /// Wraps data that is shared with another owner; see [`Constant::new`].
    pub(super) fn from_shared(shape: Vec<usize>, data: Arc<Vec<f32>>) -> Self {
        assert_eq!(element_count(&shape), data.len(), "the data fills the shape");
        Self { shape, data }
    }

    /// Returns one number with `rank` axes of size 1.
    pub fn scalar(value: f32, rank: usize) -> Self {
        Self::new(vec![1; rank], vec![value])
    }

    /// Returns the sizes of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Returns the same elements with another shape. The number of elements must be equal.
    pub(super) fn reshape(&self, shape: Vec<usize>) -> Self {
        assert_eq!(
            element_count(&shape),
            self.data.len(),
            "a reshape keeps the number of elements"
        );
        Self { shape, data: Arc::clone(&self.data) }
    }

    pub(super) fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self::new(self.shape.clone(), self.data.iter().map(|&x| f(x)).collect())
    }

    /// Applies `f` to every pair of elements after broadcasting. The shapes must broadcast.
    pub(super) fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let shape = broadcast(&self.shape, &other.shape).expect("the caller checked the shapes");
        let (a, b) =
            (broadcast_strides(&self.shape, &shape), broadcast_strides(&other.shape, &shape));
        let data = offsets(&shape, &a)
            .zip(offsets(&shape, &b))
            .map(|(a, b)| f(self.data[a], other.data[b]))
            .collect();
        Self::new(shape, data)
    }

    /// Repeats the elements along axes of size 1 until the constant has `shape`.
    pub(super) fn expand(&self, shape: &[usize]) -> Self {
        let read = broadcast_strides(&self.shape, shape);
        let data = offsets(shape, &read).map(|at| self.data[at]).collect();
        Self::new(shape.to_vec(), data)
    }

    /// Transposes the constant: axis `i` of the result is axis `perm[i]` of this constant.
    pub(super) fn transpose(&self, perm: &[usize]) -> Self {
        let shape = permute(&self.shape, perm);
        let read = permute(&strides(&self.shape), perm);
        let data = offsets(&shape, &read).map(|at| self.data[at]).collect();
        Self::new(shape, data)
    }

    /// Returns the `size` numbers along `axis`; a single number is repeated. Returns `None` if the
    /// constant varies along another axis, or has another size along this one.
    pub(super) fn along(&self, axis: usize, size: usize) -> Option<Vec<f32>> {
        let others_are_one = self.shape.iter().enumerate().all(|(i, &s)| i == axis || s == 1);
        match (others_are_one, self.data.len()) {
            (true, 1) => Some(vec![self.data[0]; size]),
            (true, len) if len == size => Some(self.data.to_vec()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipping_broadcasts_both_sides() {
        let a = Constant::new(vec![2, 1], vec![1.0, 2.0]);
        let b = Constant::new(vec![1, 3], vec![10.0, 20.0, 30.0]);
        let sum = a.zip(&b, |a, b| a + b);
        assert_eq!(sum, Constant::new(vec![2, 3], vec![11.0, 21.0, 31.0, 12.0, 22.0, 32.0]));
    }

    #[test]
    fn transposing_moves_the_axes() {
        let a = Constant::new(vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let expected = Constant::new(vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(a.transpose(&[1, 0]), expected);
    }

    #[test]
    fn only_a_constant_of_one_axis_has_numbers_along_it() {
        let per_channel = Constant::new(vec![2, 1, 1], vec![3.0, 4.0]);
        assert_eq!(per_channel.along(0, 2), Some(vec![3.0, 4.0]));
        assert_eq!(per_channel.along(1, 2), None);
        assert_eq!(Constant::scalar(7.0, 3).along(0, 3), Some(vec![7.0; 3]));
    }
}
