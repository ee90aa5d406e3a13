//! The typed graph of one item. Every pass rewrites a graph, every executor runs one.

mod uses;

use std::collections::BTreeMap;

pub(crate) use self::uses::Uses;
use super::op::Op;
use super::shape::element_count;

/// One value of a graph: the input, or the output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ValueId(pub(super) usize);

impl ValueId {
    /// Returns the index of the value in tables of [`Graph::value_count`] entries.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Name and shape of a value, without the batch axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name of the value in the ONNX file.
    pub name: String,
    /// Sizes of the axes of one item.
    pub shape: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Name of the output in the ONNX file. The value may have another name.
    pub name: String,
    /// The value that the output returns.
    pub value: ValueId,
}

/// One operation of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub op: Op,
    /// The values that the operation reads, in the order that the operation defines.
    pub inputs: Vec<ValueId>,
    /// The value that the operation writes.
    pub output: ValueId,
}

/// A network for one item. Its nodes are in an order in which they can run.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) values: Vec<ValueInfo>,
    pub(super) nodes: Vec<Node>,
    pub(super) input: ValueId,
    pub(super) outputs: Vec<Output>,
}

impl Graph {
    /// Returns name and item shape of the input.
    pub fn input(&self) -> &ValueInfo {
        self.value(self.input)
    }

    /// Returns the value that holds the input.
    pub(crate) fn input_id(&self) -> ValueId {
        self.input
    }

    /// Returns names and item shapes of the outputs, in the file's order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.outputs
            .iter()
            .map(|o| ValueInfo { name: o.name.clone(), shape: self.shape(o.value).to_vec() })
            .collect()
    }

    /// Returns the values of the outputs, in the file's order.
    pub(crate) fn output_ids(&self) -> impl Iterator<Item = ValueId> {
        self.outputs.iter().map(|output| output.value)
    }

    /// Returns the nodes. Each node comes after the nodes whose outputs it reads.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns name and item shape of a value of this graph.
    pub(crate) fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.0]
    }

    /// Returns the item shape of a value of this graph.
    pub(crate) fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    pub(crate) fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Returns the number of trained parameters: the elements of all constants.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().flat_map(|node| node.op.constants()).map(|c| c.data().len()).sum()
    }

    /// Returns the multiply-accumulate operations (MACs) of convolutions and matrix products per
    /// item.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_macs(node)).sum()
    }

    /// Counts the nodes of each kind of operation, by the name of the kind.
    pub fn op_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.op.name()).or_insert(0) += 1;
        }
        counts
    }

    pub(super) fn node_macs(&self, node: &Node) -> u64 {
        let per_element = match &node.op {
            Op::Conv(conv) => conv.group_channels() * conv.taps(),
            Op::Linear(linear) => linear.in_len(),
            _ => 0,
        };
        (element_count(self.shape(node.output)) as u64).saturating_mul(per_element as u64)
    }

    /// Adds a value and returns its id. Ids that were returned before stay valid.
    pub(super) fn add_value(&mut self, name: String, shape: Vec<usize>) -> ValueId {
        self.values.push(ValueInfo { name, shape });
        ValueId(self.values.len() - 1)
    }
}
