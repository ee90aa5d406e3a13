//! Operators that move elements without computing.

use super::attributes::unsupported;
use super::context::{NodeContext, Row, Value, strip};
use crate::error::NodeError;
use crate::op::Op;

/// The permutation of a `Transpose`; without one the axes are reversed.
pub(super) fn permutation(
    node: &mut NodeContext<'_, '_>,
    rank: usize,
) -> Result<Vec<usize>, NodeError> {
    node.inputs_max(1)?;
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
    let x = node.row(0)?;
    let perm = permutation(node, x.dims.len())?;
    let dims = perm.iter().map(|&axis| x.dims[axis]).collect();
    let batch = x.batch.and_then(|batch| perm.iter().position(|&axis| axis == batch));
    let kept = strip(&perm, batch);
    let row_perm = kept.iter().map(|&axis| x.row_axis(axis)).collect::<Result<Vec<_>, _>>()?;
    let y = match row_perm.is_sorted() {
        true => node.reshape(&x, dims, batch)?,
        false => node.emit(Op::Transpose { perm: row_perm }, &[&x], dims, batch)?,
    };
    node.define(y)
}

pub(super) fn concat(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let axis = node.attributes.int("axis")?.ok_or(NodeError::AttributeMissing("axis"))?;
    let mut rows = Vec::new();
    for input in 0..node.node.input.len() {
        rows.push(node.row(input)?);
    }
    let first = rows.first().ok_or(NodeError::InputMissing(0))?.clone();
    let axis = node.axis(axis, first.dims.len())?;
    if rows.iter().any(|row| row.batch != first.batch) {
        rows = rows.into_iter().map(|row| node.without_batch(row)).collect::<Result<_, _>>()?;
    }
    let batch = rows[0].batch;
    let row_axis = rows[0].row_axis(axis)?;
    let mut dims = first.dims.clone();
    for (input, row) in rows.iter().enumerate().skip(1) {
        let total = joined_size(&dims, &row.dims, axis);
        dims[axis] = total.ok_or_else(|| NodeError::Shape { input, shape: row.dims.clone() })?;
    }
    let inputs: Vec<&Row> = rows.iter().collect();
    let y = match inputs[..] {
        [only] => only.clone(),
        _ => node.emit(Op::Concat { axis: row_axis }, &inputs, dims, batch)?,
    };
    node.define(y)
}

/// The size along `axis` of two shapes joined, which must agree elsewhere.
pub(super) fn joined_size(a: &[usize], b: &[usize], axis: usize) -> Option<usize> {
    let agrees = |(i, (a, b)): (usize, (&usize, &usize))| i == axis || a == b;
    let fits = a.len() == b.len() && a.iter().zip(b).enumerate().all(agrees);
    if fits { a[axis].checked_add(b[axis]) } else { None }
}

/// One axis of a `Slice`: elements `start`, `start + step`, … of which there are `count`.
pub(super) struct Cut {
    pub(super) axis: usize,
    pub(super) start: usize,
    pub(super) step: i64,
    pub(super) count: usize,
}

/// Reads the cuts of a `Slice` (attributes before opset 10, inputs from then on).
pub(super) fn cuts(node: &mut NodeContext<'_, '_>, dims: &[usize]) -> Result<Vec<Cut>, NodeError> {
    let from_attributes = node.opset() < 10;
    node.inputs_max(if from_attributes { 1 } else { 5 })?;
    let (starts, ends, named, steps) = match from_attributes {
        true => {
            let starts = node.attributes.ints("starts")?;
            let ends = node.attributes.ints("ends")?;
            (
                starts.ok_or(NodeError::AttributeMissing("starts"))?.to_vec(),
                ends.ok_or(NodeError::AttributeMissing("ends"))?.to_vec(),
                node.attributes.ints("axes")?.map(<[i64]>::to_vec),
                None,
            )
        }
        false => (
            node.ints(1)?,
            node.ints(2)?,
            if node.has_input(3) { Some(node.ints(3)?) } else { None },
            if node.has_input(4) { Some(node.ints(4)?) } else { None },
        ),
    };
    let named = named.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), named.len(), steps.len()] != [starts.len(); 3] {
        return Err(NodeError::Value { input: 1, value: format!("{starts:?}") });
    }
    let mut cuts: Vec<Cut> = Vec::new();
    for (i, &step) in steps.iter().enumerate() {
        let axis = node.axis(named[i], dims.len())?;
        let refused = || NodeError::Value { input: 4, value: format!("{steps:?}") };
        if step == 0 || cuts.iter().any(|cut| cut.axis == axis) {
            return Err(refused());
        }
        let (start, count) = cut(dims[axis], starts[i], ends[i], step);
        cuts.push(Cut { axis, start, step, count });
    }
    Ok(cuts)
}

