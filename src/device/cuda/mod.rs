//! A GPU: rows into a pinned slot, upload on one stream, network on another, results into the slot.
//!
//! ```text
//! copies:   upload n ─┐ upload n+1 ─┐
//! compute:            └ pixels → network → results n └ pixels → network → results n+1
//! ```
//!
//! A batch that was started needs the host only when it is finished, so the upload of the next one
//! overlaps its computing. Everything of a GPU is used by the one thread that opened it.

#![expect(unsafe_code, reason = "the driver's calls are foreign; each block says why it may")]

mod fault;
mod listing;
mod requirement;
mod resident;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device as CandleDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaStream, DriverError, result, sys,
};

use self::fault::Faults;
use self::requirement::{Identity, check_driver, driver_version};
use self::resident::Resident;
use self::slot::Slot;
use super::loaded::ModelKey;
use super::placement::DEVICES_MAX;
use super::{CudaSettings, DeviceDescription, DeviceError, LoadedModel, RowOutput};
use crate::engine::cuda::{Gpu, GpuError, Picture, lazy};
use crate::engine::{EngineError, Precision};
use crate::image::RgbImage;
use crate::model::Package;

pub(super) use listing::survey;
pub use requirement::Unmet;

/// An open GPU with its networks.
pub(super) struct CudaMachine {
    number: usize,
    settings: CudaSettings,
    slots: usize,
    /// `None` while it is lost.
    open: Option<Open>,
}

/// What a lost GPU takes with it.
struct Open {
    gpu: Arc<Gpu>,
    copies: Arc<CudaStream>,
    networks: BTreeMap<ModelKey, Resident>,
    /// Those no batch is in; the front one has been free longest.
    free: Vec<Slot>,
    faults: Faults,
}

/// A batch on its way through the GPU.
pub(super) struct EnqueuedBatch {
    slot: Slot,
    key: ModelKey,
    rows: usize,
    bucket: usize,
}

impl EnqueuedBatch {
    /// Whether its results are there, or an error that [`CudaMachine::finish`] will tell.
    pub(super) fn has_run(&self) -> bool {
        self.slot.has_run()
    }
}

impl CudaMachine {
    /// Opens a GPU, on the thread that will drive it.
    pub(super) fn open(
        number: usize,
        slots: usize,
        settings: CudaSettings,
        chosen: &str,
    ) -> Result<(Self, DeviceDescription), DeviceError> {
        check_number(number)?;
        let open = Open::new(number, slots).map_err(opening(number))?;
        let description = open.describe(number, chosen).map_err(opening(number))?;
        Ok((Self { number, settings, slots, open: Some(open) }, description))
    }

    /// Libraries choose other algorithms for other batches, which sum in other orders.
    pub(super) fn bucket_tolerance(precision: Precision) -> f32 {
        match precision {
            Precision::F32 => 1e-4,
            // Of two algorithms one may cut factors to 10 bits and the other not: then answers are
            // apart by as much as TF32 moves them: 1.5e-2 of the largest value, or of 1, at most
            // (fr_liveness, `golden.tolerance_tf32` in `models`).
            Precision::Tf32 => 5e-2,
            Precision::F16 | Precision::Bf16 => 1e-2,
        }
    }

    /// Uploads the model's network, captures its buckets, and keeps it under the model's key.
    pub(super) fn load(
        &mut self,
        model: &LoadedModel,
        package: &Package,
    ) -> Result<(), DeviceError> {
        let open = self.open.as_mut().ok_or(DeviceError::OutOfService)?;
        let manifest = model.manifest();
        let graph = package
            .graph_for(&manifest.input)
            .map_err(|source| DeviceError::Read { model: model.id(), source: Box::new(source) })?;
        let resident = Resident::load(&graph, &open.gpu, manifest, self.settings.graphs);
        let resident = resident.map_err(|source| open.load_error(model, source))?;
        let rows_max = manifest.buckets.iter().copied().max().unwrap_or(1);
        let bytes = rows_max * (Picture::BYTES + manifest.input.row_len());
        let grown = open.grow_slots(bytes, resident.results_len(rows_max));
        grown.map_err(|error| open.load_error(model, error.into()))?;
        open.networks.insert(model.key(), resident);
        Ok(())
    }

