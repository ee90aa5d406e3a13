//! Weights stored as small integers.

use std::sync::Arc;

use super::attributes::unsupported;
use super::context::NodeContext;
use super::tensors::Host;
use crate::engine::error::NodeError;
use crate::engine::shape::{elements, offsets, strides};

/// `(x - zero point) × scale` of a constant, with one scale for all, for each index of an axis or
/// for each block of an axis.
pub(super) fn dequantize_linear(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.inputs_max(3)?;
    node.attributes.only_int("output_dtype", 0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let block = node.attributes.int("block_size")?.unwrap_or(0);
    let x = node.host(0)?;
    let scale = node.host(1)?;
    let zero = if node.has_input(2) { Some(node.host(2)?) } else { None };
    node.charge(x.len())?;
    let read = scale_places(node, &x, &scale, axis, block)?;

    let integers = |input| NodeError::Elements { input, expected: "integers" };
    let values = x.as_ints().ok_or_else(|| integers(0))?;
    let scales = scale.as_floats().ok_or(NodeError::Elements { input: 1, expected: "floats" })?;
    let zeros = zero_points(&scale, zero.as_ref())?.ok_or_else(|| integers(2))?;
    let data = (0..x.len())
        .zip(read)
        .map(|(i, at)| (values[i] as f32 - zeros[at] as f32) * scales[at])
        .collect();
    node.define_host(Host::floats(x.shape.clone(), data))
}

/// The zero point of each scale; `None` when they are not integers.
fn zero_points(scale: &Host, zero: Option<&Arc<Host>>) -> Result<Option<Vec<i64>>, NodeError> {
    match zero {
        None => Ok(Some(vec![0; scale.len()])),
        Some(zero) if zero.len() == scale.len() => Ok(zero.as_ints().map(<[i64]>::to_vec)),
        Some(zero) => Err(NodeError::Shape { input: 2, shape: zero.shape.clone() }),
    }
}

/// For each element of `x`, the place of its scale; never all at once, which would take eight
/// times the bytes of the weights.
fn scale_places(
    node: &NodeContext<'_, '_>,
    x: &Host,
    scale: &Host,
    axis: i64,
    block: i64,
) -> Result<Box<dyn Iterator<Item = usize>>, NodeError> {
    if scale.len() == 1 && block == 0 {
        return Ok(Box::new(std::iter::repeat_n(0, x.len())));
    }
    let axis = node.axis(axis, x.shape.len())?;
    let refused = || NodeError::Shape { input: 1, shape: scale.shape.clone() };
    if block == 0 {
        let per_index = scale.shape == [x.shape[axis]];
        return if per_index { Ok(Box::new(indices(x, axis))) } else { Err(refused()) };
    }
    // 0 was handled above, so what converts is positive.
    let block = usize::try_from(block).map_err(|_| unsupported("block_size", block))?;
    let mut expected = x.shape.clone();
    expected[axis] = x.shape[axis].div_ceil(block);
    if scale.shape != expected || elements(&expected).is_none() {
        return Err(refused());
    }
    let along = strides(&expected)[axis];
    let mut others = strides(&expected);
    others[axis] = 0;
    let rest = offsets(&x.shape, &others);
    let place = move |(at, index)| at + index / block * along;
    Ok(Box::new(rest.zip(indices(x, axis)).map(place)))
}

/// The index along `axis` of each element.
fn indices(x: &Host, axis: usize) -> impl Iterator<Item = usize> + use<> {
    let mut only = vec![0; x.shape.len()];
    only[axis] = 1;
    offsets(&x.shape, &only)
}
