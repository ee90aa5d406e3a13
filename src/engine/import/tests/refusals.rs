//! Refused nodes. The message names the node and the reason.

use super::op_model;
use crate::fixtures::{
    float, floats, int, int8s, ints, long, longs, model, node, refusal, string, tensor,
};
use crate::onnx::{AttributeProto, NodeProto, TensorProto};

/// Checks that the node `y` of an operator is refused for `reason`.
#[track_caller]
pub(super) fn assert_refused(
    op: (&str, i64),
    input: &[i64],
    constants: Vec<TensorProto>,
    attributes: &[AttributeProto],
    reason: &str,
) {
    let message = refusal(&op_model(op, input, constants, attributes));
    assert_eq!(message, format!("node 'y' ({}): {reason}", op.0));
}

pub(super) const IMAGE: &[i64] = &[1, 2, 4, 4];

#[test]
fn unknown_operators_and_foreign_domains_are_refused() {
    assert_refused(("LSTM", 13), &[1, 2], vec![], &[], "the operator is not supported");
    let foreign =
        NodeProto { domain: "com.microsoft".to_owned(), ..node("Gelu", &["x"], "y", &[]) };
    let message = refusal(&model(13, &[1, 2], vec![foreign], vec![]));
    let reason = "operators of the domain 'com.microsoft' are not supported";
    assert_eq!(message, format!("node 'y' (Gelu): {reason}"));
    let nameless = NodeProto { name: String::new(), ..node("LSTM", &["x"], "y", &[]) };
    let message = refusal(&model(13, &[1, 2], vec![nameless], vec![]));
    assert!(message.starts_with("node 'y' (LSTM)"), "{message}");
}

#[test]
fn attributes_of_another_type_or_of_a_function_are_refused() {
    let wrong = [string("axis", "1")];
    assert_refused(("Softmax", 13), &[1, 2], vec![], &wrong, "attribute 'axis' has the wrong type");
    let reference = AttributeProto { ref_attr_name: "outer".to_owned(), ..int("axis", 1) };
    assert_refused(
        ("Softmax", 13),
        &[1, 2],
        vec![],
        &[reference],
        "attribute 'axis' has the wrong type",
    );
    let twice = [int("axis", 1), int("axis", 0)];
    assert_refused(("Softmax", 13), &[1, 2], vec![], &twice, "attribute 'axis' is unknown");
    let not_text = AttributeProto { s: vec![0xff], ..string("auto_pad", "") };
    let weight = || vec![floats("w", &[1, 2, 1, 1], &[1.0, 1.0])];
    assert_refused(
        ("Conv", 13),
        IMAGE,
        weight(),
        &[not_text],
        "attribute 'auto_pad' has the wrong type",
    );
}

#[test]
fn operations_that_would_mix_items_are_refused() {
    let mixes = "axis 0 is the batch: the operation would mix items";
    let x = &[1, 2];
    assert_refused(("Softmax", 13), x, vec![], &[int("axis", 0)], mixes);
    assert_refused(("Softmax", 11), x, vec![], &[int("axis", 0)], mixes);
    assert_refused(("ReduceMean", 13), x, vec![], &[], mixes);
    assert_refused(("ReduceMax", 13), x, vec![], &[ints("axes", &[-2])], mixes);
    assert_refused(("Concat", 13), x, vec![], &[int("axis", 0)], mixes);
    assert_refused(("Expand", 13), x, vec![longs("s", &[3, 2])], &[], mixes);
    assert_refused(("Pad", 13), x, vec![longs("p", &[1, 0, 0, 0])], &[], mixes);
    assert_refused(("Gather", 13), x, vec![long("i", 0)], &[], mixes);
    let nothing = vec![longs("s", &[1]), longs("e", &[1])];
    assert_refused(("Slice", 13), x, nothing, &[], mixes);
    let nodes = vec![node("Transpose", &["x"], "t", &[]), node("MatMul", &["t", "b"], "y", &[])];
    let message = refusal(&model(13, x, nodes, vec![floats("b", &[1, 1], &[2.0])]));
    let reason = "axis 1 is the batch: the operation would mix items";
    assert_eq!(message, format!("node 'y' (MatMul): {reason}"));
    let nodes = vec![
        node("Transpose", &["x"], "t", &[]),
        node("BatchNormalization", &["t", "v", "v", "v", "v"], "y", &[]),
    ];
    let message = refusal(&model(13, x, nodes, vec![floats("v", &[1], &[1.0])]));
    let reason = "input 0 has the unsupported shape [2, 1]";
    assert_eq!(message, format!("node 'y' (BatchNormalization): {reason}"));
}

