//! A network loaded onto a GPU.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result as CandleResult, Shape, bail,
};
use parking_lot::Mutex;

use super::arguments::{Address, CopyArguments, PicturesArguments};
use super::cudnn::WORKSPACE_BYTES_MAX;
use super::element_type::ElementType;
use super::gpu::{Gpu, GpuError, free_bytes};
use super::layout::StridedPair;
use super::lower::lower;
use super::plan::{ArenaLayout, ExternalValue, LaunchContext, Plan};
use crate::Precision;
use crate::error::EngineError;
use crate::graph::Graph;

/// Most elements of one value in a batch: kernels count in 32 bits, and the last threads of a
/// launch compute indices beyond the count before they compare them.
const COUNT_MAX: u32 = i32::MAX as u32;

/// A network planned for one GPU, with its weights and the memory of its values.
///
/// All batches share that memory, so one batch runs at a time. The GPU's stream keeps them in
/// order.
pub struct CudaNetwork {
    gpu: Arc<Gpu>,
    plan: Plan,
    constants: CudaSlice<u8>,
    arena: CudaSlice<u8>,
    workspace: CudaSlice<u8>,
    /// Results as 32-bit floats: one output after the other, each for all items of the bucket.
    results: CudaSlice<f32>,
    /// Arena layout for each bucket, smallest first. A bucket is a batch size that is planned. A
    /// batch of another size runs in the next larger one.
    buckets: BTreeMap<usize, ArenaLayout>,
    /// Held while a batch is enqueued.
    enqueue_lock: Mutex<()>,
}

/// The conversion from the pixels of a picture to the values of the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelFormat {
    /// Width of the input, in pixels.
    pub width: usize,
    /// Height of the input, in pixels.
    pub height: usize,
    /// True if the graph's input is `[height, width, channels]`.
    pub is_channels_last: bool,
    /// For each channel of the network, the channel of the pixel it reads: 0 red, 1 green, 2 blue.
    pub source: [usize; 3],
    /// Subtracted before scaling, per channel of the network.
    pub mean: [f32; 3],
    /// Factor after subtracting, per channel of the network.
    pub scale: [f32; 3],
}

impl CudaNetwork {
    /// Plans an optimised graph for batches of the sizes in `buckets` and uploads the network.
    ///
    /// # Errors
    /// - the precision is not supported on GPUs
    /// - the network does not fit in the GPU's memory
    /// - the driver or a library refuses a call
    pub fn load(
        graph: &Graph,
        gpu: Arc<Gpu>,
        precision: Precision,
        buckets: &[usize],
    ) -> Result<Self, EngineError> {
        if precision == Precision::Bf16 {
            return Err(EngineError::GpuPrecision(precision));
        }
        Ok(Self::upload(lower(graph, precision), gpu, buckets)?)
    }

    fn upload(mut plan: Plan, gpu: Arc<Gpu>, buckets: &[usize]) -> Result<Self, GpuError> {
        let buckets: BTreeMap<usize, ArenaLayout> =
            buckets.iter().map(|&bucket| (bucket, plan.arena_layout(bucket))).collect();
        let (&items_max, _) = buckets.last_key_value().expect("a network has a bucket");
        check_counts(&plan, items_max)?;
        let arena_bytes = buckets.values().map(|layout| layout.bytes).max().unwrap_or(0);
        let results_len = plan.output_len() * items_max;
        check_memory(&gpu, plan.constants.bytes.len() + arena_bytes + results_len * 4)?;
        let stream = gpu.stream();
        let mut constants = std::mem::take(&mut plan.constants.bytes);
        // The driver refuses to allocate 0 bytes.
        constants.resize(constants.len().max(1), 0);
        let constants = stream.clone_htod(&constants)?;
        let mut workspace_bytes = 0;
        for &bucket in buckets.keys() {
            for step in &plan.steps {
                workspace_bytes = workspace_bytes.max(step.work.prepare(&gpu, bucket)?);
            }
        }
        let arena = stream.alloc_zeros::<u8>(arena_bytes.max(1))?;
        let workspace = stream.alloc_zeros::<u8>(workspace_bytes.max(1))?;
        let results = stream.alloc_zeros::<f32>(results_len.max(1))?;
        // The upload must end before this function frees the constants in the host's memory.
        stream.synchronize()?;
        let enqueue_lock = Mutex::new(());
        Ok(Self { gpu, plan, constants, arena, workspace, results, buckets, enqueue_lock })
    }

