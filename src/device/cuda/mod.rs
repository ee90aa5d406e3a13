//! The GPU machine: copies rows into pinned memory, uploads them on one stream, runs the network on
//! another, and downloads the results into pinned memory.
//!
//! ```text
//! copy stream:     upload n ─┐ upload n+1 ─┐
//! compute stream:            └ pixels → network → results n └ pixels → network → results n+1
//! ```
//!
//! After a batch was started, it needs the host again only when it is finished. So the upload of
//! the next batch overlaps the computation of the current one. Only the thread that opened a GPU
//! uses it.

#![expect(unsafe_code, reason = "the driver's calls are foreign; each block says why it may")]

mod listing;
mod loss;
mod network;
mod requirement;
mod spec;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device as CandleDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaStream, DriverError, result, sys,
};

use self::loss::LossDetector;
use self::network::ResidentNetwork;
use self::requirement::{GpuIdentity, check_driver, driver_version};
use self::staging::StagingBuffer;
use super::device_set::DEVICES_MAX;
use super::loaded::ModelKey;
use super::machine::{Machine, StartedBatch};
use super::{CudaSettings, DeviceDescription, DeviceError, LoadedModel, RowOutput};
use crate::engine::cuda::{Gpu, GpuError, PictureHeader, lazy};
use crate::engine::{EngineError, Precision};
use crate::image::RgbImage;
use crate::model::Package;

pub(super) use listing::{find_gpus, survey};
pub use requirement::UnmetRequirement;
pub(super) use spec::CudaSpec;

/// A GPU with its networks.
struct CudaMachine {
    number: usize,
    settings: CudaSettings,
    slots: usize,
    /// `None` while the GPU is lost.
    open_gpu: Option<OpenGpu>,
}

/// The part of the state that is lost with the GPU.
struct OpenGpu {
    gpu: Arc<Gpu>,
    copy_stream: Arc<CudaStream>,
    networks: BTreeMap<ModelKey, ResidentNetwork>,
    /// Staging buffers that hold no batch; the last one became free most recently.
    free_staging: Vec<StagingBuffer>,
    loss_detector: LossDetector,
}

/// A batch whose upload, computation and download are enqueued.
struct EnqueuedBatch {
    staging: StagingBuffer,
    key: ModelKey,
    rows: usize,
    bucket: usize,
}

impl CudaMachine {
    /// Opens a GPU, on the thread that will use it.
    fn open(
        number: usize,
        slots: usize,
        settings: CudaSettings,
        chosen: &str,
    ) -> Result<(Self, DeviceDescription), DeviceError> {
        check_gpu(number)?;
        let open_gpu = OpenGpu::new(number, slots).map_err(open_error(number))?;
        let description = open_gpu.describe(number, chosen).map_err(open_error(number))?;
        Ok((Self { number, settings, slots, open_gpu: Some(open_gpu) }, description))
    }

    /// Copies rows into a staging buffer, enqueues all work of the batch, and returns.
    fn enqueue_batch(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<EnqueuedBatch, DeviceError> {
        let open_gpu = self.open_gpu.as_mut().ok_or(DeviceError::OutOfService)?;
        if rows.is_empty() || rows.len() > bucket || !model.buckets().contains(&bucket) {
            return Err(DeviceError::Bucket { rows: rows.len(), bucket });
        }
        let contract = &model.manifest().input;
        rows.iter().try_for_each(|row| contract.check(row))?;
        let key = model.key();
        if !open_gpu.networks.contains_key(&key) {
            return Err(DeviceError::NotLoaded { model: model.id() });
        }
        let mut staging =
            open_gpu.free_staging.pop().expect("no more batches are started than there are slots");
        match open_gpu.enqueue(&mut staging, key, rows, bucket) {
            Ok(()) => Ok(EnqueuedBatch { staging, key, rows: rows.len(), bucket }),
            Err(error) => Err(open_gpu.release_after_failure(staging, error)),
        }
    }
}

impl Machine for CudaMachine {
    type Running = EnqueuedBatch;

    /// Uploads the network and captures its buckets.
    fn load(&mut self, model: &LoadedModel, package: &Package) -> Result<(), DeviceError> {
        let open_gpu = self.open_gpu.as_mut().ok_or(DeviceError::OutOfService)?;
        let manifest = model.manifest();
        let graph = package
            .graph_for(&manifest.input)
            .map_err(|source| DeviceError::Read { model: model.id(), source: Box::new(source) })?;
        let network = ResidentNetwork::load(&graph, &open_gpu.gpu, manifest, self.settings.graphs);
        let network = network.map_err(|source| open_gpu.load_error(model, source))?;
        let rows_max = manifest.buckets.iter().copied().max().unwrap_or(1);
        let bytes = rows_max * (PictureHeader::BYTES + manifest.input.row_len());
        let grown = open_gpu.grow_staging(bytes, network.results_len(rows_max));
        grown.map_err(|error| open_gpu.load_error(model, error.into()))?;
        open_gpu.networks.insert(model.key(), network);
        Ok(())
    }

