//! Compares planned networks on a GPU with the reference on the CPU.
//!
//! These tests need a device: run `cargo test --features cuda gpu_` on a machine with a GPU, or
//! with the emulated driver (`tests/cuda`).

mod capture;
mod networks;
mod operations;
mod random;
mod reductions;

use std::sync::{Arc, LazyLock};

use candle_core::{Device, Tensor};
use parking_lot::{Mutex, MutexGuard};

use super::{CudaNetwork, Gpu};
use crate::Precision;
use crate::graph::Graph;

/// The first GPU, for one test at a time.
struct ExclusiveGpu {
    gpu: Arc<Gpu>,
    _lock: MutexGuard<'static, ()>,
}

fn gpu() -> ExclusiveGpu {
    gpu_with(|gpu| gpu)
}

fn gpu_with(change: impl FnOnce(Gpu) -> Gpu) -> ExclusiveGpu {
    static GPU_LOCK: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
    let lock = GPU_LOCK.lock();
    let device = Device::new_cuda_with_stream(0).expect("these tests need a GPU");
    let device = device.as_cuda_device().unwrap().clone();
    // SAFETY: all work runs on the one stream of this device.
    unsafe { device.disable_event_tracking() };
    ExclusiveGpu { gpu: Arc::new(change(Gpu::load(&device).unwrap())), _lock: lock }
}

impl ExclusiveGpu {
    fn load(&self, graph: &Graph, precision: Precision, buckets: &[usize]) -> Arc<CudaNetwork> {
        Arc::new(CudaNetwork::load(graph, Arc::clone(&self.gpu), precision, buckets).unwrap())
    }

    /// Runs the network on items of floats, and returns each output, flat.
    fn run(&self, graph: &Graph, network: &Arc<CudaNetwork>, input: &[f32]) -> Vec<Vec<f32>> {
        let shape = &graph.input().shape;
        let items = input.len() / shape.iter().product::<usize>();
        let shape = [&[items], shape.as_slice()].concat();
        let device = Device::Cuda(self.gpu.device().clone());
        let input = Tensor::from_slice(input, shape, &device).unwrap();
        let all: Vec<f32> = input.apply_op1_no_bwd(network.as_ref()).unwrap().to_vec1().unwrap();
        let mut rest = all.as_slice();
        let mut outputs = Vec::new();
        for info in graph.outputs() {
            let (output, others) = rest.split_at(items * info.shape.iter().product::<usize>());
            outputs.push(output.to_vec());
            rest = others;
        }
        outputs
    }
}
