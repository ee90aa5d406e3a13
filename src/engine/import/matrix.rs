//! Products with a constant matrix.

use super::context::{NodeContext, RuntimeValue};
use crate::constant::Constant;
use crate::error::NodeError;
use crate::op::{Linear, Op};

/// Imports `alpha × A × B + beta × C` with constants B and C.
pub(super) fn gemm(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(3)?;
    node.attributes.require_int("transA", 0)?;
    let transposed = node.attributes.flag("transB", false)?;
    let alpha = node.attributes.float("alpha")?.unwrap_or(1.0);
    let beta = node.attributes.float("beta")?.unwrap_or(1.0);
    let x = node.runtime_value(0)?;
    if x.dims.len() != 2 {
        return Err(NodeError::Shape { input: 0, shape: x.dims });
    }
    let matrix = matrix(node)?;
    let weight = if transposed { matrix } else { matrix.transpose(&[1, 0]) };
    let weight = if alpha == 1.0 { weight } else { weight.map(|w| alpha * w) };
    let bias = match node.has_input(2) {
        true => Some(gemm_bias(node, weight.shape()[0], beta)?),
        false => None,
    };
    linear(node, x, weight, bias)
}

fn gemm_bias(node: &mut NodeContext<'_, '_>, out: usize, beta: f32) -> Result<Constant, NodeError> {
    let bias = node.constant(2)?;
    let count = bias.data().len();
    let is_vector = matches!(bias.shape(), [] | [_] | [1, _]) && (count == 1 || count == out);
    if !is_vector {
        return Err(NodeError::Shape { input: 2, shape: bias.shape().to_vec() });
    }
    Ok(bias.reshape(vec![count]).expand(&[out]).map(|b| beta * b))
}

/// Imports a product with a constant matrix on the right.
pub(super) fn matmul(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let weight = matrix(node)?.transpose(&[1, 0]);
    linear(node, x, weight, None)
}

fn matrix(node: &mut NodeContext<'_, '_>) -> Result<Constant, NodeError> {
    let matrix = node.constant(1)?;
    if matrix.shape().len() != 2 || matrix.data().is_empty() {
        return Err(NodeError::Shape { input: 1, shape: matrix.shape().to_vec() });
    }
    Ok(matrix)
}

fn linear(
    node: &mut NodeContext<'_, '_>,
    x: RuntimeValue,
    weight: Constant,
    bias: Option<Constant>,
) -> Result<(), NodeError> {
    let last = x.dims.len().checked_sub(1);
    let last = last.ok_or_else(|| NodeError::Shape { input: 0, shape: x.dims.clone() })?;
    x.item_axis(last)?;
    if x.dims[last] != weight.shape()[1] {
        return Err(NodeError::Shape { input: 1, shape: weight.shape().to_vec() });
    }
    let mut dims = x.dims.clone();
    dims[last] = weight.shape()[0];
    let y = node.emit(Op::Linear(Linear { weight, bias }), &[&x], dims, x.batch_axis)?;
    node.define(y)
}
