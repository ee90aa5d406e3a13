//! The reference executor: plain candle operations on any device, slow and obviously right. It is
//! the oracle that other executors are compared with.

mod activation;
mod conv;
mod depthwise;
mod kernel;
mod pool;

use candle_core::{Device, Result, Tensor};

use self::kernel::Kernel;
use super::error::EngineError;
use super::graph::{Graph, Node, ValueId};

/// A graph with its constants on a device.
pub(super) struct Reference {
    steps: Vec<Step>,
    input: ValueId,
    outputs: Vec<ValueId>,
    values: usize,
}

struct Step {
    name: &'static str,
    kernel: Kernel,
    inputs: Vec<ValueId>,
    output: ValueId,
    /// Values nobody reads after this step.
    last_reads: Vec<ValueId>,
}

impl Reference {
    pub(super) fn load(graph: &Graph, device: &Device) -> std::result::Result<Self, EngineError> {
        let upload = |source| EngineError::Tensor { op: "upload", source };
        let mut steps = Vec::with_capacity(graph.nodes().len());
        let mut kept = vec![false; graph.value_count()];
        graph.output_ids().for_each(|id| kept[id.index()] = true);
        for node in graph.nodes().iter().rev() {
            let mut last_reads = Vec::new();
            for &id in node.inputs.iter().chain([&node.output]) {
                if !std::mem::replace(&mut kept[id.index()], true) {
                    last_reads.push(id);
                }
            }
            steps.push(Step {
                name: node.op.name(),
                kernel: Kernel::load(graph, node, device).map_err(upload)?,
                inputs: node.inputs.clone(),
                output: node.output,
                last_reads,
            });
        }
        steps.reverse();
        let outputs = graph.output_ids().collect();
        Ok(Self { steps, input: graph.input_id(), outputs, values: graph.value_count() })
    }

    pub(super) fn run(&self, input: &Tensor) -> std::result::Result<Vec<Tensor>, EngineError> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.values];
        values[self.input.index()] = Some(input.clone());
        for step in &self.steps {
            let failed = |source| EngineError::Tensor { op: step.name, source };
            let inputs: Vec<&Tensor> = step.inputs.iter().map(|&id| known(&values, id)).collect();
            let output = step.kernel.run(&inputs).map_err(failed)?;
            values[step.output.index()] = Some(output);
            for id in &step.last_reads {
                values[id.index()] = None;
            }
        }
        let outputs = self.outputs.iter().map(|&id| known(&values, id).contiguous());
        let outputs: Result<Vec<Tensor>> = outputs.collect();
        outputs.map_err(|source| EngineError::Tensor { op: "output", source })
    }
}

/// One operation alone, for executors that have no kernel of their own for it.
pub(super) struct Operation(Kernel);

impl Operation {
    /// Uploads what `node` needs.
    pub(super) fn load(graph: &Graph, node: &Node, device: &Device) -> Result<Self> {
        Ok(Self(Kernel::load(graph, node, device)?))
    }

    /// Runs it; `inputs` are `[batch, row shape…]`.
    pub(super) fn run(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.0.run(inputs)
    }
}

fn known(values: &[Option<Tensor>], id: ValueId) -> &Tensor {
    values[id.index()].as_ref().expect("nodes stand after those they read")
}