#[test]
fn shapes_of_constants_that_do_not_fit_are_refused() {
    let x = &[1, 2];
    let three = || floats("c", &[3], &[1.0; 3]);
    assert_refused(("Add", 13), x, vec![three()], &[], "input 1 has the unsupported shape [3]");
    assert_refused(("PRelu", 13), x, vec![three()], &[], "input 1 has the unsupported shape [3]");
    let enlarging = vec![floats("c", &[3, 1], &[1.0; 3])];
    assert_refused(("Mul", 13), x, enlarging, &[], "input 1 has the unsupported shape [3, 1]");
    let per_channel = ["s", "b", "m", "v"].map(|name| floats(name, &[3], &[1.0; 3]));
    let reason = "input 1 has the unsupported shape [3]";
    assert_refused(("BatchNormalization", 13), x, per_channel.to_vec(), &[], reason);
    let matrix = || floats("b", &[3, 1], &[1.0; 3]);
    assert_refused(
        ("MatMul", 13),
        x,
        vec![matrix()],
        &[],
        "input 1 has the unsupported shape [1, 3]",
    );
    assert_refused(("MatMul", 13), x, vec![three()], &[], "input 1 has the unsupported shape [3]");
    let reason = "input 0 has the unsupported shape [1, 2, 4, 4]";
    assert_refused(("Gemm", 13), IMAGE, vec![matrix()], &[], reason);
    let fitting = floats("b", &[2, 1], &[1.0; 2]);
    let reason = "input 2 has the unsupported shape [3]";
    assert_refused(("Gemm", 13), x, vec![fitting.clone(), three()], &[], reason);
    let transposed = [int("transA", 1)];
    let reason = "attribute 'transA' has the unsupported value 1";
    assert_refused(("Gemm", 13), x, vec![fitting], &transposed, reason);
}

