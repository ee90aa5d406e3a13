//! Reshapes, transposes, slices, concatenations and borders.

use super::{check, count_to, omitted_input, op_model};
use crate::fixtures::{assert_close, float, floats, graph_of, int, ints, long, longs};
use crate::fixtures::{model, node, run, string};
use crate::onnx::NodeProto;

#[test]
fn reshaping_keeps_the_elements_in_order() {
    let x = count_to(6);
    let cases: [(&[i64], &[usize]); 4] =
        [(&[1, 6], &[6]), (&[0, -1], &[6]), (&[1, 3, -1], &[3, 2]), (&[-1, 2], &[3, 2])];
    for (target, shape) in cases {
        let network = op_model(("Reshape", 13), &[1, 2, 3], vec![longs("shape", target)], &[]);
        check(&network, &x, shape, &x);
    }
    let literal = [int("allowzero", 1)];
    let network = op_model(("Reshape", 14), &[1, 2, 3], vec![longs("shape", &[1, 6])], &literal);
    check(&network, &x, &[6], &x);
}

#[test]
fn flattening_joins_axes_on_both_sides() {
    let x = count_to(6);
    check(&op_model(("Flatten", 13), &[1, 2, 3], Vec::new(), &[]), &x, &[6], &x);
    for (axis, shape) in [(0, vec![6]), (2, vec![2, 3]), (-1, vec![2, 3]), (3, vec![6, 1])] {
        let network = op_model(("Flatten", 13), &[1, 2, 3], Vec::new(), &[int("axis", axis)]);
        check(&network, &x, &shape, &x);
    }
}

#[test]
fn squeeze_removes_and_unsqueeze_adds_axes_of_size_one() {
    let x = [1.0, 2.0];
    let older = op_model(("Squeeze", 11), &[1, 1, 2, 1], Vec::new(), &[ints("axes", &[1, -1])]);
    check(&older, &x, &[2], &x);
    let newer = op_model(("Squeeze", 13), &[1, 1, 2, 1], vec![longs("axes", &[3])], &[]);
    check(&newer, &x, &[1, 2], &x);
    let all = op_model(("Squeeze", 13), &[1, 1, 2, 1], Vec::new(), &[]);
    check(&all, &x, &[2], &x);

    let older = op_model(("Unsqueeze", 11), &[1, 2], Vec::new(), &[ints("axes", &[1, -1])]);
    check(&older, &x, &[1, 2, 1], &x);
    let newer = op_model(("Unsqueeze", 13), &[1, 2], vec![longs("axes", &[0])], &[]);
    check(&newer, &x, &[1, 2], &x);
}

#[test]
fn transposing_moves_the_axes_wherever_the_batch_goes() {
    let x = count_to(6);
    let y = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
    for perm in [[0, 2, 1], [2, 0, 1], [2, 1, 0]] {
        let network = op_model(("Transpose", 13), &[1, 2, 3], Vec::new(), &[ints("perm", &perm)]);
        check(&network, &x, &[3, 2], &y);
    }
    let reversed = op_model(("Transpose", 13), &[1, 2, 3], Vec::new(), &[]);
    check(&reversed, &x, &[3, 2], &y);
    let batch_only =
        op_model(("Transpose", 13), &[1, 2, 3], Vec::new(), &[ints("perm", &[1, 0, 2])]);
    check(&batch_only, &x, &[2, 3], &x);
}

#[test]
fn items_stay_apart_when_the_batch_is_not_the_first_axis() {
    let nodes = vec![
        node("Transpose", &["x"], "t", &[ints("perm", &[2, 0, 1])]),
        node("Softmax", &["t"], "y", &[int("axis", 0)]),
    ];
    let graph = graph_of(&model(13, &[1, 1, 2], nodes, Vec::new()));
    let x = [1_f32, 3.0, 1.0, 1.0].map(f32::ln);
    assert_close(&run(&graph, 2, &x)[0], &[0.25, 0.75, 0.5, 0.5], 1e-6);
}

#[test]
fn concatenating_puts_values_behind_each_other() {
    let join = |axis| {
        let nodes = vec![
            node("Neg", &["x"], "n", &[]),
            node("Concat", &["x", "n"], "y", &[int("axis", axis)]),
        ];
        model(13, &[1, 2, 2], nodes, Vec::new())
    };
    let x = count_to(4);
    let behind = [1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0];
    check(&join(1), &x, &[4, 2], &behind);
    let beside = [1.0, 2.0, -1.0, -2.0, 3.0, 4.0, -3.0, -4.0];
    check(&join(-1), &x, &[2, 4], &beside);
    let alone = op_model(("Concat", 13), &[1, 2, 2], Vec::new(), &[int("axis", 1)]);
    check(&alone, &x, &[2, 2], &x);
}

