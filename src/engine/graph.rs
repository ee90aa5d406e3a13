//! The typed graph of one row: what every pass rewrites and every executor runs.

use std::collections::BTreeMap;

use super::op::Op;
use super::shape::known_elements;

/// One value of a graph: the input, or the output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ValueId(pub(super) usize);

impl ValueId {
    /// The place of the value in tables of [`Graph::value_count`] entries.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Name and shape of a value, without the batch axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// The name the ONNX file gives it.
    pub name: String,
    /// Sizes of the axes of one row.
    pub shape: Vec<usize>,
}

/// A result of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// The name the ONNX file gives it; the value itself may carry another.
    pub name: String,
    /// The value it shows.
    pub value: ValueId,
}

/// One operation of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What is computed.
    pub op: Op,
    /// The values read, in the order the operation states.
    pub inputs: Vec<ValueId>,
    /// The value written.
    pub output: ValueId,
}

/// A network for one row: nodes in the order they can run.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) values: Vec<ValueInfo>,
    pub(super) nodes: Vec<Node>,
    pub(super) input: ValueId,
    pub(super) outputs: Vec<Output>,
}

impl Graph {
    /// Name and row shape of the input.
    pub fn input(&self) -> &ValueInfo {
        self.value(self.input)
    }

    /// The value that holds the input.
    pub(crate) fn input_id(&self) -> ValueId {
        self.input
    }

    /// Names and row shapes of the outputs, in the file's order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.outputs
            .iter()
            .map(|o| ValueInfo { name: o.name.clone(), shape: self.shape(o.value).to_vec() })
            .collect()
    }

    /// The values shown as outputs, in the file's order.
    pub(crate) fn output_ids(&self) -> impl Iterator<Item = ValueId> {
        self.outputs.iter().map(|output| output.value)
    }

    /// The operations, each after those whose results it reads.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Name and row shape of a value of this graph.
    pub(crate) fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.0]
    }

    /// Row shape of a value of this graph.
    pub(crate) fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// How many values there are.
    pub(crate) fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Trained numbers in all constants.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().flat_map(|node| node.op.constants()).map(|c| c.data().len()).sum()
    }

    /// Multiplications of convolutions and matrix products for one row.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_macs(node)).sum()
    }

    /// How often each kind of operation occurs.
    pub fn op_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.op.name()).or_insert(0) += 1;
        }
        counts
    }

    pub(super) fn node_macs(&self, node: &Node) -> u64 {
        let per_element = match &node.op {
            Op::Conv(conv) => known_elements(&conv.weight.shape()[1..]),
            Op::Linear(linear) => linear.weight.shape()[1],
            _ => 0,
        };
        (known_elements(self.shape(node.output)) as u64).saturating_mul(per_element as u64)
    }

    /// Adds a value; ids handed out before stay valid.
    pub(super) fn add_value(&mut self, name: String, shape: Vec<usize>) -> ValueId {
        self.values.push(ValueInfo { name, shape });
        ValueId(self.values.len() - 1)
    }

    /// How many nodes and outputs read each value.
    pub(super) fn reader_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let of_nodes = self.nodes.iter().flat_map(|node| node.inputs.iter().copied());
        for id in of_nodes.chain(self.output_ids()) {
            counts[id.0] += 1;
        }
        counts
    }
}
