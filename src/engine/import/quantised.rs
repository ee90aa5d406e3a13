//! Weights stored as small integers.

use std::sync::Arc;

use super::attributes::unsupported;
use super::context::{NodeContext, Value};
use super::tensors::{DecodedTensor, IntIter, decode_ints, holds_floats, stored_shape};
use crate::error::NodeError;
use crate::shape::{checked_element_count, offsets, strides};

/// Imports `(x - zero point) × scale` of a constant. There is one scale for all elements, for each
/// index of an axis, or for each block of an axis.
pub(super) fn dequantize_linear(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(3)?;
    node.attributes.require_int("output_dtype", 0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let block = node.attributes.int("block_size")?.unwrap_or(0);
    let x = node.value(0)?;
    let (shape, values) = quantised_values(node, &x)?;
    let scale = node.decoded_tensor(1)?;
    let zero = if node.has_input(2) { Some(node.decoded_tensor(2)?) } else { None };
    node.charge(values.len())?;
    let scale_indices = scale_indices(node, &shape, &scale, axis, block)?;

    let scales =
        scale.as_floats().ok_or(NodeError::ElementType { input: 1, expected: "floats" })?;
    let zeros = zero_points(&scale, zero.as_ref())?.ok_or(expected_integers(2))?;
    let dequantise = |(value, at): (i64, usize)| (value as f32 - zeros[at] as f32) * scales[at];
    let mut data = Vec::with_capacity(values.len());
    data.extend(values.zip(scale_indices).map(dequantise));
    node.define_decoded_tensor(DecodedTensor::floats(shape, data))
}

/// Returns shape and values of the quantised input. The values are an iterator, so that they never
/// exist as `i64` all at once.
fn quantised_values<'v>(
    node: &mut NodeContext<'_, '_>,
    x: &'v Value<'_>,
) -> Result<(Vec<usize>, IntIter<'v>), NodeError> {
    match x {
        Value::Runtime(_) => Err(NodeError::NotConstant(0)),
        Value::Decoded(decoded) => {
            let ints = decoded.as_ints().ok_or(expected_integers(0))?;
            Ok((decoded.shape.clone(), Box::new(ints.iter().copied())))
        }
        Value::Stored(tensor) if holds_floats(tensor) => Err(expected_integers(0)),
        Value::Stored(tensor) => {
            node.charge_shape(&stored_shape(tensor)?)?;
            Ok(decode_ints(tensor)?)
        }
    }
}

fn expected_integers(input: usize) -> NodeError {
    NodeError::ElementType { input, expected: "integers" }
}

/// Returns the zero point of each scale, or `None` if the zero points are not integers.
fn zero_points(
    scale: &DecodedTensor,
    zero: Option<&Arc<DecodedTensor>>,
) -> Result<Option<Vec<i64>>, NodeError> {
    match zero {
        None => Ok(Some(vec![0; scale.len()])),
        Some(zero) if zero.len() == scale.len() => Ok(zero.as_ints().map(<[i64]>::to_vec)),
        Some(zero) => Err(NodeError::Shape { input: 2, shape: zero.shape.clone() }),
    }
}

/// Returns for each element of `x` the index of its scale. It is an iterator because a list of the
/// indices would take eight times the bytes of the weights.
fn scale_indices(
    node: &NodeContext<'_, '_>,
    shape: &[usize],
    scale: &DecodedTensor,
    axis: i64,
    block: i64,
) -> Result<Box<dyn Iterator<Item = usize>>, NodeError> {
    if scale.len() == 1 && block == 0 {
        return Ok(Box::new(std::iter::repeat(0)));
    }
    let axis = node.axis(axis, shape.len())?;
    let refused = || NodeError::Shape { input: 1, shape: scale.shape.clone() };
    if block == 0 {
        let per_index = scale.shape == [shape[axis]];
        return if per_index { Ok(Box::new(indices(shape, axis))) } else { Err(refused()) };
    }
    // 0 was handled above, so a converted value is positive.
    let block = usize::try_from(block).map_err(|_| unsupported("block_size", block))?;
    let mut expected = shape.to_vec();
    expected[axis] = shape[axis].div_ceil(block);
    if scale.shape != expected || checked_element_count(&expected).is_none() {
        return Err(refused());
    }
    let axis_stride = strides(&expected)[axis];
    let mut other_strides = strides(&expected);
    other_strides[axis] = 0;
    let rest = offsets(shape, &other_strides);
    let scale_index = move |(at, index)| at + index / block * axis_stride;
    Ok(Box::new(rest.zip(indices(shape, axis)).map(scale_index)))
}

/// Returns the index along `axis` of each element.
fn indices(shape: &[usize], axis: usize) -> impl Iterator<Item = usize> + use<> {
    let mut axis_stride = vec![0; shape.len()];
    axis_stride[axis] = 1;
    offsets(shape, &axis_stride)
}
