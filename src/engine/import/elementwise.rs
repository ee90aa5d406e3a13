//! Operators that compute each element of the result from the elements at the same position.

use super::attributes::unsupported;
use super::context::{NodeContext, RuntimeValue, Value};
use super::tensors::element;
use crate::constant::Constant;
use crate::error::NodeError;
use crate::op::{Activation, Affine, BinaryOp, Op};
use crate::shape::{broadcast, pad_rank};

/// Imports `Add`, `Sub`, `Mul` and `Div` of two values, or of a value and a constant.
pub(super) fn binary(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let op = match node.proto.op_type.as_str() {
        "Add" => BinaryOp::Add,
        "Sub" => BinaryOp::Sub,
        "Mul" => BinaryOp::Mul,
        _ => BinaryOp::Div,
    };
    let y = match (node.value(0)?, node.value(1)?) {
        (Value::Runtime(a), Value::Runtime(b)) => binary_of_values(node, op, a, b)?,
        (Value::Runtime(x), _) => binary_with_constant(node, op, x, 1)?,
        (_, Value::Runtime(x)) => binary_with_constant(node, op, x, 0)?,
        _ => return Err(NodeError::UnexpectedConstant(0)),
    };
    node.define(y)
}

fn binary_of_values(
    node: &mut NodeContext<'_, '_>,
    op: BinaryOp,
    a: RuntimeValue,
    b: RuntimeValue,
) -> Result<RuntimeValue, NodeError> {
    let rank = a.dims.len().max(b.dims.len());
    let (a, b) = (with_rank(node, a, rank)?, with_rank(node, b, rank)?);
    let dims = broadcast(&a.dims, &b.dims)
        .ok_or_else(|| NodeError::Shape { input: 1, shape: b.dims.clone() })?;
    let (a, b) = match a.batch_axis == b.batch_axis {
        true => (a, b),
        false => (node.batch_as_ordinary_axis(a)?, node.batch_as_ordinary_axis(b)?),
    };
    node.emit(Op::Binary(op), &[&a, &b], dims, a.batch_axis)
}

/// Adds axes of size 1 in front, as broadcasting does.
fn with_rank(
    node: &mut NodeContext<'_, '_>,
    value: RuntimeValue,
    rank: usize,
) -> Result<RuntimeValue, NodeError> {
    let added = rank - value.dims.len();
    let batch_axis = value.batch_axis.map(|axis| axis + added);
    node.reshape(&value, pad_rank(&value.dims, rank), batch_axis)
}

/// Imports arithmetic with a constant as an [`Affine`].
fn binary_with_constant(
    node: &mut NodeContext<'_, '_>,
    op: BinaryOp,
    x: RuntimeValue,
    constant_input: usize,
) -> Result<RuntimeValue, NodeError> {
    let constant = node.broadcast_constant(constant_input, &x)?;
    let rank = constant.shape().len();
    let scalar = |value| Constant::scalar(value, rank);
    let (scale, shift) = match (op, constant_input) {
        (BinaryOp::Add, _) => (scalar(1.0), constant),
        (BinaryOp::Sub, 1) => (scalar(1.0), constant.map(|c| -c)),
        (BinaryOp::Sub, _) => (scalar(-1.0), constant),
        (BinaryOp::Mul, _) => (constant, scalar(0.0)),
        (BinaryOp::Div, 1) => (constant.map(|c| 1.0 / c), scalar(0.0)),
        (BinaryOp::Div, _) => return Err(NodeError::UnexpectedConstant(0)),
    };
    emit_affine(node, &x, scale, shift)
}

fn emit_affine(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    scale: Constant,
    shift: Constant,
) -> Result<RuntimeValue, NodeError> {
    node.emit(Op::Affine(Affine { scale, shift }), &[x], x.dims.clone(), x.batch_axis)
}

pub(super) fn negate(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.runtime_value(0)?;
    let rank = x.strip_batch(&x.dims).len();
    let y = emit_affine(node, &x, Constant::scalar(-1.0, rank), Constant::scalar(0.0, rank))?;
    node.define(y)
}

/// Imports `Pow` with an exponent of 1, 2 or 1/2.
pub(super) fn pow(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let y = match node.scalar(1)? {
        1.0 => x,
        2.0 => binary_of_values(node, BinaryOp::Mul, x.clone(), x)?,
        0.5 => emit_activation(node, &x, Activation::Sqrt)?,
        power => return Err(NodeError::Value { input: 1, value: power.to_string() }),
    };
    node.define(y)
}

/// Imports functions without parameters.
pub(super) fn activation(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let activation = match node.proto.op_type.as_str() {
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "HardSwish" => Activation::HardSwish,
        "Tanh" => Activation::Tanh,
        "Exp" => Activation::Exp,
        "Sqrt" => Activation::Sqrt,
        _ => Activation::Abs,
    };
    define_activation(node, activation)
}

