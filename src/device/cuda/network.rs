//! Networks in GPU memory: how they are fed, run and read.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, sys};

use crate::device::{DeviceError, RowOutput};
use crate::engine::cuda::{CudaNetwork, Gpu, GpuError, PixelFormat};
use crate::engine::{EngineError, Graph, ValueInfo};
use crate::model::{ColourOrder, InputContract, Layout, Manifest};
use crate::trust::Secret;

/// A network in GPU memory, with the format of its input and the order of its outputs.
pub(super) struct ResidentNetwork {
    network: CudaNetwork,
    format: PixelFormat,
    /// Outputs in the network's order.
    outputs: Vec<OutputSlice>,
    /// CUDA graph of each captured bucket.
    graphs: BTreeMap<usize, CudaGraph>,
}

/// One output of the network.
struct OutputSlice {
    /// Values per row.
    row_len: usize,
    /// Index of the output in the manifest, if the manifest has it.
    manifest_index: Option<usize>,
}

impl ResidentNetwork {
    /// Uploads a network and, if `captures`, captures its buckets as CUDA graphs.
    pub(super) fn load(
        graph: &Graph,
        gpu: &Arc<Gpu>,
        manifest: &Manifest,
        captures: bool,
    ) -> Result<Self, EngineError> {
        let network =
            CudaNetwork::load(graph, Arc::clone(gpu), manifest.precision, &manifest.buckets)?;
        let output_slice = |output: ValueInfo| OutputSlice {
            row_len: output.shape.iter().product(),
            manifest_index: manifest.outputs.iter().position(|spec| spec.tensor == output.name),
        };
        let outputs = graph.outputs().into_iter().map(output_slice).collect();
        let format = pixel_format(&manifest.input);
        let mut resident = Self { network, format, outputs, graphs: BTreeMap::new() };
        if captures {
            resident.capture(&manifest.buckets)?;
        }
        Ok(resident)
    }

    /// Runs every bucket once, so that libraries load what they need, and captures the bucket.
    fn capture(&mut self, buckets: &[usize]) -> Result<(), GpuError> {
        let stream = Arc::clone(self.network.gpu().stream());
        for &bucket in buckets {
            self.network.enqueue_steps(bucket)?;
            stream.synchronize()?;
            stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
            let enqueued = self.network.enqueue_steps(bucket);
            // End the capture in any case, or the stream would stay in capture mode.
            let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
            enqueued?;
            if let Some(graph) = graph? {
                graph.upload()?;
                self.graphs.insert(bucket, graph);
            }
        }
        Ok(())
    }

    /// Enqueues the kernel that turns `count` pictures at a device address into the input of a
    /// batch.
    pub(super) fn enqueue_pictures(
        &self,
        bucket: usize,
        pictures: u64,
        count: usize,
    ) -> Result<(), GpuError> {
        self.network.enqueue_pictures(bucket, pictures, count, &self.format)
    }

    /// Enqueues the network on a batch whose input is in place.
    pub(super) fn enqueue_steps(&self, bucket: usize) -> Result<(), GpuError> {
        match self.graphs.get(&bucket) {
            Some(graph) => Ok(graph.launch()?),
            None => self.network.enqueue_steps(bucket),
        }
    }

    /// Returns the GPU buffer of the results.
    pub(super) fn results(&self) -> &CudaSlice<f32> {
        self.network.results()
    }

    /// Returns the number of result values of a batch.
    pub(super) fn results_len(&self, bucket: usize) -> usize {
        bucket * self.network.output_len()
    }

    /// Splits results by row, with the outputs of each row in the order of the manifest.
    ///
    /// # Errors
    /// Returns [`DeviceError::NotFinite`] if a value is infinite or NaN.
    pub(super) fn split_by_row(
        &self,
        results: &[f32],
        rows: usize,
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        let count = self.outputs.iter().filter_map(|output| output.manifest_index).count();
        let empty = || (0..count).map(|_| Secret::new(Vec::new())).collect();
        let mut outputs: Vec<RowOutput> =
            (0..rows).map(|_| RowOutput { tensors: empty() }).collect();
        let mut start = 0;
        for &OutputSlice { row_len, manifest_index } in &self.outputs {
            let all_rows = &results[start..start + bucket * row_len];
            start += bucket * row_len;
            let Some(index) = manifest_index else { continue };
            for (output, values) in outputs.iter_mut().zip(all_rows.chunks_exact(row_len)) {
                if !values.iter().all(|value| value.is_finite()) {
                    return Err(DeviceError::NotFinite { output: index });
                }
                output.tensors[index] = Secret::new(values.to_vec());
            }
        }
        Ok(outputs)
    }
}

/// Returns the format in which kernels turn pixels into the rows of the input contract.
fn pixel_format(input: &InputContract) -> PixelFormat {
    PixelFormat {
        width: input.width,
        height: input.height,
        is_channels_last: input.layout == Layout::Nhwc,
        source: match input.colour {
            ColourOrder::Rgb => [0, 1, 2],
            ColourOrder::Bgr => [2, 1, 0],
        },
        mean: input.mean,
        scale: input.scale,
    }
}