#[test]
fn slices_take_parts_by_attributes_or_from_opset_10_by_inputs() {
    let x = count_to(8);
    let older = [ints("starts", &[1]), ints("ends", &[3]), ints("axes", &[2])];
    let older = op_model(("Slice", 9), &[1, 2, 4], Vec::new(), &older);
    check(&older, &x, &[2, 2], &[2.0, 3.0, 6.0, 7.0]);

    let newer = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let inputs = [("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)];
        let inputs = inputs.map(|(name, values)| longs(name, values));
        op_model(("Slice", 13), &[1, 2, 4], inputs.to_vec(), &[])
    };
    let odd = newer(&[0], &[i64::MAX], &[-1], &[2]);
    check(&odd, &x, &[2, 2], &[1.0, 3.0, 5.0, 7.0]);
    let corner = newer(&[1, -2], &[2, -1], &[1, 2], &[1, 1]);
    check(&corner, &x, &[1, 1], &[7.0]);
    let whole = newer(&[0], &[9], &[0], &[1]);
    check(&whole, &x, &[2, 4], &x);

    let by_order = vec![longs("starts", &[0, 1]), longs("ends", &[1, 2])];
    let by_order = op_model(("Slice", 13), &[1, 2, 4], by_order, &[]);
    check(&by_order, &x, &[1, 4], &[5.0, 6.0, 7.0, 8.0]);
    let steps =
        vec![longs("starts", &[0]), longs("ends", &[1]), omitted_input(), longs("steps", &[1])];
    check(&op_model(("Slice", 13), &[1, 2, 4], steps, &[]), &x, &[2, 4], &x);
}

#[test]
fn splitting_gives_pieces_in_order() {
    let split = |opset, inputs: &[&str], attributes: &[_]| {
        let node = NodeProto {
            output: ["y", "z"].map(str::to_owned).to_vec(),
            ..node("Split", inputs, "y", attributes)
        };
        let mut split = model(opset, &[1, 4], vec![node], vec![longs("sizes", &[3, 1])]);
        let graph = split.graph.as_mut().unwrap();
        graph.output.push(crate::fixtures::input_info("z", &[]));
        run(&graph_of(&split), 1, &count_to(4))
    };
    let axis = int("axis", 1);
    let equal = [vec![1.0, 2.0], vec![3.0, 4.0]];
    assert_eq!(split(11, &["x"], std::slice::from_ref(&axis)), equal);
    assert_eq!(split(18, &["x"], &[axis.clone(), int("num_outputs", 2)]), equal);
    let uneven = [vec![1.0, 2.0, 3.0], vec![4.0]];
    assert_eq!(split(11, &["x"], &[axis.clone(), ints("split", &[3, 1])]), uneven);
    assert_eq!(split(13, &["x", "sizes"], &[axis]), uneven);
}

#[test]
fn gathering_one_index_removes_its_axis() {
    let x = count_to(6);
    for (axis, index, shape, y) in [
        (1, 1, vec![3], vec![4.0, 5.0, 6.0]),
        (2, 0, vec![2], vec![1.0, 4.0]),
        (-1, -1, vec![2], vec![3.0, 6.0]),
    ] {
        let index = vec![long("index", index)];
        let network = op_model(("Gather", 13), &[1, 2, 3], index, &[int("axis", axis)]);
        check(&network, &x, &shape, &y);
    }
}

#[test]
fn padding_adds_a_border_by_attribute_or_from_opset_11_by_input() {
    let x = [1.0, 2.0];
    let attributes = [ints("pads", &[0, 1, 0, 2]), float("value", 9.0)];
    let older = op_model(("Pad", 10), &[1, 2], Vec::new(), &attributes);
    check(&older, &x, &[5], &[9.0, 1.0, 2.0, 9.0, 9.0]);
    let pads = longs("pads", &[0, 1, 0, 2]);
    let zeros = op_model(("Pad", 11), &[1, 2], vec![pads.clone()], &[string("mode", "constant")]);
    check(&zeros, &x, &[5], &[0.0, 1.0, 2.0, 0.0, 0.0]);
    let filled = vec![pads, floats("value", &[], &[9.0])];
    check(&op_model(("Pad", 13), &[1, 2], filled, &[]), &x, &[5], &[9.0, 1.0, 2.0, 9.0, 9.0]);
    let named = vec![longs("pads", &[1, 0]), omitted_input(), longs("axes", &[-1])];
    check(&op_model(("Pad", 18), &[1, 2], named, &[]), &x, &[3], &[0.0, 1.0, 2.0]);
    let nothing = vec![longs("pads", &[0, 0, 0, 0])];
    check(&op_model(("Pad", 13), &[1, 2], nothing, &[]), &x, &[2], &x);
}

#[test]
fn expanding_repeats_along_axes_of_size_one() {
    let expand =
        |target: &[i64]| op_model(("Expand", 13), &[1, 2, 1], vec![longs("shape", target)], &[]);
    let x = [1.0, 2.0];
    check(&expand(&[1, 2, 3]), &x, &[2, 3], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    check(&expand(&[1, 1, 2]), &x, &[2, 2], &[1.0, 1.0, 2.0, 2.0]);
    check(&expand(&[3]), &x, &[2, 3], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    check(&expand(&[1, 2, 1]), &x, &[2, 1], &x);
}