    fn unload(&mut self, key: ModelKey) {
        if let Some(open_gpu) = &mut self.open_gpu {
            open_gpu.networks.remove(&key);
        }
    }

    fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> StartedBatch<EnqueuedBatch> {
        self.enqueue_batch(model, rows, bucket).into()
    }

    /// Returns true if the results are ready, or if `finish` will return an error.
    fn has_run(&self, batch: &EnqueuedBatch) -> bool {
        batch.staging.has_run()
    }

    fn finish(&mut self, batch: EnqueuedBatch) -> Result<Vec<RowOutput>, DeviceError> {
        let open_gpu = self.open_gpu.as_mut().ok_or(DeviceError::OutOfService)?;
        let EnqueuedBatch { mut staging, key, rows, bucket } = batch;
        if let Err(error) = staging.wait() {
            return Err(open_gpu.release_after_failure(staging, error.into()));
        }
        let network =
            open_gpu.networks.get(&key).expect("a batch keeps its model, and so its network");
        let results = staging.results(network.results_len(bucket));
        let outputs = network.split_by_row(results, rows, bucket);
        staging.wipe();
        open_gpu.free_staging.push(staging);
        outputs
    }

    /// Drops everything that was on the GPU, and opens the GPU again.
    fn reopen(&mut self) -> Result<(), DeviceError> {
        // Freeing needs a working context, so the state is leaked. The reset below frees the memory
        // on the GPU. The leak on the host is some kilobytes, at most once for each of the bounded
        // attempts to reopen.
        std::mem::forget(self.open_gpu.take());
        reset(self.number).map_err(|error| open_error(self.number)(error.into()))?;
        self.open_gpu =
            Some(OpenGpu::new(self.number, self.slots).map_err(open_error(self.number))?);
        Ok(())
    }

    /// Libraries choose different algorithms for different batch sizes, and these sum in different
    /// orders.
    fn bucket_tolerance(&self, precision: Precision) -> f32 {
        match precision {
            Precision::F32 => 1e-4,
            // One of two algorithms may cut factors to 10 bits and the other not. Then the outputs
            // differ by as much as TF32 changes them: at most 1.5e-2, relative to the largest value
            // or to 1 if that is more (fr_liveness, `golden.tolerance_tf32` in `models`).
            Precision::Tf32 => 5e-2,
            Precision::F16 | Precision::Bf16 => 1e-2,
        }
    }
}

impl Drop for CudaMachine {
    /// Leaks the state of a lost GPU, because libraries panic when they are closed on one. The
    /// reset frees the memory on the GPU, so that the process can open the GPU again.
    fn drop(&mut self) {
        if self.open_gpu.as_ref().is_some_and(|open_gpu| open_gpu.loss_detector.is_lost()) {
            std::mem::forget(self.open_gpu.take());
            if let Err(error) = reset(self.number) {
                tracing::warn!(number = self.number, %error, "a lost GPU could not be reset");
            }
        }
    }
}

/// Destroys the primary context of the GPU with everything in it.
fn reset(number: usize) -> Result<(), DriverError> {
    let device = result::device::get(number as i32)?;
    // SAFETY: the callers have leaked everything that used the context, so nothing uses it again.
    unsafe { sys::cuDevicePrimaryCtxReset_v2(device) }.result()
}

/// Returns the ordinals of the GPUs that are present and new enough, without opening them, or why
/// there is none.
pub(super) fn find_gpus_without_opening() -> Result<Vec<usize>, String> {
    let found: Vec<usize> = (0..DEVICES_MAX).filter(|number| check_gpu(*number).is_ok()).collect();
    match check_gpu(0) {
        Err(why) if found.is_empty() => Err(why.to_string()),
        _ => Ok(found),
    }
}

/// Checks without opening the GPU that the libraries are present, that the driver finds the GPU,
/// and that both are new enough.
fn check_gpu(number: usize) -> Result<(), DeviceError> {
    if let Some((library, why)) = lazy::first_missing() {
        return Err(DeviceError::CudaLibrary { number, library: library.to_string(), why });
    }
    let failed = |error: DriverError| open_error(number)(error.into());
    let refused = |unmet| DeviceError::CudaRequirement { number, unmet };
    check_driver(driver_version().map_err(failed)?).map_err(refused)?;
    let count = CudaContext::device_count().or_else(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        _ => Err(error),
    });
    let count = count.map_err(failed)? as usize;
    if number >= count {
        return Err(DeviceError::CudaNoDevice { number, count });
    }
    GpuIdentity::read(number).map_err(failed)?.check().map_err(refused)
}

