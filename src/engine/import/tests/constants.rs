//! Values that are known at import: stored integers, shapes, and arithmetic with them.

use super::{check, count_to, op_model};
use crate::fixtures::{
    float, float_list, floats, int, int8s, ints, long, longs, model, node, run_model, tensor,
};
use crate::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};

/// Returns a model of `0 + c`. `nodes` compute the constant `c`, which has the shape `shape`.
fn constant_model(
    opset: i64,
    shape: &[i64],
    mut nodes: Vec<NodeProto>,
    stored: Vec<TensorProto>,
) -> ModelProto {
    nodes.push(node("Add", &["x", "c"], "y", &[]));
    model(opset, &[&[1], shape].concat(), nodes, stored)
}

#[track_caller]
fn check_constant(network: &ModelProto, c: &[f32]) {
    let found = run_model(network, &vec![0.0; c.len()]);
    assert_eq!(found, c);
}

fn dequantised(
    x: TensorProto,
    scale: TensorProto,
    zero: Option<TensorProto>,
    attributes: &[AttributeProto],
) -> ModelProto {
    let shape = x.dims.clone();
    let inputs: Vec<&str> = ["q", "s"].into_iter().chain(zero.is_some().then_some("z")).collect();
    let nodes = vec![node("DequantizeLinear", &inputs, "c", attributes)];
    constant_model(21, &shape, nodes, [x, scale].into_iter().chain(zero).collect())
}

