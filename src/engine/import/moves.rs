//! Operators that move elements and compute nothing.

use super::attributes::unsupported;
use super::context::{NodeContext, RuntimeValue, Value, strip_axis};
use crate::error::NodeError;
use crate::op::Op;

/// Returns the permutation of a `Transpose`. Without `perm`, the order of the axes is reversed.
pub(super) fn permutation(
    node: &mut NodeContext<'_, '_>,
    rank: usize,
) -> Result<Vec<usize>, NodeError> {
    node.check_inputs_max(1)?;
    let Some(perm) = node.attributes.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let mut seen = vec![false; rank];
    for &axis in perm {
        let slot = usize::try_from(axis).ok().and_then(|axis| seen.get_mut(axis));
        *slot.ok_or_else(|| unsupported("perm", perm))? = true;
    }
    if perm.len() != rank || seen.contains(&false) {
        return Err(unsupported("perm", perm));
    }
    Ok(perm.iter().map(|&axis| axis as usize).collect())
}

pub(super) fn transpose(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let x = node.runtime_value(0)?;
    let perm = permutation(node, x.dims.len())?;
    let dims = perm.iter().map(|&axis| x.dims[axis]).collect();
    let batch_axis = x.batch_axis.and_then(|old| perm.iter().position(|&axis| axis == old));
    let kept = strip_axis(&perm, batch_axis);
    let item_perm = kept.iter().map(|&axis| x.item_axis(axis)).collect::<Result<Vec<_>, _>>()?;
    let y = match item_perm.is_sorted() {
        true => node.reshape(&x, dims, batch_axis)?,
        false => node.emit(Op::Transpose { perm: item_perm }, &[&x], dims, batch_axis)?,
    };
    node.define(y)
}

pub(super) fn concat(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let axis = node.attributes.int("axis")?.ok_or(NodeError::AttributeMissing("axis"))?;
    let mut parts = Vec::new();
    for input in 0..node.proto.input.len() {
        parts.push(node.runtime_value(input)?);
    }
    let first = parts.first().ok_or(NodeError::InputMissing(0))?.clone();
    let axis = node.axis(axis, first.dims.len())?;
    if parts.iter().any(|part| part.batch_axis != first.batch_axis) {
        parts = parts
            .into_iter()
            .map(|part| node.batch_as_ordinary_axis(part))
            .collect::<Result<_, _>>()?;
    }
    let batch_axis = parts[0].batch_axis;
    let item_axis = parts[0].item_axis(axis)?;
    let mut dims = first.dims.clone();
    for (input, part) in parts.iter().enumerate().skip(1) {
        let total = joined_size(&dims, &part.dims, axis);
        dims[axis] = total.ok_or_else(|| NodeError::Shape { input, shape: part.dims.clone() })?;
    }
    let inputs: Vec<&RuntimeValue> = parts.iter().collect();
    let y = match inputs[..] {
        [only] => only.clone(),
        _ => node.emit(Op::Concat { axis: item_axis }, &inputs, dims, batch_axis)?,
    };
    node.define(y)
}

/// Returns the size along `axis` after a concatenation, or `None` if another axis differs.
pub(super) fn joined_size(a: &[usize], b: &[usize], axis: usize) -> Option<usize> {
    let agrees = |(i, (a, b)): (usize, (&usize, &usize))| i == axis || a == b;
    let fits = a.len() == b.len() && a.iter().zip(b).enumerate().all(agrees);
    if fits { a[axis].checked_add(b[axis]) } else { None }
}

/// One axis of a `Slice`: the `count` elements `start`, `start + step`, …
pub(super) struct SliceRange {
    pub(super) axis: usize,
    pub(super) start: usize,
    pub(super) step: i64,
    pub(super) count: usize,
}

/// Reads the ranges of a `Slice`: attributes before opset 10, inputs since then.
pub(super) fn slice_ranges(
    node: &mut NodeContext<'_, '_>,
    dims: &[usize],
) -> Result<Vec<SliceRange>, NodeError> {
    let lists = if node.opset() < 10 { slice_attributes(node)? } else { slice_inputs(node)? };
    let SliceLists { starts, ends, axes, steps } = lists;
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(NodeError::Value { input: 1, value: format!("{starts:?}") });
    }
    let mut ranges: Vec<SliceRange> = Vec::new();
    for (i, &step) in steps.iter().enumerate() {
        let axis = node.axis(axes[i], dims.len())?;
        let refused = || NodeError::Value { input: 4, value: format!("{steps:?}") };
        if step == 0 || ranges.iter().any(|range| range.axis == axis) {
            return Err(refused());
        }
        let (start, count) = clamp_range(dims[axis], starts[i], ends[i], step);
        ranges.push(SliceRange { axis, start, step, count });
    }
    Ok(ranges)
}

