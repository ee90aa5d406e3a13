//! Arithmetic on shapes. A shape lists the sizes of the axes, outermost first.

/// Maximum number of axes of a value or a constant. Networks for faces need at most five.
pub(super) const RANK_MAX: usize = 8;

/// Maximum number of elements of one value of one item: 256 MiB of `f32`. The largest value of a
/// 100-layer residual network on a 1280×1280 image has a quarter of that.
pub(super) const VALUE_ELEMENTS_MAX: usize = 1 << 26;

/// Returns the number of elements of `shape`. Returns `None` if that number or a stride of the
/// shape overflows a `usize`.
pub(super) fn checked_element_count(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size.max(1)));
    product.map(|product| if shape.contains(&0) { 0 } else { product })
}

/// Returns the number of elements of a shape that was already checked against the limits.
pub(super) fn element_count(shape: &[usize]) -> usize {
    checked_element_count(shape).expect("shapes in a graph were checked at import")
}

/// Returns the shape that `a` and `b` broadcast to. Both need the same rank, and on each axis equal
/// sizes or one size of 1; otherwise returns `None`.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    if a.len() != b.len() {
        return None;
    }
    a.iter()
        .zip(b)
        .map(|(&a, &b)| match (a, b) {
            (1, size) | (size, 1) => Some(size),
            (a, b) => (a == b).then_some(a),
        })
        .collect()
}

/// Returns `shape` with axes of size 1 in front, so that it has `rank` axes.
pub(super) fn pad_rank(shape: &[usize], rank: usize) -> Vec<usize> {
    let missing = rank.saturating_sub(shape.len());
    std::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect()
}

/// Returns `entries[perm[0]], entries[perm[1]], …`: the entries of the axes, such as sizes or
/// strides, in another order.
pub(super) fn permute(entries: &[usize], perm: &[usize]) -> Vec<usize> {
    perm.iter().map(|&axis| entries[axis]).collect()
}

/// Returns the permutation that undoes `perm`.
pub(super) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (to, &from) in perm.iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

/// Returns true if a transpose of a value of `shape` by `perm` keeps the order of the elements:
/// only axes of size 1 move.
pub(super) fn keeps_order(shape: &[usize], perm: &[usize]) -> bool {
    perm.iter().filter(|&&axis| shape[axis] != 1).is_sorted()
}

/// Returns the strides of a dense tensor of `shape`, in elements.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Returns the strides that read a dense tensor of shape `from` as if it had the shape `to`. `from`
/// must broadcast to `to`.
pub(super) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let dense = strides(from);
    from.iter().zip(to).zip(dense).map(|((&f, &t), s)| if f == t { s } else { 0 }).collect()
}

/// Returns for every element of `shape`, in order, its offset in a tensor with `strides`.
pub(super) fn offsets(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> + use<> {
    let axes: Vec<(usize, usize)> =
        shape.iter().copied().zip(strides.iter().copied()).rev().collect();
    (0..element_count(shape)).map(move |index| {
        let mut rest = index;
        let mut offset = 0;
        for &(size, stride) in &axes {
            offset += rest % size * stride;
            rest /= size;
        }
        offset
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_takes_the_larger_of_equal_or_unit_sizes() {
        assert_eq!(broadcast(&[4, 1, 3], &[1, 2, 3]), Some(vec![4, 2, 3]));
        assert_eq!(broadcast(&[4, 2], &[3, 2]), None);
        assert_eq!(broadcast(&[4], &[1, 4]), None);
    }

    #[test]
    fn element_counts_that_overflow_are_none() {
        assert_eq!(checked_element_count(&[usize::MAX, 2]), None);
        assert_eq!(checked_element_count(&[0, usize::MAX, 2]), None);
        assert_eq!(checked_element_count(&[3, 0]), Some(0));
        assert_eq!(checked_element_count(&[]), Some(1));
    }

    #[test]
    fn a_permutation_followed_by_its_inverse_changes_nothing() {
        let perm = [2, 0, 3, 1];
        assert_eq!(permute(&permute(&[5, 6, 7, 8], &perm), &inverse(&perm)), [5, 6, 7, 8]);
    }

    #[test]
    fn only_moves_of_unit_axes_keep_the_order() {
        assert!(keeps_order(&[1, 1, 5], &[2, 0, 1]));
        assert!(!keeps_order(&[2, 1, 5], &[2, 0, 1]));
    }

    #[test]
    fn offsets_follow_the_strides_of_a_transposed_tensor() {
        let read: Vec<usize> = offsets(&[3, 2], &[1, 3]).collect();
        assert_eq!(read, [0, 3, 1, 4, 2, 5]);
    }
}
