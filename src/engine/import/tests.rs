//! End-to-end tests: from a node of a file to its results or to its refusal. The expected values
//! are the standard's formulas, computed by hand. ONNX Runtime 1.23 gives the same results, except
//! that it refuses dilations with `SAME_UPPER`.

mod constants;
mod elementwise;
mod files;
mod image_refusals;
mod images;
mod matrix;
mod moves;
mod refusals;
mod unknown;

use crate::fixtures::{assert_close, graph_of, model, node, run_model};
use crate::onnx::{AttributeProto, ModelProto, TensorProto};

/// Returns a model of one node with the inputs `x` and `constants` and the output `y`. A constant
/// without a name stands for an omitted input.
fn op_model(
    (op, opset): (&str, i64),
    input: &[i64],
    constants: Vec<TensorProto>,
    attributes: &[AttributeProto],
) -> ModelProto {
    let names = constants.iter().map(|constant| constant.name.as_str());
    let inputs: Vec<&str> = std::iter::once("x").chain(names).collect();
    let nodes = vec![node(op, &inputs, "y", attributes)];
    let stored = constants.iter().filter(|constant| !constant.name.is_empty());
    model(opset, input, nodes, stored.cloned().collect())
}

fn omitted_input() -> TensorProto {
    TensorProto::default()
}

/// Checks shape and elements of the first output for one item.
#[track_caller]
fn check(model: &ModelProto, x: &[f32], shape: &[usize], y: &[f32]) {
    assert_eq!(graph_of(model).outputs()[0].shape, shape);
    assert_close(&run_model(model, x), y, 1e-6);
}

/// Returns `1, 2, …, count`.
fn count_to(count: usize) -> Vec<f32> {
    (1..=count).map(|i| i as f32).collect()
}
