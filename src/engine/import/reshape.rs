//! Operators that change the shape of a value, and keep the elements in order or repeat them.

use super::attributes::unsupported;
use super::context::{NodeContext, RuntimeValue};
use crate::error::NodeError;
use crate::op::Op;
use crate::shape::{broadcast, checked_element_count, pad_rank};

/// Reshapes a value. The first axis of the result is the batch axis if it was the batch axis before
/// and still has size 1. Otherwise the result has no batch axis.
fn emit_reshape(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    dims: Vec<usize>,
) -> Result<RuntimeValue, NodeError> {
    let keeps_batch = x.batch_axis == Some(0) && dims.first() == Some(&1);
    node.reshape(x, dims, keeps_batch.then_some(0))
}

pub(super) fn reshape(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let dims = reshape_target(node, &x.dims)?;
    let y = emit_reshape(node, &x, dims)?;
    node.define(y)
}

/// Returns the target shape of a `Reshape` of a value of shape `from`.
pub(super) fn reshape_target(
    node: &mut NodeContext<'_, '_>,
    from: &[usize],
) -> Result<Vec<usize>, NodeError> {
    let allow_zero = node.attributes.flag("allowzero", false)?;
    let target = node.ints(1)?;
    resolve_target(from, &target, allow_zero)
        .ok_or_else(|| NodeError::Value { input: 1, value: format!("{target:?}") })
}

fn resolve_target(from: &[usize], target: &[i64], allow_zero: bool) -> Option<Vec<usize>> {
    let mut dims = Vec::with_capacity(target.len());
    let mut inferred_axis = None;
    for (axis, &size) in target.iter().enumerate() {
        dims.push(match size {
            -1 if inferred_axis.replace(axis).is_some() => return None,
            -1 => 1,
            0 if !allow_zero => *from.get(axis)?,
            size => usize::try_from(size).ok()?,
        });
    }
    let (all, known) = (checked_element_count(from)?, checked_element_count(&dims)?);
    if let Some(axis) = inferred_axis {
        dims[axis] = all.checked_div(known)?;
    }
    (checked_element_count(&dims)? == all).then_some(dims)
}

/// Imports `Flatten`: joins the axes before `axis`, and those from `axis` on.
pub(super) fn flatten(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.runtime_value(0)?;
    let rank = x.dims.len();
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let axis = if axis == rank as i64 { rank } else { node.axis(axis, rank)? };
    let (outer, inner) = x.dims.split_at(axis);
    let count = |dims: &[usize]| {
        checked_element_count(dims).ok_or_else(|| NodeError::ResultSize(dims.to_vec()))
    };
    let dims = vec![count(outer)?, count(inner)?];
    let y = emit_reshape(node, &x, dims)?;
    node.define(y)
}

/// Reads the axes of `Squeeze` and `Unsqueeze`: an attribute before opset 13, an input since then.
fn read_axes(node: &mut NodeContext<'_, '_>) -> Result<Option<Vec<i64>>, NodeError> {
    match node.attributes.ints("axes")? {
        Some(axes) => Ok(Some(axes.to_vec())),
        None if node.has_input(1) => node.ints(1).map(Some),
        None => Ok(None),
    }
}

/// Returns the axes that `Squeeze` removes from a value of shape `dims`, ascending.
pub(super) fn squeezed_axes(
    node: &mut NodeContext<'_, '_>,
    dims: &[usize],
) -> Result<Vec<usize>, NodeError> {
    node.check_inputs_max(2)?;
    let Some(named) = read_axes(node)? else {
        return Ok((0..dims.len()).filter(|&axis| dims[axis] == 1).collect());
    };
    let mut removed = Vec::new();
    for axis in named {
        removed.push(node.axis(axis, dims.len())?);
    }
    removed.sort_unstable();
    removed.dedup();
    match removed.iter().all(|&axis| dims[axis] == 1) {
        true => Ok(removed),
        false => Err(NodeError::Shape { input: 0, shape: dims.to_vec() }),
    }
}

pub(super) fn squeeze(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let x = node.runtime_value(0)?;
    let removed = squeezed_axes(node, &x.dims)?;
    let mut dims = x.dims.clone();
    for &axis in removed.iter().rev() {
        dims.remove(axis);
    }
    let batch_axis = x.batch_axis.filter(|batch_axis| !removed.contains(batch_axis));
    let batch_axis = batch_axis.map(|old| old - removed.iter().filter(|&&axis| axis < old).count());
    let y = node.reshape(&x, dims, batch_axis)?;
    node.define(y)
}

/// Returns the axes that `Unsqueeze` adds to a value of `rank` axes, as ascending axes of the
/// result.
pub(super) fn unsqueezed_axes(
    node: &mut NodeContext<'_, '_>,
    rank: usize,
) -> Result<Vec<usize>, NodeError> {
    node.check_inputs_max(2)?;
    let named = read_axes(node)?.ok_or(NodeError::AttributeMissing("axes"))?;
    let mut added = Vec::new();
    for &axis in &named {
        added.push(node.axis(axis, rank + named.len())?);
    }
    added.sort_unstable();
    match added.windows(2).all(|pair| pair[0] != pair[1]) {
        true => Ok(added),
        false => Err(unsupported("axes", named)),
    }
}

pub(super) fn unsqueeze(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let x = node.runtime_value(0)?;
    let added = unsqueezed_axes(node, x.dims.len())?;
    let (mut dims, mut batch_axis) = (x.dims.clone(), x.batch_axis);
    for &axis in &added {
        dims.insert(axis, 1);
        batch_axis = batch_axis.map(|old| if axis <= old { old + 1 } else { old });
    }
    let y = node.reshape(&x, dims, batch_axis)?;
    node.define(y)
}

/// Imports `Expand`, which repeats elements along axes of size 1.
pub(super) fn expand(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let target = node.ints(1)?;
    let refused = || NodeError::Value { input: 1, value: format!("{target:?}") };
    let sizes = target.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
    let sizes = sizes.map_err(|_| refused())?;
    if sizes.len() > x.dims.len() {
        return Err(refused());
    }
    let dims = broadcast(&x.dims, &pad_rank(&sizes, x.dims.len())).ok_or_else(refused)?;
    if let Some(batch_axis) = x.batch_axis.filter(|&batch_axis| dims[batch_axis] != 1) {
        return Err(NodeError::MixesItems(batch_axis));
    }
    let y = match dims == x.dims {
        true => x,
        false => node.emit(Op::Expand, &[&x], dims, x.batch_axis)?,
    };
    node.define(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_resolve_zero_and_minus_one() {
        type Case = (&'static [usize], &'static [i64], Option<&'static [usize]>);
        let cases: [Case; 6] = [
            (&[1, 6, 4], &[0, -1], Some(&[1, 24])),
            (&[1, 6, 4], &[1, -1, 4], Some(&[1, 6, 4])),
            (&[1, 6, 4], &[-1, -1], None),
            (&[1, 6, 4], &[5, -1], None),
            (&[1, 6, 4], &[0, 0, 0, 0], None),
            (&[1, 6, 4], &[-2, 24], None),
        ];
        for (from, target, expected) in cases {
            assert_eq!(resolve_target(from, target, false).as_deref(), expected, "{target:?}");
        }
        assert_eq!(resolve_target(&[1, 6], &[0, 6], true), None);
    }
}