/// Start and count of the elements `start..end` by `step` of an axis, clamped as in Python.
fn cut(size: usize, start: i64, end: i64, step: i64) -> (usize, usize) {
    let size = size as i128;
    let from_front = |place: i64| {
        let place = i128::from(place);
        if place < 0 { place + size } else { place }
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
    let mut x = node.row(0)?;
    for cut in cuts(node, &x.dims)? {
        let step = usize::try_from(cut.step);
        let step = step.map_err(|_| NodeError::Value { input: 4, value: cut.step.to_string() })?;
        x = taken(node, &x, cut.axis, [cut.start, step, cut.count])?;
    }
    node.define(x)
}

/// `count` elements of an axis from `start` on, `step` apart.
fn taken(
    node: &mut NodeContext<'_, '_>,
    x: &Row,
    axis: usize,
    [start, step, count]: [usize; 3],
) -> Result<Row, NodeError> {
    if count == x.dims[axis] {
        return Ok(x.clone());
    }
    let row_axis = x.row_axis(axis)?;
    let mut dims = x.dims.clone();
    dims[axis] = count;
    node.emit(Op::Slice { axis: row_axis, start, step }, &[x], dims, x.batch)
}

/// Pieces of an axis: equal ones, or of sizes given as an attribute or, from opset 13, an input.
pub(super) fn split(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.inputs_max(2)?;
    let x = node.row(0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let axis = node.axis(axis, x.dims.len())?;
    let pieces = node.node.output.len();
    node.attributes.only_int("num_outputs", pieces as i64)?;
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
        values.push(Value::Row(taken(node, &x, axis, [start, 1, size])?));
        start += size;
    }
    node.define_all(values)
}

/// `Gather` of one index, which removes the axis.
pub(super) fn gather(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.inputs_max(2)?;
    let x = node.row(0)?;
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let axis = node.axis(axis, x.dims.len())?;
    x.row_axis(axis)?;
    let index = node.host(1)?;
    let refused = || NodeError::Shape { input: 1, shape: index.shape.clone() };
    let (Some(&[place]), true) = (index.as_ints(), index.shape.is_empty()) else {
        return Err(refused());
    };
    let start = node.axis(place, x.dims[axis])?;
    let one = taken(node, &x, axis, [start, 1, 1])?;
    let dims = strip(&one.dims, Some(axis));
    let batch = one.batch.map(|batch| if axis < batch { batch - 1 } else { batch });
    let y = node.reshape(&one, dims, batch)?;
    node.define(y)
}

/// A constant border; amounts are an attribute before opset 11 and an input from then on.
pub(super) fn pad(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let x = node.row(0)?;
    match node.attributes.string("mode")?.unwrap_or("constant") {
        "constant" => {}
        mode => return Err(unsupported("mode", mode)),
    }
    let (amounts, value) = if node.opset() < 11 {
        node.inputs_max(1)?;
        let pads = node.attributes.ints("pads")?.ok_or(NodeError::AttributeMissing("pads"))?;
        (pads.to_vec(), node.attributes.float("value")?.unwrap_or(0.0))
    } else {
        node.inputs_max(4)?;
        (node.ints(1)?, if node.has_input(2) { node.scalar(2)? } else { 0.0 })
    };
    let [before, after] = pad_amounts(node, &x, &amounts)?;
    let mut dims = x.dims.clone();
    for (axis, size) in dims.iter_mut().enumerate() {
        let total = size.checked_add(before[axis]).and_then(|s| s.checked_add(after[axis]));
        *size = total.ok_or_else(|| NodeError::ResultSize(x.dims.clone()))?;
        if before[axis] + after[axis] > 0 {
            x.row_axis(axis)?;
        }
    }
    let op = Op::Pad { before: x.strip(&before), after: x.strip(&after), value };
    let y = match dims == x.dims {
        true => x,
        false => node.emit(op, &[&x], dims, x.batch)?,
    };
    node.define(y)
}

/// Amounts before and after each axis; opset 18 may name the axes they are for.
fn pad_amounts(
    node: &mut NodeContext<'_, '_>,
    x: &Row,
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
    fn cuts_clamp_as_python_does() {
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
            assert_eq!(cut(size, start, end, step), expected, "{start}:{end}:{step}");
        }
    }
}