/// The lists of a `Slice`. Each has one entry per sliced axis.
struct SliceLists {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

impl SliceLists {
    /// Without `axes`, the first axes are sliced in order. Without `steps`, every step is 1.
    fn new(
        starts: Vec<i64>,
        ends: Vec<i64>,
        axes: Option<Vec<i64>>,
        steps: Option<Vec<i64>>,
    ) -> Self {
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        Self { starts, ends, axes, steps }
    }
}

fn slice_attributes(node: &mut NodeContext<'_, '_>) -> Result<SliceLists, NodeError> {
    node.check_inputs_max(1)?;
    let starts = node.attributes.ints("starts")?;
    let ends = node.attributes.ints("ends")?;
    let starts = starts.ok_or(NodeError::AttributeMissing("starts"))?.to_vec();
    let ends = ends.ok_or(NodeError::AttributeMissing("ends"))?.to_vec();
    let axes = node.attributes.ints("axes")?.map(<[i64]>::to_vec);
    Ok(SliceLists::new(starts, ends, axes, None))
}

fn slice_inputs(node: &mut NodeContext<'_, '_>) -> Result<SliceLists, NodeError> {
    node.check_inputs_max(5)?;
    let starts = node.ints(1)?;
    let ends = node.ints(2)?;
    let axes = if node.has_input(3) { Some(node.ints(3)?) } else { None };
    let steps = if node.has_input(4) { Some(node.ints(4)?) } else { None };
    Ok(SliceLists::new(starts, ends, axes, steps))
}

/// Returns start and count of the elements `start..end` by `step`, clamped as in Python.
fn clamp_range(size: usize, start: i64, end: i64, step: i64) -> (usize, usize) {
    let size = size as i128;
    let from_front = |index: i64| {
        let index = i128::from(index);
        if index < 0 { index + size } else { index }
    };
    let step = i128::from(step);
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let start = from_front(start).clamp(if step > 0 { 0 } else { -1 }, high);
    let end = from_front(end).clamp(low, high);
    let distance = if step > 0 { end - start } else { start - end };
    let count = if distance > 0 { (distance - 1) / step.abs() + 1 } else { 0 };
    (start.max(0) as usize, count as usize)
}

pub(super) fn slice(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let mut x = node.runtime_value(0)?;
    for range in slice_ranges(node, &x.dims)? {
        let step = usize::try_from(range.step);
        let step =
            step.map_err(|_| NodeError::Value { input: 4, value: range.step.to_string() })?;
        x = slice_axis(node, &x, range.axis, [range.start, step, range.count])?;
    }
    node.define(x)
}

/// Selects `count` elements of an axis from `start` on, `step` apart.
fn slice_axis(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    axis: usize,
    [start, step, count]: [usize; 3],
) -> Result<RuntimeValue, NodeError> {
    if count == x.dims[axis] {
        return Ok(x.clone());
    }
    let item_axis = x.item_axis(axis)?;
    let mut dims = x.dims.clone();
    dims[axis] = count;
    node.emit(Op::Slice { axis: item_axis, start, step }, &[x], dims, x.batch_axis)
}

/// Imports `Split` into equal pieces or pieces of given sizes. The sizes are an attribute or, from
/// opset 13, an input.
pub(super) fn split(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let axis = node.axis(axis, x.dims.len())?;
    let pieces = node.proto.output.len();
    node.attributes.require_int("num_outputs", pieces as i64)?;
    let given = match node.attributes.ints("split")? {
        Some(sizes) => Some(sizes.to_vec()),
        None if node.has_input(1) => Some(node.ints(1)?),
        None => None,
    };
    let size = x.dims[axis];
    let sizes = match given {
        Some(sizes) => sizes,
        None if pieces > 0 && size % pieces == 0 => vec![(size / pieces) as i64; pieces],
        None => return Err(NodeError::OutputCount(pieces)),
    };
    let sizes: Vec<usize> = sizes.iter().map(|&s| usize::try_from(s).unwrap_or(0)).collect();
    let total = sizes.iter().try_fold(0_usize, |sum, &s| sum.checked_add(s));
    if total != Some(size) || sizes.len() != pieces {
        return Err(NodeError::Value { input: 1, value: format!("{sizes:?}") });
    }
    let mut values = Vec::new();
    let mut start = 0;
    for size in sizes {
        values.push(Value::Runtime(slice_axis(node, &x, axis, [start, 1, size])?));
        start += size;
    }
    node.define_all(values)
}

/// Imports `Gather` of a single index, which removes the axis.
pub(super) fn gather(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let axis = node.axis(axis, x.dims.len())?;
    x.item_axis(axis)?;
    let index = node.decoded_tensor(1)?;
    let refused = || NodeError::Shape { input: 1, shape: index.shape.clone() };
    let (Some(&[first]), true) = (index.as_ints(), index.shape.is_empty()) else {
        return Err(refused());
    };
    let start = node.axis(first, x.dims[axis])?;
    let one = slice_axis(node, &x, axis, [start, 1, 1])?;
    let dims = strip_axis(&one.dims, Some(axis));
    let batch_axis = one.batch_axis.map(|old| if axis < old { old - 1 } else { old });
    let y = node.reshape(&one, dims, batch_axis)?;
    node.define(y)
}

/// Imports `Pad` with a constant. The amounts are an attribute before opset 11, and an input since
/// then.
pub(super) fn pad(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let x = node.runtime_value(0)?;
    match node.attributes.string("mode")?.unwrap_or("constant") {
        "constant" => {}
        mode => return Err(unsupported("mode", mode)),
    }
    let (amounts, value) = if node.opset() < 11 {
        node.check_inputs_max(1)?;
        let pads = node.attributes.ints("pads")?.ok_or(NodeError::AttributeMissing("pads"))?;
        (pads.to_vec(), node.attributes.float("value")?.unwrap_or(0.0))
    } else {
        node.check_inputs_max(4)?;
        (node.ints(1)?, if node.has_input(2) { node.scalar(2)? } else { 0.0 })
    };
    let [before, after] = pad_amounts(node, &x, &amounts)?;
    let mut dims = x.dims.clone();
    for (axis, size) in dims.iter_mut().enumerate() {
        let total = size.checked_add(before[axis]).and_then(|s| s.checked_add(after[axis]));
        *size = total.ok_or_else(|| NodeError::ResultSize(x.dims.clone()))?;
        if before[axis] + after[axis] > 0 {
            x.item_axis(axis)?;
        }
    }
    let op = Op::Pad { before: x.strip_batch(&before), after: x.strip_batch(&after), value };
    let y = match dims == x.dims {
        true => x,
        false => node.emit(op, &[&x], dims, x.batch_axis)?,
    };
    node.define(y)
}

/// Returns the amounts before and after each axis. From opset 18, an input may name the axes.
fn pad_amounts(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    amounts: &[i64],
) -> Result<[Vec<usize>; 2], NodeError> {
    let rank = x.dims.len();
    let axes = match node.has_input(3) {
        true => node.ints(3)?,
        false => (0..rank as i64).collect(),
    };
    let refused = || NodeError::Value { input: 1, value: format!("{amounts:?}") };
    if amounts.len() != axes.len() * 2 {
        return Err(refused());
    }
    let mut pads = [vec![0; rank], vec![0; rank]];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = node.axis(axis, rank)?;
        for (side, pad) in pads.iter_mut().enumerate() {
            let amount = usize::try_from(amounts[side * axes.len() + i]).ok();
            pad[axis] = amount.filter(|&a| a <= i32::MAX as usize).ok_or_else(refused)?;
        }
    }
    Ok(pads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_ranges_are_clamped_as_in_python() {
        let python = [
            ((5, 1, 3, 1), (1, 2)),
            ((5, -2, i64::MAX, 1), (3, 2)),
            ((5, 0, -1, 2), (0, 2)),
            ((5, -1, i64::MIN, -1), (4, 5)),
            ((5, 3, 0, -2), (3, 2)),
            ((5, 4, 2, 1), (4, 0)),
            ((5, i64::MIN, i64::MAX, i64::MAX), (0, 1)),
        ];
        for ((size, start, end, step), expected) in python {
            assert_eq!(clamp_range(size, start, end, step), expected, "{start}:{end}:{step}");
        }
    }
}