#[test]
fn shapes_and_axes_that_do_not_fit_are_refused() {
    let x = &[1, 2];
    let target = || vec![longs("s", &[1, 3])];
    assert_refused(("Reshape", 13), x, target(), &[], "input 1 has the unsupported value [1, 3]");
    assert_refused(("Expand", 13), x, target(), &[], "input 1 has the unsupported value [1, 3]");
    let axis = vec![longs("a", &[1])];
    assert_refused(("Squeeze", 13), x, axis, &[], "input 0 has the unsupported shape [1, 2]");
    let twice = vec![longs("a", &[0, 0])];
    let reason = "attribute 'axes' has the unsupported value [0, 0]";
    assert_refused(("Unsqueeze", 13), x, twice, &[], reason);
    assert_refused(("Unsqueeze", 13), x, vec![], &[], "attribute 'axes' is missing");
    let perm = [ints("perm", &[0, 0])];
    assert_refused(
        ("Transpose", 13),
        x,
        vec![],
        &perm,
        "attribute 'perm' has the unsupported value [0, 0]",
    );
    assert_refused(
        ("Flatten", 13),
        x,
        vec![],
        &[int("axis", 3)],
        "axis 3 is outside a value of 2 axes",
    );
    assert_refused(
        ("Softmax", 13),
        x,
        vec![],
        &[int("axis", -3)],
        "axis -3 is outside a value of 2 axes",
    );
    let index = vec![longs("i", &[0])];
    let axis = [int("axis", 1)];
    assert_refused(("Gather", 13), x, index, &axis, "input 1 has the unsupported shape [1]");
    let beyond = "axis 2 is outside a value of 2 axes";
    assert_refused(("Gather", 13), x, vec![long("i", 2)], &axis, beyond);
    let nodes = vec![
        node("Neg", &["x"], "n", &[]),
        node("Flatten", &["n"], "f", &[int("axis", 0)]),
        node("Unsqueeze", &["f", "a"], "u", &[]),
        node("Concat", &["x", "u"], "y", &[int("axis", 1)]),
    ];
    let message = refusal(&model(13, x, nodes, vec![longs("a", &[0])]));
    let reason = "input 1 has the unsupported shape [1, 1, 2]";
    assert_eq!(message, format!("node 'y' (Concat): {reason}"));
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let x = &[1, 2];
    let cube = vec![floats("p", &[], &[3.0])];
    assert_refused(("Pow", 13), x, cube, &[], "input 1 has the unsupported value 3");
    let nan = vec![floats("min", &[], &[f32::NAN])];
    assert_refused(("Clip", 13), x, nan, &[], "input 1 has the unsupported value NaN");
    let min = [float("min", 0.0)];
    assert_refused(("Clip", 11), x, vec![], &min, "attribute 'min' is unknown");
    assert_refused(
        ("Cast", 13),
        x,
        vec![],
        &[int("to", 7)],
        "attribute 'to' has the unsupported value 7",
    );
    assert_refused(("Cast", 13), x, vec![], &[], "attribute 'to' is missing");
    let training = [int("training_mode", 1)];
    let vectors = ["s", "b", "m", "v"].map(|name| floats(name, &[2], &[1.0; 2]));
    let reason = "attribute 'training_mode' has the unsupported value 1";
    assert_refused(("BatchNormalization", 15), x, vectors.to_vec(), &training, reason);
    let reflect = [string("mode", "reflect")];
    let pads = || vec![longs("p", &[0, 1, 0, 1])];
    let reason = "attribute 'mode' has the unsupported value \"reflect\"";
    assert_refused(("Pad", 13), x, pads(), &reflect, reason);
    let negative = vec![longs("p", &[0, -1, 0, 0])];
    assert_refused(
        ("Pad", 13),
        x,
        negative,
        &[],
        "input 1 has the unsupported value [0, -1, 0, 0]",
    );
    let short = vec![longs("p", &[1, 1])];
    assert_refused(("Pad", 13), x, short, &[], "input 1 has the unsupported value [1, 1]");
    let cut = |starts: &[i64], ends: &[i64], steps: &[i64], reason: &str| {
        let inputs = [("s", starts), ("e", ends), ("a", &[1]), ("t", steps)];
        let inputs = inputs.map(|(name, values)| longs(name, values));
        assert_refused(("Slice", 13), x, inputs.to_vec(), &[], reason);
    };
    cut(&[1], &[0], &[-1], "input 4 has the unsupported value -1");
    cut(&[0], &[1], &[0], "input 4 has the unsupported value [0]");
    cut(&[0, 0], &[1], &[1], "input 1 has the unsupported value [0, 0]");
    cut(&[1], &[1], &[1], "the result of shape [1, 0] is empty or has too many elements");
    assert_refused(("Slice", 9), x, vec![], &[], "attribute 'starts' is missing");
    let noop = [int("noop_with_empty_axes", 1)];
    let reason = "attribute 'noop_with_empty_axes' has the unsupported value 1";
    assert_refused(("ReduceSum", 13), x, vec![], &noop, reason);
    let sizes = [int("axis", 1), ints("split", &[3])];
    assert_refused(("Split", 11), x, vec![], &sizes, "input 1 has the unsupported value [3]");
    let outputs = [int("axis", 1), int("num_outputs", 2)];
    let reason = "attribute 'num_outputs' has the unsupported value 2";
    assert_refused(("Split", 18), x, vec![], &outputs, reason);
    let yes = TensorProto { data_type: 9, int32_data: vec![1], ..longs("t", &[1]) };
    let training = vec![floats("r", &[], &[0.5]), TensorProto { int64_data: vec![], ..yes }];
    assert_refused(("Dropout", 13), x, training, &[], "input 2 has the unsupported value true");
}

