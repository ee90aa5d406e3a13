//! Operators that reduce axes or normalise along them.

use super::attributes::unsupported;
use super::context::{NodeContext, RuntimeValue, strip_axis};
use crate::error::NodeError;
use crate::op::{Op, Reduction};
use crate::shape::element_count;

/// Imports `Softmax`: over one axis from opset 13 on, and over all axes from `axis` on before.
pub(super) fn softmax(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.runtime_value(0)?;
    let joins_axes = node.opset() < 13;
    let axis = node.attributes.int("axis")?.unwrap_or(if joins_axes { 1 } else { -1 });
    let first = node.axis(axis, x.dims.len())?;
    let y = if joins_axes {
        softmax_over_joined_axes(node, &x, first)?
    } else {
        softmax_along(node, &x, first)?
    };
    node.define(y)
}

fn softmax_along(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    axis: usize,
) -> Result<RuntimeValue, NodeError> {
    let axis = x.item_axis(axis)?;
    node.emit(Op::Softmax { axis }, &[x], x.dims.clone(), x.batch_axis)
}

fn softmax_over_joined_axes(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    first: usize,
) -> Result<RuntimeValue, NodeError> {
    if let Some(batch_axis) = x.batch_axis.filter(|&batch_axis| batch_axis >= first) {
        return Err(NodeError::MixesItems(batch_axis));
    }
    let (outer, inner) = x.dims.split_at(first);
    let mut dims = outer.to_vec();
    dims.push(element_count(inner));
    let flat = node.reshape(x, dims, x.batch_axis)?;
    let y = softmax_along(node, &flat, first)?;
    node.reshape(&y, x.dims.clone(), x.batch_axis)
}

/// Imports `ReduceMean`, `ReduceSum`, `ReduceMax` and `ReduceL2`. The axes are an attribute or an
/// input.
pub(super) fn reduce(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let reduction = match node.proto.op_type.as_str() {
        "ReduceMean" => Reduction::Mean,
        "ReduceSum" => Reduction::Sum,
        "ReduceMax" => Reduction::Max,
        _ => Reduction::L2,
    };
    let x = node.runtime_value(0)?;
    let keep_dims = node.attributes.flag("keepdims", true)?;
    let noop = node.attributes.flag("noop_with_empty_axes", false)?;
    let named = match node.attributes.ints("axes")? {
        Some(axes) => axes.to_vec(),
        None if node.has_input(1) => node.ints(1)?,
        None => Vec::new(),
    };
    if named.is_empty() && noop {
        return Err(unsupported("noop_with_empty_axes", 1));
    }
    let mut axes = Vec::new();
    for axis in named {
        axes.push(node.axis(axis, x.dims.len())?);
    }
    if axes.is_empty() {
        axes = (0..x.dims.len()).collect();
    }
    axes.sort_unstable();
    axes.dedup();
    let y = emit_reduce(node, &x, reduction, &axes)?;
    let y = if keep_dims { y } else { drop_axes(node, &y, &axes)? };
    node.define(y)
}

fn emit_reduce(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    reduction: Reduction,
    axes: &[usize],
) -> Result<RuntimeValue, NodeError> {
    let item_axes = axes.iter().map(|&axis| x.item_axis(axis)).collect::<Result<Vec<_>, _>>()?;
    let mut dims = x.dims.clone();
    for &axis in axes {
        dims[axis] = 1;
    }
    node.emit(Op::Reduce { reduction, axes: item_axes }, &[x], dims, x.batch_axis)
}

/// Removes axes of size 1. None of them is the batch axis.
fn drop_axes(
    node: &mut NodeContext<'_, '_>,
    y: &RuntimeValue,
    axes: &[usize],
) -> Result<RuntimeValue, NodeError> {
    let mut dims = y.dims.clone();
    for &axis in axes.iter().rev() {
        dims = strip_axis(&dims, Some(axis));
    }
    let batch_axis = y.batch_axis.map(|old| old - axes.iter().filter(|&&axis| axis < old).count());
    node.reshape(y, dims, batch_axis)
}
