//! Operators that are evaluated at import. Their inputs are shapes, integers computed from shapes,
//! or weights.

use std::sync::Arc;

use super::attributes::unsupported;
use super::context::NodeContext;
use super::moves::{SliceRange, joined_size, permutation, slice_ranges};
use super::reshape::{reshape_target, squeezed_axes, unsqueezed_axes};
use super::tensors::{DecodedData, DecodedTensor, element};
use crate::error::NodeError;
use crate::shape::{broadcast, pad_rank, strides};

/// Returns true for operators that [`evaluate`] supports.
pub(super) fn can_evaluate(op: &str) -> bool {
    matches!(
        op,
        "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Floor"
            | "Ceil"
            | "Sqrt"
            | "Identity"
            | "Cast"
            | "Reshape"
            | "Squeeze"
            | "Unsqueeze"
            | "Transpose"
            | "Concat"
            | "Slice"
            | "Gather"
            | "ConstantOfShape"
    )
}

/// Evaluates a node whose inputs are all known.
pub(super) fn evaluate(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let result = match node.proto.op_type.as_str() {
        "Floor" => map_floats(node, f32::floor)?,
        "Ceil" => map_floats(node, f32::ceil)?,
        "Sqrt" => map_floats(node, f32::sqrt)?,
        "Identity" => only_input(node)?,
        "Cast" => cast(node)?,
        "Reshape" => reshape(node)?,
        "Squeeze" => squeeze(node)?,
        "Unsqueeze" => unsqueeze(node)?,
        "Transpose" => transpose(node)?,
        "Concat" => concat(node)?,
        "Slice" => slice(node)?,
        "Gather" => gather(node)?,
        "ConstantOfShape" => constant_of_shape(node)?,
        _ => arithmetic(node)?,
    };
    node.define_decoded_tensor(result)
}

/// Imports `Shape` of a value or of a constant, with a batch of one.
pub(super) fn shape(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let dims = match node.runtime_value(0) {
        Ok(value) => value.dims,
        Err(_) => node.decoded_tensor(0)?.shape.clone(),
    };
    let rank = dims.len() as i64;
    let from_front = |axis: i64| if axis < 0 { axis.saturating_add(rank) } else { axis };
    let start = from_front(node.attributes.int("start")?.unwrap_or(0)).clamp(0, rank);
    let end = from_front(node.attributes.int("end")?.unwrap_or(rank)).clamp(start, rank);
    let sizes = &dims[start as usize..end as usize];
    node.define_decoded_tensor(DecodedTensor::ints(sizes.iter().map(|&size| size as i64).collect()))
}

/// Imports `Constant` in its forms of floats and integers.
pub(super) fn constant(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(0)?;
    let scalar = |data| DecodedTensor { shape: Vec::new(), data };
    let decoded = if let Some(tensor) = node.attributes.tensor("value")? {
        node.decode(tensor)?
    } else if let Some(value) = node.attributes.float("value_float")? {
        scalar(DecodedData::Float(Arc::new(vec![value])))
    } else if let Some(value) = node.attributes.int("value_int")? {
        scalar(DecodedData::Int(vec![value]))
    } else if let Some(values) = node.attributes.floats("value_floats")? {
        DecodedTensor::floats(vec![values.len()], values.to_vec())
    } else if let Some(values) = node.attributes.ints("value_ints")? {
        DecodedTensor::ints(values.to_vec())
    } else {
        node.attributes.refuse_unread()?;
        return Err(NodeError::AttributeMissing("value"));
    };
    node.define_decoded_tensor(decoded)
}

/// Returns the only input, and charges as many elements for the result.
fn only_input(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    node.check_inputs_max(1)?;
    charged_input(node, 0)
}

/// Returns an input, and charges as many elements for the result.
fn charged_input(node: &mut NodeContext<'_, '_>, input: usize) -> Result<DecodedTensor, NodeError> {
    let decoded = node.decoded_tensor(input)?;
    node.charge(decoded.len())?;
    Ok(decoded.as_ref().clone())
}

fn map_floats(
    node: &mut NodeContext<'_, '_>,
    f: fn(f32) -> f32,
) -> Result<DecodedTensor, NodeError> {
    let decoded = only_input(node)?;
    let floats =
        decoded.as_floats().ok_or(NodeError::ElementType { input: 0, expected: "floats" })?;
    Ok(DecodedTensor::floats(decoded.shape.clone(), floats.iter().map(|&x| f(x)).collect()))
}

