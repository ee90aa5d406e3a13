//! No operator ignores attributes or inputs that it does not know: it refuses them.

use super::{omitted_input, op_model};
use crate::fixtures::{floats, graph_of, int, ints, long, longs, refusal};
use crate::onnx::{AttributeProto, ModelProto, TensorProto};

/// An operator with its opset, and an input shape, constants and attributes that it accepts.
struct Accepted {
    op: &'static str,
    opset: i64,
    input: &'static [i64],
    constants: Vec<TensorProto>,
    attributes: Vec<AttributeProto>,
}

impl Accepted {
    fn with(&self, attribute: AttributeProto) -> ModelProto {
        let attributes = [self.attributes.clone(), vec![attribute]].concat();
        op_model((self.op, self.opset), self.input, self.constants.clone(), &attributes)
    }
}

fn accepted(
    op: &'static str,
    opset: i64,
    input: &'static [i64],
    constants: Vec<TensorProto>,
    attributes: &[AttributeProto],
) -> Accepted {
    Accepted { op, opset, input, constants, attributes: attributes.to_vec() }
}

/// Returns every operator that reads the input, in a form that can be imported.
fn operators() -> Vec<Accepted> {
    const FLAT: &[i64] = &[1, 2];
    const IMAGE: &[i64] = &[1, 2, 4, 4];
    let vector = |name| floats(name, &[2], &[1.0, 1.0]);
    let scales = || floats("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let kernel = [ints("kernel_shape", &[2, 2])];
    let of_one = ["Neg", "Relu", "Sigmoid", "Tanh", "Exp", "Sqrt", "Abs", "LeakyRelu"];
    let of_two = ["Add", "Sub", "Mul", "Div"];
    let reductions = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"];
    let mut all: Vec<Accepted> = Vec::new();
    all.extend(of_one.map(|op| accepted(op, 14, FLAT, vec![], &[])));
    all.extend(
        ["HardSigmoid", "HardSwish", "Identity"].map(|op| accepted(op, 14, FLAT, vec![], &[])),
    );
    all.extend(of_two.map(|op| accepted(op, 14, FLAT, vec![vector("c")], &[])));
    all.extend(reductions.map(|op| accepted(op, 13, FLAT, vec![], &[ints("axes", &[1])])));
    all.extend([
        accepted("Pow", 13, FLAT, vec![floats("p", &[], &[2.0])], &[]),
        accepted("Clip", 13, FLAT, vec![], &[]),
        accepted("PRelu", 13, FLAT, vec![vector("s")], &[]),
        accepted(
            "BatchNormalization",
            13,
            FLAT,
            ["scale", "b", "mean", "var"].map(vector).to_vec(),
            &[],
        ),
        accepted("Dropout", 13, FLAT, vec![], &[]),
        accepted("Cast", 13, FLAT, vec![], &[int("to", 1)]),
        accepted("Conv", 13, IMAGE, vec![floats("w", &[1, 2, 1, 1], &[1.0, 1.0])], &[]),
        accepted("MaxPool", 13, IMAGE, vec![], &kernel),
        accepted("AveragePool", 13, IMAGE, vec![], &kernel),
        accepted("GlobalAveragePool", 13, IMAGE, vec![], &[]),
        accepted("Resize", 13, IMAGE, vec![omitted_input(), scales()], &[]),
        accepted("Upsample", 9, IMAGE, vec![scales()], &[]),
        accepted("Gemm", 13, FLAT, vec![floats("b", &[2, 1], &[1.0, 1.0])], &[]),
        accepted("MatMul", 13, FLAT, vec![floats("b", &[2, 1], &[1.0, 1.0])], &[]),
        accepted("Softmax", 13, FLAT, vec![], &[]),
        accepted("Reshape", 13, FLAT, vec![longs("s", &[1, 2])], &[]),
        accepted("Flatten", 13, FLAT, vec![], &[]),
        accepted("Squeeze", 13, &[1, 1, 2], vec![longs("a", &[1])], &[]),
        accepted("Unsqueeze", 13, FLAT, vec![longs("a", &[1])], &[]),
        accepted("Transpose", 13, IMAGE, vec![], &[]),
        accepted("Concat", 13, FLAT, vec![], &[int("axis", 1)]),
        accepted(
            "Slice",
            13,
            FLAT,
            vec![longs("s", &[0]), longs("e", &[1]), longs("a", &[1])],
            &[],
        ),
        accepted("Split", 13, FLAT, vec![], &[int("axis", 1)]),
        accepted("Gather", 13, FLAT, vec![long("i", 0)], &[int("axis", 1)]),
        accepted("Expand", 13, FLAT, vec![longs("s", &[1, 2])], &[]),
        accepted("Pad", 13, FLAT, vec![longs("p", &[0, 1, 0, 1])], &[]),
    ]);
    all
}

#[test]
fn no_operator_ignores_an_attribute_it_does_not_know() {
    for operator in operators() {
        let expected = format!("node 'y' ({}): attribute 'surprise' is unknown", operator.op);
        assert_eq!(refusal(&operator.with(int("surprise", 0))), expected);
    }
}

#[test]
fn no_operator_ignores_an_input_it_does_not_know() {
    for operator in operators().into_iter().filter(|operator| operator.op != "Concat") {
        let mut network = operator.with(int("surprise", 0));
        let surplus = network.graph.as_mut().unwrap().node[0].input.len();
        let inputs = &mut network.graph.as_mut().unwrap().node[0].input;
        inputs.resize(surplus.max(6), "x".to_owned());
        let message = refusal(&network);
        let expected = format!("node 'y' ({}): 6 inputs, at most ", operator.op);
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn every_operator_that_reads_the_input_imports_without_the_surprise() {
    for operator in operators() {
        let Accepted { op, opset, input, constants, attributes } = operator;
        let network = op_model((op, opset), input, constants, &attributes);
        assert_eq!(graph_of(&network).outputs().len(), 1, "{op}");
    }
}
