//! A network ready to run on one device.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::cpu::{CpuNetwork, KernelChoice, ThreadTeam};
use super::error::EngineError;
use super::graph::{Graph, ValueInfo};
use super::precision::Precision;
use super::reference::Reference;

/// A graph loaded onto a device, with the executor chosen for it.
pub struct Network {
    input_shape: Vec<usize>,
    outputs: Vec<ValueInfo>,
    executor: Executor,
}

/// The ways to run a graph. They share graph and passes and must agree in what they compute.
enum Executor {
    Reference(Reference),
    Cpu(CpuNetwork),
}

impl Network {
    /// Plain candle operations on any device, in `f32`: slow, and the oracle of the others.
    /// `graph` should be optimised.
    ///
    /// # Errors
    /// Constants that cannot be uploaded.
    pub fn reference(graph: &Graph, device: &Device) -> Result<Self, EngineError> {
        Ok(Self::with(graph, Executor::Reference(Reference::load(graph, device)?)))
    }

    /// The planned executor on the CPU; `graph` should be optimised.
    ///
    /// # Errors
    /// [`CpuNetwork::load`].
    pub fn cpu(
        graph: &Graph,
        kernels: KernelChoice,
        precision: Precision,
        team: Arc<ThreadTeam>,
    ) -> Result<Self, EngineError> {
        let network = CpuNetwork::load(graph, kernels, precision, team)?;
        Ok(Self::with(graph, Executor::Cpu(network)))
    }

    fn with(graph: &Graph, executor: Executor) -> Self {
        Self { input_shape: graph.input().shape.clone(), outputs: graph.outputs(), executor }
    }

    /// Runs `[batch, row shape…]` of `f32` on the network's device and gives each output as
    /// `[batch, row shape…]`, in the file's order. A row's result depends on that row only.
    pub fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, EngineError> {
        let fits = input
            .dims()
            .split_first()
            .is_some_and(|(&rows, row)| rows > 0 && row == self.input_shape);
        if !fits {
            return Err(EngineError::InputShape {
                found: input.dims().to_vec(),
                expected: self.input_shape.clone(),
            });
        }
        if input.dtype() != DType::F32 {
            return Err(EngineError::InputType);
        }
        match &self.executor {
            Executor::Reference(reference) => reference.run(input),
            Executor::Cpu(network) => self.run_planned(network, input),
        }
    }

    fn run_planned(
        &self,
        network: &CpuNetwork,
        input: &Tensor,
    ) -> Result<Vec<Tensor>, EngineError> {
        let failed = |source| EngineError::Tensor { op: "network", source };
        let rows = input.dims()[0];
        let flat = input.apply_op1_no_bwd(network).map_err(failed)?;
        let mut from = 0;
        let mut output = |info: &ValueInfo| {
            let len = rows * info.shape.iter().product::<usize>();
            let values = flat.narrow(0, from, len)?;
            from += len;
            values.reshape([&[rows], info.shape.as_slice()].concat())
        };
        self.outputs.iter().map(|info| output(info).map_err(failed)).collect()
    }

    /// Names of the outputs, in the order [`Network::run`] gives them.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|output| output.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{graph_of, model, node};

    fn network() -> Network {
        let nodes = vec![node("Relu", &["x"], "y", &[])];
        let graph = graph_of(&model(13, &[1, 3], nodes, Vec::new()));
        Network::reference(&graph, &Device::Cpu).unwrap()
    }

    #[test]
    fn inputs_of_another_shape_or_type_are_refused() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        for shape in [[0, 3].as_slice(), &[2, 4], &[3], &[1, 1, 3]] {
            let error = network().run(&zeros(shape, DType::F32)).unwrap_err();
            assert!(matches!(error, EngineError::InputShape { .. }), "{error}");
        }
        let error = network().run(&zeros(&[1, 3], DType::F64)).unwrap_err();
        assert!(matches!(error, EngineError::InputType));
    }

    #[test]
    fn a_network_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&network());
    }
}