#[test]
fn dequantised_weights_have_a_scale_for_all_for_each_index_or_for_each_block() {
    let q = |dims: &[i64], values: &[i32]| int8s("q", dims, values);
    let all = q(&[4], &[-1, 0, 1, 2]);
    let half = floats("s", &[], &[0.5]);
    check_constant(&dequantised(all.clone(), half.clone(), None, &[]), &[-0.5, 0.0, 0.5, 1.0]);
    let zero = Some(int8s("z", &[], &[1]));
    check_constant(&dequantised(all, half, zero, &[]), &[-1.0, -0.5, 0.0, 0.5]);

    let grid = q(&[2, 2], &[1, 2, 3, 4]);
    let (scale, zero) = (floats("s", &[2], &[1.0, 10.0]), int8s("z", &[2], &[0, 1]));
    let rows = [int("axis", 0)];
    let by_row = dequantised(grid.clone(), scale.clone(), Some(zero.clone()), &rows);
    check_constant(&by_row, &[1.0, 2.0, 20.0, 30.0]);
    let by_column = dequantised(grid, scale, Some(zero), &[]);
    check_constant(&by_column, &[1.0, 10.0, 3.0, 30.0]);

    let blocks = [int("axis", 1), int("block_size", 2)];
    let long = q(&[2, 4], &[1, 2, 3, 4, 5, 6, 7, 8]);
    let scale = floats("s", &[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
    let zero = Some(int8s("z", &[2, 2], &[0, 3, 0, 0]));
    let by_block = dequantised(long, scale, zero, &blocks);
    check_constant(&by_block, &[1.0, 2.0, 0.0, 10.0, 500.0, 600.0, 7000.0, 8000.0]);
    let last_is_short = q(&[1, 3], &[1, 2, 3]);
    let scale = floats("s", &[1, 2], &[1.0, 10.0]);
    check_constant(&dequantised(last_is_short, scale, None, &blocks), &[1.0, 2.0, 30.0]);

    let upright = [int("axis", 0), int("block_size", 2)];
    let scale = floats("s", &[1, 2], &[1.0, 10.0]);
    let by_block = dequantised(q(&[2, 2], &[1, 2, 3, 4]), scale, None, &upright);
    check_constant(&by_block, &[1.0, 20.0, 3.0, 40.0]);
}

#[test]
fn a_dequantised_weight_convolves() {
    let nodes =
        vec![node("DequantizeLinear", &["q", "s"], "w", &[]), node("Conv", &["x", "w"], "y", &[])];
    let stored = vec![int8s("q", &[1, 1, 1, 2], &[2, 20]), floats("s", &[], &[0.5])];
    let network = model(21, &[1, 1, 1, 3], nodes, stored);
    check(&network, &count_to(3), &[1, 1, 2], &[21.0, 32.0]);
}

#[test]
fn constants_are_written_in_five_ways() {
    let pair = [3.0, 4.0];
    let written = [tensor("value", floats("", &[2], &pair)), float_list("value_floats", &pair)];
    for attribute in written {
        let nodes = vec![node("Constant", &[], "c", &[attribute])];
        check_constant(&constant_model(13, &[2], nodes, Vec::new()), &pair);
    }
    let nodes = vec![node("Constant", &[], "c", &[float("value_float", 2.5)])];
    check_constant(&constant_model(13, &[1], nodes, Vec::new()), &[2.5]);
    for attribute in [ints("value_ints", &[3]), int("value_int", 3)] {
        let nodes = vec![
            node("Constant", &[], "whole", &[attribute]),
            node("Cast", &["whole"], "c", &[int("to", 1)]),
        ];
        check_constant(&constant_model(13, &[1], nodes, Vec::new()), &[3.0]);
    }
}

#[test]
fn a_shape_can_be_split_and_reassembled() {
    // Exporters write x.view(x.size(0), -1) like this: Shape, Gather, Unsqueeze, Concat, Reshape.
    let nodes = vec![
        node("Shape", &["x"], "shape", &[]),
        node("Gather", &["shape", "zero"], "batch", &[int("axis", 0)]),
        node("Unsqueeze", &["batch", "axes"], "first", &[]),
        node("Concat", &["first", "rest"], "target", &[int("axis", 0)]),
        node("Reshape", &["x", "target"], "y", &[]),
    ];
    let stored = vec![long("zero", 0), longs("axes", &[0]), longs("rest", &[-1])];
    let x = count_to(6);
    check(&model(13, &[1, 2, 3], nodes, stored), &x, &[6], &x);

    let part = [int("start", -1), int("end", 9)];
    let nodes = vec![
        node("Shape", &["x"], "last", &part),
        node("Cast", &["last"], "c", &[int("to", 1)]),
        node("Add", &["x", "c"], "y", &[]),
    ];
    check(&model(15, &[1, 2], nodes, Vec::new()), &[0.0, 0.0], &[2], &[2.0, 2.0]);
}

#[test]
fn arithmetic_of_constants_is_done_at_import() {
    let (a, b) = ([7.0, 2.0], [2.0, 4.0]);
    let cases =
        [("Add", [9.0, 6.0]), ("Sub", [5.0, -2.0]), ("Mul", [14.0, 8.0]), ("Div", [3.5, 0.5])];
    for (op, c) in cases {
        let nodes = vec![node(op, &["a", "b"], "c", &[])];
        check_constant(
            &constant_model(13, &[2], nodes, vec![floats("a", &[2], &a), floats("b", &[2], &b)]),
            &c,
        );
    }
    for (op, c) in [("Floor", [2.0, -3.0]), ("Ceil", [3.0, -2.0]), ("Identity", [2.25, -2.25])] {
        let nodes = vec![node(op, &["a"], "c", &[])];
        check_constant(
            &constant_model(13, &[2], nodes, vec![floats("a", &[2], &[2.25, -2.25])]),
            &c,
        );
    }
    let nodes = vec![node("Sqrt", &["a"], "c", &[])];
    check_constant(
        &constant_model(13, &[2], nodes, vec![floats("a", &[2], &[4.0, 9.0])]),
        &[2.0, 3.0],
    );
    let nodes =
        vec![node("Div", &["a", "b"], "q", &[]), node("Cast", &["q"], "c", &[int("to", 1)])];
    check_constant(
        &constant_model(13, &[1], nodes, vec![longs("a", &[7]), longs("b", &[2])]),
        &[3.0],
    );
}

#[test]
fn constants_are_sliced_transposed_and_concatenated_at_import() {
    let grid = || floats("a", &[2, 3], &count_to(6));
    let index = || longs("i", &[2, 0]);
    // The node, the constants that it reads beside `a`, and shape and elements of its result.
    type Case = (NodeProto, Vec<TensorProto>, Vec<i64>, Vec<f32>);
    let cases: Vec<Case> = vec![
        (
            node("Transpose", &["a"], "c", &[]),
            vec![],
            vec![3, 2],
            vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0],
        ),
        (
            node("Gather", &["a", "i"], "c", &[int("axis", 1)]),
            vec![index()],
            vec![2, 2],
            vec![3.0, 1.0, 6.0, 4.0],
        ),
        (
            node("Slice", &["a", "s", "e", "i", "t"], "c", &[]),
            vec![longs("s", &[-1]), longs("e", &[i64::MIN]), longs("i", &[1]), longs("t", &[-2])],
            vec![2, 2],
            vec![3.0, 1.0, 6.0, 4.0],
        ),
        (
            node("Concat", &["a", "a"], "c", &[int("axis", 1)]),
            vec![],
            vec![2, 6],
            vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0],
        ),
        (
            node("Reshape", &["a", "r"], "c", &[]),
            vec![longs("r", &[3, -1])],
            vec![3, 2],
            count_to(6),
        ),
        (
            node("Unsqueeze", &["a", "r"], "c", &[]),
            vec![longs("r", &[1])],
            vec![2, 1, 3],
            count_to(6),
        ),
    ];
    for (computed, mut stored, shape, c) in cases {
        stored.push(grid());
        check_constant(&constant_model(13, &shape, vec![computed], stored), &c);
    }
    let nodes = vec![node("Squeeze", &["a", "r"], "c", &[])];
    let stored = vec![floats("a", &[1, 2], &[1.0, 2.0]), longs("r", &[0])];
    check_constant(&constant_model(13, &[2], nodes, stored), &[1.0, 2.0]);
}

#[test]
fn a_constant_of_a_shape_repeats_its_value() {
    let seven = tensor("value", floats("", &[1], &[7.0]));
    for (attributes, value) in [(vec![seven], 7.0), (vec![], 0.0)] {
        let nodes = vec![node("ConstantOfShape", &["s"], "c", &attributes)];
        check_constant(&constant_model(13, &[2, 2], nodes, vec![longs("s", &[2, 2])]), &[value; 4]);
    }
}

#[test]
fn unread_weights_and_stale_inputs_do_no_harm() {
    let mut network = op_model(("Add", 13), &[1, 2], vec![floats("c", &[2], &[1.0, 2.0])], &[]);
    let graph = network.graph.as_mut().unwrap();
    graph.input.push(crate::fixtures::input_info("c", &[2]));
    graph.input.push(crate::fixtures::input_info("weight_before_quantising", &[2]));
    graph.initializer.push(floats("unread", &[1], &[0.0]));
    check(&network, &[0.0, 0.0], &[2], &[1.0, 2.0]);
}
