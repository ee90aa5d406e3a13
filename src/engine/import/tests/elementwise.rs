//! Activations, arithmetic and batch normalisation.

use super::{check, count_to, omitted_input, op_model};
use crate::fixtures::{float, floats, int, model, node};
use crate::onnx::AttributeProto;

#[test]
fn functions_of_one_element() {
    let third = 1.0_f32 / 3.0;
    let e = std::f32::consts::E;
    type Case = (&'static str, Vec<AttributeProto>, [f32; 4], [f32; 4]);
    let cases: [Case; 14] = [
        ("Relu", vec![], [-2.0, 0.0, 0.5, 4.0], [0.0, 0.0, 0.5, 4.0]),
        ("Neg", vec![], [-2.0, 0.0, 0.5, 4.0], [2.0, 0.0, -0.5, -4.0]),
        ("Abs", vec![], [-2.0, 0.0, 0.5, 4.0], [2.0, 0.0, 0.5, 4.0]),
        ("Sqrt", vec![], [0.0, 1.0, 4.0, 0.25], [0.0, 1.0, 2.0, 0.5]),
        ("Exp", vec![], [0.0, 1.0, -1.0, 2.0], [1.0, e, 1.0 / e, e * e]),
        ("Tanh", vec![], [0.0, 1.0, -1.0, 99.0], [0.0, 0.761_594_2, -0.761_594_2, 1.0]),
        ("Sigmoid", vec![], [0.0, 3_f32.ln(), -99.0, 99.0], [0.5, 0.75, 0.0, 1.0]),
        ("LeakyRelu", vec![], [-2.0, 0.0, 0.5, 4.0], [-0.02, 0.0, 0.5, 4.0]),
        ("LeakyRelu", vec![float("alpha", 0.5)], [-2.0, 0.0, 0.5, 4.0], [-1.0, 0.0, 0.5, 4.0]),
        ("HardSigmoid", vec![], [-9.0, 0.0, 1.0, 9.0], [0.0, 0.5, 0.7, 1.0]),
        (
            "HardSigmoid",
            vec![float("alpha", 0.5), float("beta", 0.25)],
            [-9.0, 0.0, 1.0, 9.0],
            [0.0, 0.25, 0.75, 1.0],
        ),
        // As PyTorch exports it.
        (
            "HardSigmoid",
            vec![float("alpha", 0.5 * third)],
            [-9.0, 0.0, 1.0, 9.0],
            [0.0, 0.5, 2.0 * third, 1.0],
        ),
        ("HardSwish", vec![], [-4.0, 0.0, 1.0, 4.0], [0.0, 0.0, 2.0 * third, 4.0]),
        ("Identity", vec![], [-2.0, 0.0, 0.5, 4.0], [-2.0, 0.0, 0.5, 4.0]),
    ];
    for (op, attributes, x, y) in cases {
        check(&op_model((op, 14), &[1, 4], Vec::new(), &attributes), &x, &[4], &y);
    }
}

#[test]
fn limits_of_a_clip_are_attributes_before_opset_11_and_inputs_after() {
    let x = [-2.0, 0.0, 3.0, 9.0];
    let attributes = [float("min", -1.0), float("max", 6.0)];
    let older = op_model(("Clip", 10), &[1, 4], Vec::new(), &attributes);
    check(&older, &x, &[4], &[-1.0, 0.0, 3.0, 6.0]);
    let open = op_model(("Clip", 10), &[1, 4], Vec::new(), &attributes[..1]);
    check(&open, &x, &[4], &[-1.0, 0.0, 3.0, 9.0]);

    let (min, max) = (floats("min", &[], &[-1.0]), floats("max", &[], &[6.0]));
    let newer = op_model(("Clip", 11), &[1, 4], vec![min.clone(), max.clone()], &[]);
    check(&newer, &x, &[4], &[-1.0, 0.0, 3.0, 6.0]);
    let only_max = op_model(("Clip", 13), &[1, 4], vec![omitted_input(), max], &[]);
    check(&only_max, &x, &[4], &[-2.0, 0.0, 3.0, 6.0]);
    let only_min = op_model(("Clip", 13), &[1, 4], vec![min], &[]);
    check(&only_min, &x, &[4], &[-1.0, 0.0, 3.0, 9.0]);
}

#[test]
fn slopes_of_a_prelu_broadcast_along_every_axis() {
    let x = [-2.0, 2.0, -4.0, 4.0];
    let each =
        op_model(("PRelu", 9), &[1, 2, 1, 2], vec![floats("s", &[2, 1, 1], &[0.5, 0.25])], &[]);
    check(&each, &x, &[2, 1, 2], &[-1.0, 2.0, -1.0, 4.0]);
    let all = op_model(("PRelu", 16), &[1, 2, 1, 2], vec![floats("s", &[1], &[0.5])], &[]);
    check(&all, &x, &[2, 1, 2], &[-1.0, 2.0, -2.0, 4.0]);
    let columns =
        op_model(("PRelu", 16), &[1, 2, 1, 2], vec![floats("s", &[2], &[0.5, 0.25])], &[]);
    check(&columns, &[-2.0, -2.0, 4.0, -4.0], &[2, 1, 2], &[-1.0, -0.5, 4.0, -1.0]);
}

#[test]
fn a_batch_normalisation_uses_the_trained_mean_and_variance() {
    let vectors = |variance: [f32; 2]| {
        vec![
            floats("scale", &[2], &[2.0, 3.0]),
            floats("b", &[2], &[0.5, 0.25]),
            floats("mean", &[2], &[1.0, 0.0]),
            floats("var", &[2], &variance),
        ]
    };
    let exact = [float("epsilon", 0.0), float("momentum", 0.9)];
    let image = op_model(("BatchNormalization", 9), &[1, 2, 1, 2], vectors([4.0, 1.0]), &exact);
    check(&image, &count_to(4), &[2, 1, 2], &[0.5, 1.5, 9.25, 12.25]);
    let flat = op_model(("BatchNormalization", 15), &[1, 2], vectors([4.0, 1.0]), &exact);
    check(&flat, &[3.0, 2.0], &[2], &[2.5, 6.25]);
    let guarded = op_model(("BatchNormalization", 9), &[1, 2], vectors([4.0, 0.0]), &[]);
    check(&guarded, &[1.0, 1e-3], &[2], &[0.5, 3e-3 / 1e-5_f32.sqrt() + 0.25]);
}

#[test]
fn arithmetic_with_a_constant_broadcasts_it() {
    let x = count_to(4);
    let c = floats("c", &[2, 1], &[2.0, 4.0]);
    let cases = [
        ("Add", [3.0, 4.0, 7.0, 8.0]),
        ("Sub", [-1.0, 0.0, -1.0, 0.0]),
        ("Mul", [2.0, 4.0, 12.0, 16.0]),
        ("Div", [0.5, 1.0, 0.75, 1.0]),
    ];
    for (op, y) in cases {
        check(&op_model((op, 13), &[1, 2, 2], vec![c.clone()], &[]), &x, &[2, 2], &y);
    }
    for (op, y) in [("Sub", [1.0, 0.0, 1.0, 0.0]), ("Add", [3.0, 4.0, 7.0, 8.0])] {
        let nodes = vec![node(op, &["c", "x"], "y", &[])];
        check(&model(13, &[1, 2, 2], nodes, vec![c.clone()]), &x, &[2, 2], &y);
    }
}

#[test]
fn arithmetic_of_two_values_broadcasts_either() {
    // Each channel with its mean, as in squeeze-and-excitation.
    for (op, y) in [
        ("Add", [2.5, 3.5, 6.5, 7.5]),
        ("Sub", [-0.5, 0.5, -0.5, 0.5]),
        ("Mul", [1.5, 3.0, 10.5, 14.0]),
        ("Div", [1.0 / 1.5, 2.0 / 1.5, 3.0 / 3.5, 4.0 / 3.5]),
    ] {
        let nodes = vec![
            node("GlobalAveragePool", &["x"], "mean", &[]),
            node(op, &["x", "mean"], "y", &[]),
        ];
        check(&model(13, &[1, 2, 1, 2], nodes, Vec::new()), &count_to(4), &[2, 1, 2], &y);
    }
}

#[test]
fn powers_of_one_two_and_a_half() {
    for (power, y) in [(1.0, [4.0, 9.0]), (2.0, [16.0, 81.0]), (0.5, [2.0, 3.0])] {
        let network = op_model(("Pow", 13), &[1, 2], vec![floats("p", &[], &[power])], &[]);
        check(&network, &[4.0, 9.0], &[2], &y);
    }
}

#[test]
fn operators_of_training_do_nothing() {
    let x = [1.5, -2.0];
    let older = op_model(("Dropout", 7), &[1, 2], Vec::new(), &[float("ratio", 0.5)]);
    check(&older, &x, &[2], &x);
    let newer =
        op_model(("Dropout", 13), &[1, 2], vec![floats("r", &[], &[0.5])], &[int("seed", 7)]);
    check(&newer, &x, &[2], &x);
    let cast = op_model(("Cast", 13), &[1, 2], Vec::new(), &[int("to", 1)]);
    check(&cast, &x, &[2], &x);
}