pub(super) fn leaky_relu(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let slope = node.attributes.float("alpha")?.unwrap_or(0.01);
    define_activation(node, Activation::LeakyRelu(slope))
}

pub(super) fn hard_sigmoid(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let alpha = node.attributes.float("alpha")?.unwrap_or(0.2);
    let beta = node.attributes.float("beta")?.unwrap_or(0.5);
    define_activation(node, Activation::HardSigmoid { alpha, beta })
}

fn define_activation(
    node: &mut NodeContext<'_, '_>,
    activation: Activation,
) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.runtime_value(0)?;
    let y = emit_activation(node, &x, activation)?;
    node.define(y)
}

fn emit_activation(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    activation: Activation,
) -> Result<RuntimeValue, NodeError> {
    node.emit(Op::Activation(activation), &[x], x.dims.clone(), x.batch_axis)
}

/// Imports `Clip`. The limits are attributes before opset 11, and inputs since then.
pub(super) fn clip(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let (mut min, mut max) = (f32::MIN, f32::MAX);
    if node.opset() < 11 {
        node.check_inputs_max(1)?;
        min = node.attributes.float("min")?.unwrap_or(min);
        max = node.attributes.float("max")?.unwrap_or(max);
    } else {
        node.check_inputs_max(3)?;
        min = if node.has_input(1) { node.scalar(1)? } else { min };
        max = if node.has_input(2) { node.scalar(2)? } else { max };
    }
    if min.is_nan() || max.is_nan() {
        return Err(NodeError::Value { input: 1, value: "NaN".to_owned() });
    }
    let x = node.runtime_value(0)?;
    let y = emit_activation(node, &x, Activation::Clip { min, max })?;
    node.define(y)
}

pub(super) fn prelu(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.runtime_value(0)?;
    let slopes = node.broadcast_constant(1, &x)?;
    let y = emit_activation(node, &x, Activation::PRelu(slopes))?;
    node.define(y)
}

/// Imports batch normalisation at inference: `(x - mean) / sqrt(variance + epsilon) × scale +
/// bias`.
pub(super) fn batch_normalization(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(5)?;
    let epsilon = node.attributes.float("epsilon")?.unwrap_or(1e-5);
    // `momentum` matters only to training. `spatial` was removed in opset 9.
    node.attributes.ignore_float("momentum")?;
    node.attributes.require_int("training_mode", 0)?;
    if node.opset() < 9 {
        node.attributes.require_int("spatial", 1)?;
    }
    let x = node.runtime_value(0)?;
    if x.dims.len() < 2 || x.batch_axis == Some(1) {
        return Err(NodeError::Shape { input: 0, shape: x.dims });
    }
    let mut per_channel = |input: usize| {
        let constant = node.constant(input)?;
        if constant.shape() != [x.dims[1]] {
            return Err(NodeError::Shape { input, shape: constant.shape().to_vec() });
        }
        Ok(constant.data().iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
    };
    let (gamma, beta) = (per_channel(1)?, per_channel(2)?);
    let (mean, variance) = (per_channel(3)?, per_channel(4)?);
    let factors: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| g / (v + f64::from(epsilon)).sqrt()).collect();
    let shifts = beta.iter().zip(&mean).zip(&factors).map(|((b, m), f)| (b - m * f) as f32);
    let shift: Vec<f32> = shifts.collect();
    let scale: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
    let mut dims = vec![1; x.dims.len()];
    dims[1] = x.dims[1];
    let shape = x.strip_batch(&dims);
    let (scale, shift) = (Constant::new(shape.clone(), scale), Constant::new(shape, shift));
    let y = emit_affine(node, &x, scale, shift)?;
    node.define(y)
}

pub(super) fn identity(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.runtime_value(0)?;
    node.define(x)
}

/// Imports `Dropout`, which does nothing at inference. Its mask output is not supported.
pub(super) fn dropout(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(3)?;
    node.attributes.ignore_float("ratio")?;
    node.attributes.int("seed")?;
    if node.has_input(1) {
        node.scalar(1)?;
    }
    if node.has_input(2) && node.ints(2)? != [0] {
        return Err(NodeError::Value { input: 2, value: "true".to_owned() });
    }
    let x = node.runtime_value(0)?;
    match node.proto.output.len() {
        1 => node.define(x),
        count => Err(NodeError::OutputCount(count)),
    }
}

/// Imports `Cast` to `f32`, the only type of values that depend on the input.
pub(super) fn cast(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let to = node.attributes.int("to")?.ok_or(NodeError::AttributeMissing("to"))?;
    node.attributes.require_int("saturate", 1)?;
    if to != i64::from(element::FLOAT) {
        return Err(unsupported("to", to));
    }
    let x = node.runtime_value(0)?;
    node.define(x)
}