    /// Returns the GPU of the network.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Returns the bytes of GPU memory that the network holds.
    pub fn memory_bytes(&self) -> usize {
        let blocks = [&self.constants, &self.arena, &self.workspace];
        blocks.iter().map(|block| block.len()).sum::<usize>() + self.results.num_bytes()
    }

    /// Returns the elements of one item of all outputs together.
    pub fn output_len(&self) -> usize {
        self.plan.output_len()
    }

    /// Returns the memory where [`CudaNetwork::enqueue_steps`] leaves the results: one output after
    /// the other, each for all items of the bucket.
    pub fn results(&self) -> &CudaSlice<f32> {
        &self.results
    }

    /// Enqueues the conversion of `count` pictures into the input of a batch of `bucket` items. The
    /// device address `pictures` holds a [`super::PictureHeader`] for each, and then their pixels.
    ///
    /// # Errors
    /// The driver refuses the launch.
    pub fn enqueue_pictures(
        &self,
        bucket: usize,
        pictures: u64,
        count: usize,
        format: &PixelFormat,
    ) -> Result<(), GpuError> {
        let ExternalValue { buffer, pair } = &self.plan.input;
        // The input has the layout of the pixels in two cases: the lowering stores it with its
        // channels last, or the graph itself declares it so.
        let has_channels_last = format.is_channels_last || !pair.is_identity();
        let (pixel_stride, channel_stride) =
            if has_channels_last { (3, 1) } else { (1, format.width * format.height) };
        let arguments = PicturesArguments {
            y: self.buffer_address(bucket, *buffer),
            x: pictures,
            width: format.width as u32,
            height: format.height as u32,
            pixel_stride,
            channel_stride: channel_stride as u32,
            source: format.source.map(|channel| channel as u32),
            mean: format.mean,
            scale: format.scale,
            count: (count * pair.len()) as u32,
        };
        let kernel = self.kernel_name("pictures_f32", "pictures_f16");
        self.gpu.launch(kernel, arguments.count, &arguments)
    }

    /// Enqueues the network on a batch whose input has been enqueued, and the copy of its outputs
    /// to the results.
    ///
    /// # Errors
    /// The driver or a library refuses a call.
    pub fn enqueue_steps(&self, bucket: usize) -> Result<(), GpuError> {
        self.enqueue_plan_steps(bucket)?;
        let results = self.results.device_ptr(self.gpu.stream()).0;
        self.enqueue_results(bucket, 0..bucket, bucket, results)
    }

    fn enqueue_plan_steps(&self, bucket: usize) -> Result<(), GpuError> {
        let stream = self.gpu.stream();
        let (constants, _constants_sync) = self.constants.device_ptr(stream);
        let (workspace, _workspace_sync) = self.workspace.device_ptr(stream);
        for step in &self.plan.steps {
            let x = step.reads.iter().map(|&buffer| self.buffer_address(bucket, buffer)).collect();
            let y = self.buffer_address(bucket, step.writes);
            let gpu = &self.gpu;
            let context = LaunchContext { gpu, items: bucket, constants, x, y, workspace };
            step.work.enqueue(&context)?;
        }
        Ok(())
    }

    fn enqueue_copy(
        &self,
        kernel: &str,
        pair: &StridedPair,
        items: usize,
        [x, y]: [Address; 2],
    ) -> Result<(), GpuError> {
        let (count, axes) = ((items * pair.len()) as u32, pair.argument(items as u32));
        self.gpu.launch(kernel, count, &CopyArguments { y, x, axes, count })
    }

