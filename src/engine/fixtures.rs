//! Small ONNX files and graphs for the engine's tests.

mod network_builder;
mod random;

use std::path::Path;

use candle_core::{Device, Tensor};
use prost::Message;

pub(super) use self::network_builder::NetworkBuilder;
pub(super) use self::random::{random_graph, random_optimised_graph};
use super::graph::Graph;
use super::{Network, import, optimise};
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    attribute(name, AttributeType::Int, AttributeProto { i, ..Default::default() })
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    attribute(name, AttributeType::Float, AttributeProto { f, ..Default::default() })
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let value = AttributeProto { ints: ints.to_vec(), ..Default::default() };
    attribute(name, AttributeType::Ints, value)
}

pub(super) fn float_list(name: &str, floats: &[f32]) -> AttributeProto {
    let value = AttributeProto { floats: floats.to_vec(), ..Default::default() };
    attribute(name, AttributeType::Floats, value)
}

pub(super) fn string(name: &str, s: &str) -> AttributeProto {
    let value = AttributeProto { s: s.as_bytes().to_vec(), ..Default::default() };
    attribute(name, AttributeType::String, value)
}

pub(super) fn tensor(name: &str, t: TensorProto) -> AttributeProto {
    let value = AttributeProto { t: Some(t), ..Default::default() };
    attribute(name, AttributeType::Tensor, value)
}

fn attribute(name: &str, kind: AttributeType, value: AttributeProto) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind as i32, ..value }
}

/// Returns a node with one output. The node has the name of its output.
pub(super) fn node(
    op: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[AttributeProto],
) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: output.to_owned(),
        op_type: op.to_owned(),
        attribute: attributes.to_vec(),
        domain: String::new(),
    }
}

pub(super) fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: 1,
        float_data: data.to_vec(),
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(super) fn longs(name: &str, data: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![data.len() as i64],
        data_type: 7,
        int64_data: data.to_vec(),
        name: name.to_owned(),
        ..Default::default()
    }
}

/// Returns an `i64` tensor of one element without axes.
pub(super) fn long(name: &str, value: i64) -> TensorProto {
    TensorProto { dims: Vec::new(), ..longs(name, &[value]) }
}

/// Returns a tensor of signed 8-bit integers.
pub(super) fn int8s(name: &str, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: 3,
        int32_data: data.to_vec(),
        name: name.to_owned(),
        ..Default::default()
    }
}

/// Returns an input or output of 32-bit floats. A size of -1 stands for a symbolic size.
pub(super) fn input_info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&size| Dimension {
        value: Some(match size {
            -1 => dimension::Value::DimParam("N".to_owned()),
            size => dimension::Value::DimValue(size),
        }),
    });
    let shape = TensorShapeProto { dim: dim.collect() };
    let tensor = type_proto::Tensor { elem_type: 1, shape: Some(shape) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
    }
}

/// Returns a model with the input `x` and the output `y`.
pub(super) fn model(
    opset: i64,
    input: &[i64],
    nodes: Vec<NodeProto>,
    initialisers: Vec<TensorProto>,
) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        name: "fixture".to_owned(),
        initializer: initialisers,
        input: vec![input_info("x", input)],
        output: vec![input_info("y", &[])],
        sparse_initializer: Vec::new(),
    };
    ModelProto {
        ir_version: 8,
        producer_name: "fixture".to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        functions: Vec::new(),
    }
}

/// Imports a model that must be valid.
pub(super) fn graph_of(model: &ModelProto) -> Graph {
    import(model.encode_to_vec().into(), None).unwrap()
}

/// Imports a model that must be refused, and returns the error message.
pub(super) fn refusal(model: &ModelProto) -> String {
    import(model.encode_to_vec().into(), None).unwrap_err().to_string()
}

/// Returns pseudo-random numbers from -1 to 1. Equal seeds give equal numbers.
pub(super) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Lcg::new(seed);
    (0..count).map(|_| random.noise()).collect()
}

/// A 64-bit linear congruential generator (Knuth's MMIX) that returns the upper bits.
pub(super) struct Lcg(u64);

impl Lcg {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }

    /// Returns a number from -1 to 1.
    fn noise(&mut self) -> f32 {
        self.next() as f32 / (1_u32 << 23) as f32 - 1.0
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.next() as usize % count
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Runs a graph on noise for `items` items. Returns the elements of the first output.
pub(super) fn run_on_noise(graph: &Graph, items: usize) -> Vec<f32> {
    let shape = &graph.input().shape;
    let input = noise(7, items * shape.iter().product::<usize>());
    run(graph, items, &input).remove(0)
}

/// Runs a graph with the reference executor. Returns the elements of each output.
pub(super) fn run(graph: &Graph, items: usize, input: &[f32]) -> Vec<Vec<f32>> {
    let shape = [&[items], graph.input().shape.as_slice()].concat();
    let input = Tensor::from_slice(input, shape, &Device::Cpu).unwrap();
    let network = Network::reference(graph, &Device::Cpu).unwrap();
    let outputs = network.run(&input).unwrap();
    outputs.iter().map(|y| y.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

/// Loads and optimises a network of this repository. `file` is a path in `models/`.
pub(super) fn network_of(file: &str) -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(file);
    optimise(import(std::fs::read(path).unwrap().into(), None).unwrap())
}

/// Returns noise for `items` inputs of the graph.
pub(super) fn inputs(graph: &Graph, items: usize) -> Vec<f32> {
    noise(7, items * graph.input().shape.iter().product::<usize>())
}

/// Returns the first `items` of `all` items of each output.
pub(super) fn first_items(outputs: &[Vec<f32>], all: usize, items: usize) -> Vec<Vec<f32>> {
    outputs.iter().map(|output| output[..output.len() / all * items].to_vec()).collect()
}

/// Returns 1 - cosine of the angle between two vectors; 0 for two vectors of zeros.
fn cosine_distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let lengths = (dot(found, found) * dot(expected, expected)).sqrt();
    if lengths == 0.0 && dot(found, found) == dot(expected, expected) {
        return 0.0;
    }
    1.0 - dot(found, expected) / lengths
}

/// Returns the largest relative difference and the largest cosine distance of all outputs. Both are
/// NaN if an element is NaN.
pub(super) fn largest_errors(found: &[Vec<f32>], expected: &[Vec<f32>]) -> (f32, f64) {
    assert_eq!(found.len(), expected.len());
    // `max` would drop a NaN.
    if found.iter().flatten().any(|x| x.is_nan()) {
        return (f32::NAN, f64::NAN);
    }
    found.iter().zip(expected).fold((0.0, 0.0), |(difference, distance), (f, e)| {
        (relative_difference(f, e).max(difference), cosine_distance(f, e).max(distance))
    })
}

/// Imports a model and runs it on one item.
pub(super) fn run_model(model: &ModelProto, input: &[f32]) -> Vec<f32> {
    run(&graph_of(model), 1, input).remove(0)
}

/// Returns the largest absolute difference between elements of two vectors of equal length.
pub(super) fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max)
}

/// Returns the largest absolute difference, divided by the largest absolute value expected.
pub(super) fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, e| largest.max(e.abs()));
    difference(found, expected) / largest.max(f32::MIN_POSITIVE)
}

#[track_caller]
pub(super) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "element {at}: {f}, expected {e}");
    }
}