fn cast(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let decoded = only_input(node)?;
    let to = node.attributes.int("to")?.ok_or(NodeError::AttributeMissing("to"))?;
    node.attributes.require_int("saturate", 1)?;
    let DecodedTensor { shape, data } = decoded;
    let data = match (i32::try_from(to), data) {
        (Ok(element::FLOAT | element::DOUBLE), DecodedData::Int(data)) => {
            DecodedData::Float(Arc::new(data.iter().map(|&x| x as f32).collect()))
        }
        (Ok(element::INT32 | element::INT64), DecodedData::Float(data)) => {
            DecodedData::Int(data.iter().map(|&x| x as i64).collect())
        }
        (Ok(element::FLOAT | element::DOUBLE), data @ DecodedData::Float(_)) => data,
        (Ok(element::INT32 | element::INT64), data @ DecodedData::Int(_)) => data,
        _ => return Err(unsupported("to", to)),
    };
    Ok(DecodedTensor { shape, data })
}

fn reshape(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    node.check_inputs_max(2)?;
    let decoded = charged_input(node, 0)?;
    let shape = reshape_target(node, &decoded.shape)?;
    Ok(decoded.reshape(shape))
}

fn squeeze(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let decoded = charged_input(node, 0)?;
    let mut shape = decoded.shape.clone();
    for axis in squeezed_axes(node, &shape)?.into_iter().rev() {
        shape.remove(axis);
    }
    Ok(decoded.reshape(shape))
}

fn unsqueeze(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let decoded = charged_input(node, 0)?;
    let mut shape = decoded.shape.clone();
    for axis in unsqueezed_axes(node, shape.len())? {
        shape.insert(axis, 1);
    }
    node.charge_shape(&shape)?;
    Ok(decoded.reshape(shape))
}

fn transpose(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let decoded = only_input(node)?;
    let perm = permutation(node, decoded.shape.len())?;
    Ok(decoded.transpose(&perm))
}

/// Concatenates along an axis, element by element: these constants are short.
fn concat(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let axis = node.attributes.int("axis")?.ok_or(NodeError::AttributeMissing("axis"))?;
    let mut all = charged_input(node, 0)?;
    let axis = node.axis(axis, all.shape.len())?;
    for input in 1..node.proto.input.len() {
        node.charge(all.len())?;
        let next = charged_input(node, input)?;
        let total = joined_size(&all.shape, &next.shape, axis);
        let total = total.ok_or(NodeError::Shape { input, shape: next.shape.clone() })?;
        let inner =
            |decoded: &DecodedTensor| decoded.shape[axis..].iter().product::<usize>().max(1);
        let (x_chunk, y_chunk) = (inner(&all), inner(&next));
        let mut shape = all.shape.clone();
        shape[axis] = total;
        let data = match (&all.data, &next.data) {
            (DecodedData::Float(x), DecodedData::Float(y)) => {
                DecodedData::Float(Arc::new(interleave(x, x_chunk, y, y_chunk)))
            }
            (DecodedData::Int(x), DecodedData::Int(y)) => {
                DecodedData::Int(interleave(x, x_chunk, y, y_chunk))
            }
            _ => return Err(NodeError::ElementType { input, expected: "the type of input 0" }),
        };
        all = DecodedTensor { shape, data };
    }
    Ok(all)
}

/// Alternates chunks of `x_chunk` elements of `x` and of `y_chunk` elements of `y`. Either list may
/// be empty.
fn interleave<T: Copy>(x: &[T], x_chunk: usize, y: &[T], y_chunk: usize) -> Vec<T> {
    let chunks = (x.len() / x_chunk).max(y.len() / y_chunk);
    let chunk = |data: &[T], size: usize, i: usize| {
        data.get(i * size..(i + 1) * size).unwrap_or_default().to_vec()
    };
    (0..chunks).flat_map(|i| [chunk(x, x_chunk, i), chunk(y, y_chunk, i)].concat()).collect()
}

fn slice(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    let mut decoded = charged_input(node, 0)?;
    for range in slice_ranges(node, &decoded.shape.clone())? {
        let indices: Vec<usize> = (0..range.count).map(|n| nth_index(&range, n)).collect();
        node.charge(decoded.len())?;
        decoded = gather_along(&decoded, range.axis, &indices, &[indices.len()]);
    }
    Ok(decoded)
}