    pub(super) fn unload(&mut self, key: ModelKey) {
        if let Some(open) = &mut self.open {
            open.networks.remove(&key);
        }
    }

    /// Stages rows, enqueues everything and returns.
    pub(super) fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<EnqueuedBatch, DeviceError> {
        let open = self.open.as_mut().ok_or(DeviceError::OutOfService)?;
        if rows.is_empty() || rows.len() > bucket || !model.buckets().contains(&bucket) {
            return Err(DeviceError::Bucket { rows: rows.len(), bucket });
        }
        let contract = &model.manifest().input;
        rows.iter().try_for_each(|row| contract.check(row))?;
        let key = model.key();
        if !open.networks.contains_key(&key) {
            return Err(DeviceError::NotLoaded { model: model.id() });
        }
        let mut slot = open.free.pop().expect("no more batches are started than there are slots");
        match open.enqueue(&mut slot, key, rows, bucket) {
            Ok(()) => Ok(EnqueuedBatch { slot, key, rows: rows.len(), bucket }),
            Err(error) => Err(open.give_up(slot, error)),
        }
    }

    /// Waits for a batch and takes its results out of its slot.
    pub(super) fn finish(&mut self, batch: EnqueuedBatch) -> Result<Vec<RowOutput>, DeviceError> {
        let open = self.open.as_mut().ok_or(DeviceError::OutOfService)?;
        let EnqueuedBatch { mut slot, key, rows, bucket } = batch;
        if let Err(error) = slot.wait() {
            return Err(open.give_up(slot, error.into()));
        }
        let resident =
            open.networks.get(&key).expect("a batch keeps its model, and so its network");
        let outputs = resident.split(slot.results(resident.results_len(bucket)), rows, bucket);
        slot.wipe();
        open.free.push(slot);
        outputs
    }

    /// Throws away all that was on the GPU, and opens it again.
    pub(super) fn reopen(&mut self) -> Result<(), DeviceError> {
        // Freeing needs a context that works. The reset below frees what is on the GPU; the host's
        // part, some kilobytes, is given up, at most once for each of the bounded attempts to
        // reopen.
        std::mem::forget(self.open.take());
        reset(self.number).map_err(|error| opening(self.number)(error.into()))?;
        self.open = Some(Open::new(self.number, self.slots).map_err(opening(self.number))?);
        Ok(())
    }
}

impl Drop for CudaMachine {
    /// Libraries panic when they are closed on a GPU that is lost. Its reset, which frees what was
    /// on it, lets the process open it again.
    fn drop(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.faults.is_lost()) {
            std::mem::forget(self.open.take());
            if let Err(error) = reset(self.number) {
                tracing::warn!(number = self.number, %error, "a lost GPU could not be reset");
            }
        }
    }
}

/// Destroys the GPU's context with everything in it.
fn reset(number: usize) -> Result<(), DriverError> {
    let device = result::device::get(number as i32)?;
    // SAFETY: whatever used the context is gone; see above.
    unsafe { sys::cuDevicePrimaryCtxReset_v2(device) }.result()
}

/// The libraries are there, the driver knows the device, and both are new enough.
/// The GPUs that are there and new enough, without opening them; or why there is none.
pub(super) fn known_gpus() -> Result<Vec<usize>, String> {
    let known: Vec<usize> =
        (0..DEVICES_MAX).filter(|number| check_number(*number).is_ok()).collect();
    match check_number(0) {
        Err(why) if known.is_empty() => Err(why.to_string()),
        _ => Ok(known),
    }
}

