//! A network that is loaded onto one device.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::cpu::{CpuNetwork, KernelChoice, ThreadTeam};
use super::error::EngineError;
use super::graph::{Graph, ValueInfo};
use super::precision::Precision;
use super::reference::ReferenceNetwork;

/// A graph that is loaded onto a device, and its executor. To serve on a GPU, a graph is
/// loaded as `cuda::CudaNetwork`.
pub struct Network {
    input_shape: Vec<usize>,
    outputs: Vec<ValueInfo>,
    executor: Executor,
}

/// The executors. They run the same optimised graph and must compute the same results.
enum Executor {
    Reference(ReferenceNetwork),
    Cpu(CpuNetwork),
}

impl Network {
    /// Loads the reference executor: the layers of candle-nn on any device, in `f32`. It is slow,
    /// and the other executors are compared with it. `graph` should be optimised.
    ///
    /// # Errors
    /// Returns an error if a constant cannot be uploaded.
    pub fn reference(graph: &Graph, device: &Device) -> Result<Self, EngineError> {
        Ok(Self::with_executor(graph, Executor::Reference(ReferenceNetwork::load(graph, device)?)))
    }

    /// Loads the CPU executor. `graph` should be optimised.
    ///
    /// # Errors
    /// Returns the errors of [`CpuNetwork::load`].
    pub fn cpu(
        graph: &Graph,
        kernels: KernelChoice,
        precision: Precision,
        team: Arc<ThreadTeam>,
    ) -> Result<Self, EngineError> {
        let network = CpuNetwork::load(graph, kernels, precision, team)?;
        Ok(Self::with_executor(graph, Executor::Cpu(network)))
    }

    fn with_executor(graph: &Graph, executor: Executor) -> Self {
        Self { input_shape: graph.input().shape.clone(), outputs: graph.outputs(), executor }
    }

    /// Runs an `f32` tensor `[batch, item shape…]` on the network's device. Returns each output as
    /// `[batch, item shape…]`, in the file's order. The result of an item depends on that item
    /// only.
    pub fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, EngineError> {
        let fits = input
            .dims()
            .split_first()
            .is_some_and(|(&items, item_shape)| items > 0 && item_shape == self.input_shape);
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
            Executor::Cpu(network) => self.run_cpu(network, input),
        }
    }

    fn run_cpu(&self, network: &CpuNetwork, input: &Tensor) -> Result<Vec<Tensor>, EngineError> {
        let failed = |source| EngineError::Tensor { op: "network", source };
        let items = input.dims()[0];
        let flat = input.apply_op1_no_bwd(network).map_err(failed)?;
        let mut from = 0;
        let mut output = |info: &ValueInfo| {
            let len = items * info.shape.iter().product::<usize>();
            let values = flat.narrow(0, from, len)?;
            from += len;
            values.reshape([&[items], info.shape.as_slice()].concat())
        };
        self.outputs.iter().map(|info| output(info).map_err(failed)).collect()
    }

    /// Returns the names of the outputs, in the order of [`Network::run`].
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