fn open_error(number: usize) -> impl Fn(GpuError) -> DeviceError {
    move |source| DeviceError::CudaOpen { number, source: Box::new(source) }
}

/// Opens a GPU for a benchmark that uses the GPU itself, on the calling thread.
///
/// # Errors
/// Returns an error for a GPU that is missing or does not open.
pub fn open_gpu_alone(number: usize) -> Result<Arc<Gpu>, DeviceError> {
    check_gpu(number)?;
    load_gpu(number).map_err(open_error(number))
}

fn load_gpu(number: usize) -> Result<Arc<Gpu>, GpuError> {
    let device = CandleDevice::new_cuda_with_stream(number)?;
    let device = device.as_cuda_device()?.clone();
    // SAFETY: nothing is allocated yet, and this module orders the streams by its own events.
    unsafe { device.disable_event_tracking() };
    let context = device.cuda_stream().context().clone();
    context.set_blocking_synchronize()?;
    keep_freed_memory(&context)?;
    Ok(Arc::new(Gpu::load(&device)?))
}

impl OpenGpu {
    fn new(number: usize, slots: usize) -> Result<Self, GpuError> {
        let gpu = load_gpu(number)?;
        let context = Arc::clone(gpu.stream().context());
        let copy_stream = context.new_stream()?;
        let free_staging =
            (0..slots).map(|_| StagingBuffer::new(&context)).collect::<Result<_, _>>()?;
        let loss_detector = LossDetector::new(number, context);
        Ok(Self { gpu, copy_stream, networks: BTreeMap::new(), free_staging, loss_detector })
    }

    fn describe(&self, number: usize, chosen: &str) -> Result<DeviceDescription, GpuError> {
        let context = self.gpu.stream().context();
        let (major, minor) = context.compute_capability()?;
        let convolutions = if self.gpu.has_cudnn() { "cuDNN" } else { "cuBLAS, no cuDNN" };
        let gibibytes = context.total_mem()? as f64 / f64::from(1 << 30);
        let name = context.name()?;
        Ok(DeviceDescription {
            name: format!("cuda:{number}"),
            kernels: format!("{name}, sm_{major}{minor}, {gibibytes:.0} GiB, {convolutions}"),
            chosen: chosen.to_owned(),
        })
    }

    fn grow_staging(&mut self, bytes: usize, floats: usize) -> Result<(), GpuError> {
        let stream = self.gpu.stream();
        self.free_staging.iter_mut().try_for_each(|staging| staging.grow(stream, bytes, floats))?;
        Ok(stream.synchronize()?)
    }

    fn enqueue(
        &self,
        staging: &mut StagingBuffer,
        key: ModelKey,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<(), GpuError> {
        let (compute_stream, network) = (self.gpu.stream(), &self.networks[&key]);
        staging.upload(&self.copy_stream, compute_stream, rows)?;
        network.enqueue_pictures(bucket, staging.pictures_address(compute_stream), rows.len())?;
        staging.enqueue_wipe_of_pictures(compute_stream)?;
        network.enqueue_steps(bucket)?;
        staging.download(compute_stream, network.results(), network.results_len(bucket))?;
        Ok(())
    }

    fn load_error(&self, model: &LoadedModel, source: EngineError) -> DeviceError {
        match source {
            EngineError::Gpu(error) if let Some(loss) = self.loss_detector.loss(&error) => loss,
            source => DeviceError::Load { model: model.id(), source: Box::new(source) },
        }
    }

    /// Frees a staging buffer after a failure, and returns the error of the batch. Waits first,
    /// because no copy or kernel may still use the buffer when it is used again. If the GPU is
    /// lost, the buffer is leaked.
    fn release_after_failure(
        &mut self,
        mut staging: StagingBuffer,
        error: GpuError,
    ) -> DeviceError {
        if let Some(loss) = self.loss_detector.loss(&error) {
            std::mem::forget(staging);
            return loss;
        }
        let compute_stream = self.gpu.stream();
        let copied = self.copy_stream.synchronize();
        let wiped = copied.and_then(|()| staging.enqueue_wipe_of_pictures(compute_stream));
        let settled = wiped.and_then(|()| compute_stream.synchronize());
        let lost = settled.err().and_then(|error| self.loss_detector.loss(&error.into()));
        match lost {
            Some(loss) => {
                std::mem::forget(staging);
                loss
            }
            None => {
                staging.wipe();
                self.free_staging.push(staging);
                DeviceError::Run(error.into())
            }
        }
    }
}

/// Keeps freed GPU memory in the pool of the process, so that loading a model again does not ask
/// the driver.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute has 64 bits, and the driver reads them before it returns.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
    }
}
