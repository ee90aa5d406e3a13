//! Networks written for one test.

use crate::engine::fixtures::{floats, graph_of, input_info, int, longs, model, node, noise};
use crate::engine::graph::Graph;
use crate::engine::optimise;
use crate::proto::onnx::{AttributeProto, NodeProto, TensorProto};

/// A network of the input `x` being written.
#[derive(Clone, Default)]
pub(in crate::engine::cpu) struct Draft {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Draft {
    pub(in crate::engine::cpu) fn push(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[AttributeProto],
    ) {
        self.nodes.push(node(op, inputs, output, attributes));
    }

    /// A constant of noise.
    pub(in crate::engine::cpu) fn noise(&mut self, name: &str, dims: &[usize], scale: f32) {
        let numbers = noise(self.constants.len() as u64, dims.iter().product());
        let numbers: Vec<f32> = numbers.into_iter().map(|x| x * scale).collect();
        self.numbers(name, dims, &numbers);
    }

    pub(in crate::engine::cpu) fn numbers(&mut self, name: &str, dims: &[usize], data: &[f32]) {
        let dims: Vec<i64> = dims.iter().map(|&size| size as i64).collect();
        self.constants.push(floats(name, &dims, data));
    }

    pub(in crate::engine::cpu) fn longs(&mut self, name: &str, numbers: &[i64]) {
        self.constants.push(longs(name, numbers));
    }

    /// The same elements under another shape, batch axis included.
    pub(in crate::engine::cpu) fn reshape(&mut self, from: &str, to: &str, shape: &[i64]) {
        let name = format!("shape of {to}");
        self.longs(&name, shape);
        self.push("Reshape", &[from, &name], to, &[]);
    }

    /// `Gemm` with noise.
    pub(in crate::engine::cpu) fn linear(&mut self, from: &str, to: &str, [out, len]: [usize; 2]) {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{part} of {to}"));
        self.noise(&weight, &[out, len], (3.0 / len as f32).sqrt());
        self.noise(&bias, &[out], 0.3);
        let attributes = [int("transB", 1)];
        self.push("Gemm", &[from, &weight, &bias], to, &attributes);
    }

    /// The network with an input of this shape, without the batch axis, and the output `y`.
    pub(in crate::engine::cpu) fn graph(self, input: &[usize]) -> Graph {
        self.graph_with(input, &["y"])
    }

    pub(in crate::engine::cpu) fn graph_with(self, input: &[usize], outputs: &[&str]) -> Graph {
        let input: Vec<i64> = [1].iter().chain(input).map(|&size| size as i64).collect();
        let mut file = model(14, &input, self.nodes, self.constants);
        let graph = file.graph.as_mut().expect("a model has a graph");
        graph.output = outputs.iter().map(|name| input_info(name, &[])).collect();
        optimise(graph_of(&file))
    }
}