#[test]
fn constants_that_cannot_be_computed_are_refused() {
    let constant = |computed: NodeProto, stored: Vec<TensorProto>, reason: &str| {
        let op = computed.op_type.clone();
        let nodes = vec![computed, node("Add", &["x", "c"], "y", &[])];
        let message = refusal(&model(21, &[1, 2], nodes, stored));
        assert_eq!(message, format!("node 'c' ({op}): {reason}"));
    };
    let (seven, zero) = (longs("a", &[7]), longs("b", &[0]));
    let division = || node("Div", &["a", "b"], "c", &[]);
    constant(division(), vec![seven.clone(), zero], "integer arithmetic fails");
    let float_zero = floats("b", &[1], &[0.0]);
    constant(division(), vec![seven, float_zero], "input 1 must hold the type of input 0");
    let huge = vec![longs("a", &[1 << 40])];
    let reason = "constants have more than 268435456 elements";
    constant(node("ConstantOfShape", &["a"], "c", &[]), huge, reason);
    let negative = vec![longs("a", &[-1])];
    let reason = "input 0 has the unsupported value [-1]";
    constant(node("ConstantOfShape", &["a"], "c", &[]), negative, reason);
    let pair = tensor("value", floats("", &[2], &[1.0, 2.0]));
    let reason = "attribute 'value' has the unsupported value [2]";
    constant(node("ConstantOfShape", &["a"], "c", &[pair]), vec![longs("a", &[2])], reason);
    constant(node("Constant", &[], "c", &[]), vec![], "attribute 'value' is missing");
    let text = [string("value_string", "a")];
    constant(node("Constant", &[], "c", &text), vec![], "attribute 'value_string' is unknown");
    let number = || floats("a", &[1], &[1.0]);
    let to = [int("to", 10)];
    let reason = "attribute 'to' has the unsupported value 10";
    constant(node("Cast", &["a"], "c", &to), vec![number()], reason);

    let q = || int8s("q", &[1, 4], &[1, 2, 3, 4]);
    let dequantise = |scale: TensorProto, attributes: &[AttributeProto], reason: &str| {
        let computed = node("DequantizeLinear", &["q", "s"], "c", attributes);
        constant(computed, vec![q(), scale], reason);
    };
    let scale = |shape: &[i64], values: &[f32]| floats("s", shape, values);
    let three = || scale(&[3], &[1.0; 3]);
    dequantise(three(), &[], "input 1 has the unsupported shape [3]");
    let block = |size| [int("axis", 1), int("block_size", size)];
    dequantise(three(), &block(2), "input 1 has the unsupported shape [3]");
    let reason = "attribute 'block_size' has the unsupported value -1";
    dequantise(three(), &block(-1), reason);
    dequantise(three(), &[int("axis", 2)], "axis 2 is outside a value of 2 axes");
    let reason = "attribute 'output_dtype' has the unsupported value 10";
    dequantise(three(), &[int("output_dtype", 10)], reason);
    dequantise(longs("s", &[1]), &[], "input 1 must hold floats");
    let zeros = vec![q(), scale(&[], &[1.0]), int8s("z", &[2], &[0, 0])];
    let with_zeros = node("DequantizeLinear", &["q", "s", "z"], "c", &[]);
    constant(with_zeros, zeros, "input 2 has the unsupported shape [2]");
    let of_input = vec![node("DequantizeLinear", &["x", "s"], "y", &[])];
    let message = refusal(&model(21, &[1, 2], of_input, vec![scale(&[], &[1.0])]));
    assert_eq!(message, "node 'y' (DequantizeLinear): input 0 must be a constant");
}