/// Whether a GPU is there and new enough, without opening it.
pub(super) fn check_number(number: usize) -> Result<(), DeviceError> {
    if let Some((library, why)) = lazy::first_missing() {
        return Err(DeviceError::CudaLibrary { number, library: library.to_string(), why });
    }
    let fails = |error: DriverError| opening(number)(error.into());
    let refused = |unmet| DeviceError::CudaRequirement { number, unmet };
    check_driver(driver_version().map_err(fails)?).map_err(refused)?;
    let count = CudaContext::device_count().or_else(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        _ => Err(error),
    });
    let count = count.map_err(fails)? as usize;
    if number >= count {
        return Err(DeviceError::CudaNoDevice { number, count });
    }
    Identity::of(number).map_err(fails)?.check().map_err(refused)
}

fn opening(number: usize) -> impl Fn(GpuError) -> DeviceError {
    move |source| DeviceError::CudaOpen { number, source: Box::new(source) }
}

/// Opens a GPU for a benchmark that drives it itself, on the calling thread.
///
/// # Errors
/// A GPU that is not there, or does not open.
pub fn open_gpu_alone(number: usize) -> Result<Arc<Gpu>, DeviceError> {
    check_number(number)?;
    load_gpu(number).map_err(opening(number))
}

fn load_gpu(number: usize) -> Result<Arc<Gpu>, GpuError> {
    let device = CandleDevice::new_cuda_with_stream(number)?;
    let device = device.as_cuda_device()?.clone();
    // SAFETY: before anything is allocated; streams are ordered by events of our own.
    unsafe { device.disable_event_tracking() };
    let context = device.cuda_stream().context().clone();
    context.set_blocking_synchronize()?;
    keep_pool(&context)?;
    Ok(Arc::new(Gpu::load(&device)?))
}

impl Open {
    fn new(number: usize, slots: usize) -> Result<Self, GpuError> {
        let gpu = load_gpu(number)?;
        let context = Arc::clone(gpu.stream().context());
        let copies = context.new_stream()?;
        let free = (0..slots).map(|_| Slot::new(&context)).collect::<Result<_, _>>()?;
        let faults = Faults::new(number, context);
        Ok(Self { gpu, copies, networks: BTreeMap::new(), free, faults })
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

    fn grow_slots(&mut self, bytes: usize, floats: usize) -> Result<(), GpuError> {
        let stream = self.gpu.stream();
        self.free.iter_mut().try_for_each(|slot| slot.grow(stream, bytes, floats))?;
        Ok(stream.synchronize()?)
    }

    fn enqueue(
        &self,
        slot: &mut Slot,
        key: ModelKey,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<(), GpuError> {
        let (compute, resident) = (self.gpu.stream(), &self.networks[&key]);
        slot.upload(&self.copies, compute, rows)?;
        resident.enqueue_pixels(bucket, slot.pixels(compute), rows.len())?;
        slot.forget_pixels(compute)?;
        resident.enqueue_steps(bucket)?;
        slot.download(compute, resident.results(), resident.results_len(bucket))?;
        Ok(())
    }

    fn load_error(&self, model: &LoadedModel, source: EngineError) -> DeviceError {
        match source {
            EngineError::Gpu(error) if let Some(loss) = self.faults.loss(&error) => loss,
            source => DeviceError::Load { model: model.id(), source: Box::new(source) },
        }
    }

    /// After a failure: nothing may still be writing to the slot when it is used again.
    fn give_up(&mut self, mut slot: Slot, error: GpuError) -> DeviceError {
        if let Some(loss) = self.faults.loss(&error) {
            std::mem::forget(slot);
            return loss;
        }
        let compute = self.gpu.stream();
        let settled = self.copies.synchronize().and_then(|()| slot.forget_pixels(compute));
        let settled = settled.and_then(|()| compute.synchronize());
        let lost = settled.err().and_then(|error| self.faults.loss(&error.into()));
        match lost {
            Some(loss) => {
                std::mem::forget(slot);
                loss
            }
            None => {
                slot.wipe();
                self.free.push(slot);
                DeviceError::Run(error.into())
            }
        }
    }
}

/// Freed memory stays with the process, so that loading a model again does not ask the system.
fn keep_pool(context: &CudaContext) -> Result<(), DriverError> {
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is one of 64 bits, which are read before the return.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
    }
}
