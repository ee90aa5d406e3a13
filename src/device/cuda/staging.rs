//! Staging buffers of batches: pinned host memory, and the pictures on the GPU.
//!
//! The pictures are a header per picture (offset and size) and then the pixels of all pictures.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, PinnedHostSlice, result,
    sys,
};

use crate::engine::cuda::PictureHeader;
use crate::image::RgbImage;
use crate::trust::Wipe;

/// A staging buffer for one batch of any model. It grows when models are loaded.
pub(super) struct StagingBuffer {
    context: Arc<CudaContext>,
    /// `None` before a model is loaded.
    allocation: Option<Allocation>,
    /// Event after the upload of the pictures.
    uploaded: CudaEvent,
    /// Event after the download of the results.
    finished: CudaEvent,
}

struct Allocation {
    pinned_pictures: PinnedHostSlice<u8>,
    gpu_pictures: CudaSlice<u8>,
    pinned_results: PinnedHostSlice<f32>,
    /// Bytes of headers and pixels of the current batch.
    used_bytes: usize,
    /// Result values of the current batch.
    used_floats: usize,
}

impl StagingBuffer {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        // The host thread sleeps while it waits for this event.
        let finished = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC;
        Ok(Self {
            context: Arc::clone(context),
            allocation: None,
            uploaded: context.new_event(None)?,
            finished: context.new_event(Some(finished))?,
        })
    }

    /// Grows the buffer to at least `bytes` of headers and pixels and `floats` of results.
    pub(super) fn grow(
        &mut self,
        stream: &Arc<CudaStream>,
        bytes: usize,
        floats: usize,
    ) -> Result<(), DriverError> {
        let current = self.allocation.as_ref();
        let current_bytes = current.map_or(0, |allocation| allocation.pinned_pictures.len());
        let current_floats = current.map_or(0, |allocation| allocation.pinned_results.len());
        if bytes <= current_bytes && floats <= current_floats {
            return Ok(());
        }
        let (bytes, floats) = (bytes.max(current_bytes), floats.max(current_floats));
        // The old allocation stays until the new one succeeds: if memory is short, the buffer must
        // still work. Without flags the pinned memory is cached, because the host reads it.
        // SAFETY: any bit pattern is a valid number, and results are read only after they were
        // written.
        let (mut pinned_pictures, mut pinned_results) = unsafe {
            (
                self.context.alloc_pinned_with_flags::<u8>(bytes, 0)?,
                self.context.alloc_pinned_with_flags::<f32>(floats, 0)?,
            )
        };
        pinned_pictures.as_mut_slice()?.fill(0);
        pinned_results.as_mut_slice()?.fill(0.0);
        let gpu_pictures = stream.alloc_zeros::<u8>(bytes)?;
        self.allocation = Some(Allocation {
            pinned_pictures,
            gpu_pictures,
            pinned_results,
            used_bytes: 0,
            used_floats: 0,
        });
        Ok(())
    }

    /// Copies rows into pinned memory and enqueues their upload. `compute_stream` waits for the
    /// upload.
    pub(super) fn upload(
        &mut self,
        copy_stream: &Arc<CudaStream>,
        compute_stream: &Arc<CudaStream>,
        rows: &[RgbImage],
    ) -> Result<(), DriverError> {
        let allocation =
            self.allocation.as_mut().expect("staging buffers grow when models are loaded");
        let mut len = rows.len() * PictureHeader::BYTES;
        let staged = allocation.pinned_pictures.as_mut_slice()?;
        for (index, row) in rows.iter().enumerate() {
            let [start, width, height] = [len, row.width(), row.height()].map(|n| n as u32);
            let header = PictureHeader { start, width, height }.bytes();
            staged[index * PictureHeader::BYTES..][..PictureHeader::BYTES].copy_from_slice(&header);
            let bytes = row.pixels();
            staged[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        }
        allocation.used_bytes = len;
        let to = allocation.gpu_pictures.device_ptr(copy_stream).0;
        // SAFETY: one batch at a time uses the buffer, and is finished before the next one. Both
        // memories have at least `len` bytes.
        unsafe { result::memcpy_htod_async(to, &staged[..len], copy_stream.cu_stream()) }?;
        self.uploaded.record(copy_stream)?;
        compute_stream.wait(&self.uploaded)
    }

    /// Returns the device address of the pictures.
    pub(super) fn pictures_address(&self, compute_stream: &Arc<CudaStream>) -> u64 {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        allocation.gpu_pictures.device_ptr(compute_stream).0
    }

    /// Enqueues the overwriting of the pictures on the GPU with zeros, after the network has read
    /// them.
    pub(super) fn enqueue_wipe_of_pictures(
        &self,
        compute_stream: &Arc<CudaStream>,
    ) -> Result<(), DriverError> {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        let (address, _held) = allocation.gpu_pictures.device_ptr(compute_stream);
        // SAFETY: this number of bytes was uploaded.
        unsafe {
            result::memset_d8_async(address, 0, allocation.used_bytes, compute_stream.cu_stream())
        }
    }

    /// Enqueues the download of the first `len` results.
    pub(super) fn download(
        &mut self,
        compute_stream: &Arc<CudaStream>,
        results: &CudaSlice<f32>,
        len: usize,
    ) -> Result<(), DriverError> {
        let allocation =
            self.allocation.as_mut().expect("staging buffers grow when models are loaded");
        let (from, _held) = results.device_ptr(compute_stream);
        allocation.used_floats = len;
        let to = &mut allocation.pinned_results.as_mut_slice()?[..len];
        // SAFETY: the host reads the buffer only after the event below.
        unsafe { result::memcpy_dtoh_async(to, from, compute_stream.cu_stream()) }?;
        self.finished.record(compute_stream)
    }

    /// Returns whether [`StagingBuffer::wait`] would return at once.
    pub(super) fn has_run(&self) -> bool {
        !matches!(self.finished.try_is_complete(), Ok(false))
    }

    /// Waits until the results are in pinned memory.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        self.finished.synchronize()
    }

    /// Returns the first `len` results, after [`StagingBuffer::wait`].
    pub(super) fn results(&self, len: usize) -> &[f32] {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        let all = allocation.pinned_results.as_slice().expect("no copy into the buffer is pending");
        &all[..len]
    }

    /// Overwrites the data of the batch in pinned memory with zeros.
    pub(super) fn wipe(&mut self) {
        let Some(allocation) = &mut self.allocation else { return };
        if let Ok(pictures) = allocation.pinned_pictures.as_mut_slice() {
            pictures[..allocation.used_bytes].wipe();
        }
        if let Ok(results) = allocation.pinned_results.as_mut_slice() {
            results[..allocation.used_floats].wipe();
        }
    }
}
