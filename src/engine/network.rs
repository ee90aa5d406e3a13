//! A network ready to run on one device.

use candle_core::{DType, Device, Tensor};

use super::error::EngineError;
use super::graph::Graph;
use super::reference::Reference;

/// A graph loaded onto a device, with the executor chosen for it.
pub struct Network {
    input_shape: Vec<usize>,
    output_names: Vec<String>,
    executor: Executor,
}

/// The ways to run a graph. They share graph and passes and must agree in what they compute.
enum Executor {
    Reference(Reference),
}

impl Network {
    /// Uploads the constants of `graph` to `device`; `graph` should be optimised.
    pub fn load(graph: &Graph, device: &Device) -> Result<Self, EngineError> {
        Ok(Self {
            input_shape: graph.input().shape.clone(),
            output_names: graph.outputs().into_iter().map(|output| output.name).collect(),
            executor: Executor::Reference(Reference::load(graph, device)?),
        })
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
        }
    }

    /// Shape of one row of the input.
    pub fn input_shape(&self) -> &[usize] {
        &self.input_shape
    }

    /// Names of the outputs, in the order [`Network::run`] gives them.
    pub fn output_names(&self) -> &[String] {
        &self.output_names
    }

    /// The executor chosen, for logs and listings.
    pub fn executor(&self) -> &'static str {
        match self.executor {
            Executor::Reference(_) => "reference",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixtures::{graph_of, model, node};

    fn network() -> Network {
        let nodes = vec![node("Relu", &["x"], "y", &[])];
        Network::load(&graph_of(&model(13, &[1, 3], nodes, Vec::new())), &Device::Cpu).unwrap()
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
