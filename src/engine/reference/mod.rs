//! The reference executor: the layers and operations of candle-nn on any device, slow and simple.
//! The results of the other executors are compared with it, so its arithmetic is not our own. Where
//! candle-nn has no layer, it uses candle's tensors. The only exception is [`depthwise`].

mod activation;
mod conv;
mod depthwise;
mod loaded_op;
mod pool;

use candle_core::{Device, Result, Tensor};

use self::loaded_op::LoadedOp;
use super::error::EngineError;
use super::graph::{Graph, Node, ValueId};

/// A graph whose constants are on a device.
pub(super) struct ReferenceNetwork {
    nodes: Vec<LoadedNode>,
    input: ValueId,
    outputs: Vec<ValueId>,
    value_count: usize,
}

struct LoadedNode {
    op_name: &'static str,
    op: LoadedOp,
    inputs: Vec<ValueId>,
    output: ValueId,
    /// Values that no later node and no output reads. They are dropped after this node.
    last_reads: Vec<ValueId>,
}

impl ReferenceNetwork {
    pub(super) fn load(graph: &Graph, device: &Device) -> std::result::Result<Self, EngineError> {
        let upload = |source| EngineError::Tensor { op: "upload", source };
        let mut nodes = Vec::with_capacity(graph.nodes().len());
        let mut is_read_later = vec![false; graph.value_count()];
        graph.output_ids().for_each(|id| is_read_later[id.index()] = true);
        for node in graph.nodes().iter().rev() {
            let mut last_reads = Vec::new();
            for &id in node.inputs.iter().chain([&node.output]) {
                if !std::mem::replace(&mut is_read_later[id.index()], true) {
                    last_reads.push(id);
                }
            }
            nodes.push(LoadedNode {
                op_name: node.op.name(),
                op: LoadedOp::load(graph, node, device).map_err(upload)?,
                inputs: node.inputs.clone(),
                output: node.output,
                last_reads,
            });
        }
        nodes.reverse();
        let outputs = graph.output_ids().collect();
        Ok(Self { nodes, input: graph.input_id(), outputs, value_count: graph.value_count() })
    }

    pub(super) fn run(&self, input: &Tensor) -> std::result::Result<Vec<Tensor>, EngineError> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.value_count];
        values[self.input.index()] = Some(input.clone());
        for node in &self.nodes {
            let failed = |source| EngineError::Tensor { op: node.op_name, source };
            let inputs: Vec<&Tensor> =
                node.inputs.iter().map(|&id| known_value(&values, id)).collect();
            let output = node.op.run(&inputs).map_err(failed)?;
            values[node.output.index()] = Some(output);
            for id in &node.last_reads {
                values[id.index()] = None;
            }
        }
        let outputs = self.outputs.iter().map(|&id| known_value(&values, id).contiguous());
        let outputs: Result<Vec<Tensor>> = outputs.collect();
        outputs.map_err(|source| EngineError::Tensor { op: "output", source })
    }
}

/// A single operation, for executors without a kernel of their own for it.
pub(super) struct ReferenceOp(LoadedOp);

impl ReferenceOp {
    /// Uploads the constants of `node`.
    pub(super) fn load(graph: &Graph, node: &Node, device: &Device) -> Result<Self> {
        Ok(Self(LoadedOp::load(graph, node, device)?))
    }

    /// Runs the operation on `inputs` of `[batch, item shape…]`.
    pub(super) fn run(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.0.run(inputs)
    }
}

fn known_value(values: &[Option<Tensor>], id: ValueId) -> &Tensor {
    values[id.index()].as_ref().expect("a node runs after the nodes that it reads")
}