    fn kernel_name(&self, single: &'static str, half: &'static str) -> &'static str {
        match self.plan.element_type {
            ElementType::F32 => single,
            ElementType::F16 => half,
        }
    }

    fn buffer_address(&self, bucket: usize, buffer: usize) -> Address {
        let arena_layout = self.buckets.get(&bucket).expect("batches have a bucket's size");
        let (arena, _arena_sync) = self.arena.device_ptr(self.gpu.stream());
        arena + arena_layout.offsets[buffer] as Address
    }

    /// Enqueues the network on `items` items of 32-bit floats at `x`, in the flat layout, in
    /// batches of the buckets' sizes. The results are written to `y`.
    fn enqueue_f32(&self, items: usize, x: Address, y: Address) -> Result<(), GpuError> {
        let _lock = self.enqueue_lock.lock();
        let kernel = self.kernel_name("copy_f32", "copy_f32_f16");
        let (&items_max, _) = self.buckets.last_key_value().expect("a network has a bucket");
        for first in (0..items).step_by(items_max) {
            let count = items_max.min(items - first);
            let (&bucket, _) =
                self.buckets.range(count..).next().expect("no batch is larger than the largest");
            let ExternalValue { buffer, pair } = &self.plan.input;
            let from = x + (first * pair.len() * size_of::<f32>()) as Address;
            let ends = [from, self.buffer_address(bucket, *buffer)];
            self.enqueue_copy(kernel, pair, count, ends)?;
            self.enqueue_plan_steps(bucket)?;
            self.enqueue_results(bucket, first..first + count, items, y)?;
        }
        Ok(())
    }

    /// Enqueues copying the results of a batch, which are the items `range` of `items` in all, to
    /// `to`, where each output has all of its items together.
    fn enqueue_results(
        &self,
        bucket: usize,
        range: Range<usize>,
        items: usize,
        to: Address,
    ) -> Result<(), GpuError> {
        let kernel = self.kernel_name("copy_f32", "copy_f16_f32");
        let mut start = to;
        for ExternalValue { buffer, pair } in &self.plan.outputs {
            let bytes = |items: usize| (items * pair.len() * size_of::<f32>()) as Address;
            let ends = [self.buffer_address(bucket, *buffer), start + bytes(range.start)];
            self.enqueue_copy(kernel, pair, range.len(), ends)?;
            start += bytes(items);
        }
        Ok(())
    }
}

fn check_counts(plan: &Plan, items: usize) -> Result<(), GpuError> {
    let longest = plan.buffers.iter().map(|buffer| buffer.len).max().unwrap_or(0);
    match longest.checked_mul(items) {
        Some(count) if count <= COUNT_MAX as usize => Ok(()),
        _ => Err(GpuError::BatchTooLarge { items, max: COUNT_MAX }),
    }
}

fn check_memory(gpu: &Gpu, bytes: usize) -> Result<(), GpuError> {
    let needed = bytes + WORKSPACE_BYTES_MAX;
    // The memory pool counts freed memory once the stream has executed the free.
    gpu.stream().synchronize()?;
    let free = free_bytes(gpu.stream().context())?;
    match needed <= free {
        true => Ok(()),
        false => Err(GpuError::Memory { needed_mib: needed >> 20, free_mib: free >> 20 }),
    }
}

impl CustomOp1 for CudaNetwork {
    fn name(&self) -> &'static str {
        "planned network"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        bail!("the network is on a GPU, its input is not")
    }

    /// Runs the network on `[batch, item shape…]` of `f32`. Returns all outputs in one flat tensor,
    /// one output after the other.
    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("the input of a network must be contiguous")
        };
        let device = storage.device();
        let items = layout.dims()[0];
        let len = items * self.plan.output_len();
        let x = storage.as_cuda_slice::<f32>()?.slice(start..end);
        // SAFETY: the network writes every element.
        let y = unsafe { device.alloc::<f32>(len)? };
        let stream = self.gpu.stream();
        {
            let ((x, _x_sync), (y, _y_sync)) = (x.device_ptr(stream), y.device_ptr(stream));
            self.enqueue_f32(items, x, y).map_err(candle_core::Error::wrap)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(len)))
    }
}