/// Returns `start + n × step`, which is inside the axis.
fn nth_index(range: &SliceRange, n: usize) -> usize {
    (range.start as i128 + i128::from(range.step) * n as i128) as usize
}

fn gather(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    node.check_inputs_max(2)?;
    let decoded = charged_input(node, 0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let axis = node.axis(axis, decoded.shape.len())?;
    let index_tensor = node.decoded_tensor(1)?;
    let ints =
        index_tensor.as_ints().ok_or(NodeError::ElementType { input: 1, expected: "integers" })?;
    let mut indices = Vec::new();
    for &index in ints {
        indices.push(node.axis(index, decoded.shape[axis])?);
    }
    let mut shape = decoded.shape.clone();
    shape.splice(axis..=axis, index_tensor.shape.iter().copied());
    node.charge_shape(&shape)?;
    Ok(gather_along(&decoded, axis, &indices, &index_tensor.shape))
}

/// Selects the elements at `indices` of an axis. `shape` replaces the axis in the result's shape.
fn gather_along(
    decoded: &DecodedTensor,
    axis: usize,
    indices: &[usize],
    shape: &[usize],
) -> DecodedTensor {
    let stride = strides(&decoded.shape)[axis];
    let block = stride * decoded.shape[axis];
    let outer: usize = decoded.shape[..axis].iter().product();
    let offsets = (0..outer).flat_map(|o| {
        indices.iter().flat_map(move |&index| {
            let from = o * block + index * stride;
            from..from + stride
        })
    });
    let mut result = decoded.shape.clone();
    result.splice(axis..=axis, shape.iter().copied());
    decoded.gather(result, offsets)
}

fn constant_of_shape(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    node.check_inputs_max(1)?;
    let sizes = node.ints(0)?;
    let shape = sizes.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| NodeError::Value { input: 0, value: format!("{sizes:?}") })?;
    node.charge_shape(&shape)?;
    let value = match node.attributes.tensor("value")? {
        Some(tensor) => node.decode(tensor)?,
        None => DecodedTensor::floats(vec![1], vec![0.0]),
    };
    if value.shape != [1] {
        return Err(unsupported("value", value.shape));
    }
    Ok(value.reshape(vec![1; shape.len()]).expand(&shape))
}

/// Computes `Add`, `Sub`, `Mul` or `Div` of two constants of equal type.
fn arithmetic(node: &mut NodeContext<'_, '_>) -> Result<DecodedTensor, NodeError> {
    node.check_inputs_max(2)?;
    let (a, b) = (node.decoded_tensor(0)?, node.decoded_tensor(1)?);
    let rank = a.shape.len().max(b.shape.len());
    let (a_shape, b_shape) = (pad_rank(&a.shape, rank), pad_rank(&b.shape, rank));
    let shape = broadcast(&a_shape, &b_shape)
        .ok_or_else(|| NodeError::Shape { input: 1, shape: b.shape.clone() })?;
    node.charge_shape(&shape)?;
    let a = a.as_ref().clone().reshape(a_shape).expand(&shape);
    let b = b.as_ref().clone().reshape(b_shape).expand(&shape);
    let op = node.proto.op_type.as_str();
    let data = match (a.data, b.data) {
        (DecodedData::Float(a), DecodedData::Float(b)) => {
            let f = float_function(op);
            DecodedData::Float(Arc::new(a.iter().zip(b.iter()).map(|(&a, &b)| f(a, b)).collect()))
        }
        (DecodedData::Int(a), DecodedData::Int(b)) => {
            let f = int_function(op);
            let data = a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect::<Option<_>>();
            DecodedData::Int(data.ok_or(NodeError::IntegerArithmetic)?)
        }
        _ => return Err(NodeError::ElementType { input: 1, expected: "the type of input 0" }),
    };
    Ok(DecodedTensor { shape, data })
}

fn float_function(op: &str) -> fn(f32, f32) -> f32 {
    match op {
        "Add" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        _ => |a, b| a / b,
    }
}

fn int_function(op: &str) -> fn(i64, i64) -> Option<i64> {
    match op {
        "Add" => i64::checked_add,
        "Sub" => i64::checked_sub,
        "Mul" => i64::checked_mul,
        _ => i64::checked_div,
    }
}
