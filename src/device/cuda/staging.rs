//! A batch's place on its way: pinned memory of the host, and its pictures on the GPU: where each
//! one lies, and their pixels.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, PinnedHostSlice, result,
    sys,
};

use crate::engine::cuda::Picture;
use crate::image::RgbImage;
use crate::trust::Wipe;

/// Memory for one batch of any model; it grows when models are loaded.
pub(super) struct StagingBuffer {
    context: Arc<CudaContext>,
    /// `None` before a model is loaded.
    allocation: Option<Allocation>,
    /// The pixels are on the GPU.
    uploaded: CudaEvent,
    /// The results are in the host's memory.
    finished: CudaEvent,
}

struct Allocation {
    pinned_pixels: PinnedHostSlice<u8>,
    gpu_pixels: CudaSlice<u8>,
    pinned_results: PinnedHostSlice<f32>,
    /// Bytes of pixels that the batch in this buffer has.
    used_bytes: usize,
    /// Results that the batch in this buffer has.
    used_floats: usize,
}

impl StagingBuffer {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        // The host sleeps while it waits.
        let finished = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC;
        Ok(Self {
            context: Arc::clone(context),
            allocation: None,
            uploaded: context.new_event(None)?,
            finished: context.new_event(Some(finished))?,
        })
    }

    /// Makes room for `bytes` of pixels and `floats` of results.
    pub(super) fn grow(
        &mut self,
        stream: &Arc<CudaStream>,
        bytes: usize,
        floats: usize,
    ) -> Result<(), DriverError> {
        let current = self.allocation.as_ref();
        let current_bytes = current.map_or(0, |allocation| allocation.pinned_pixels.len());
        let current_floats = current.map_or(0, |allocation| allocation.pinned_results.len());
        if bytes <= current_bytes && floats <= current_floats {
            return Ok(());
        }
        let (bytes, floats) = (bytes.max(current_bytes), floats.max(current_floats));
        // The old allocation stays until the new one is made: the buffer must serve on when memory
        // is short.
        // SAFETY: numbers of any value are valid; results are read only after they were written.
        // Without flags the memory is cached, as the host reads it.
        let (mut pinned_pixels, mut pinned_results) = unsafe {
            (
                self.context.alloc_pinned_with_flags::<u8>(bytes, 0)?,
                self.context.alloc_pinned_with_flags::<f32>(floats, 0)?,
            )
        };
        pinned_pixels.as_mut_slice()?.fill(0);
        pinned_results.as_mut_slice()?.fill(0.0);
        let gpu_pixels = stream.alloc_zeros::<u8>(bytes)?;
        self.allocation = Some(Allocation {
            pinned_pixels,
            gpu_pixels,
            pinned_results,
            used_bytes: 0,
            used_floats: 0,
        });
        Ok(())
    }

    /// Copies rows into the slot and enqueues their upload, which `compute` waits for.
    pub(super) fn upload(
        &mut self,
        copy_stream: &Arc<CudaStream>,
        compute_stream: &Arc<CudaStream>,
        rows: &[RgbImage],
    ) -> Result<(), DriverError> {
        let allocation =
            self.allocation.as_mut().expect("staging buffers grow when models are loaded");
        let mut len = rows.len() * Picture::BYTES;
        let staged = allocation.pinned_pixels.as_mut_slice()?;
        for (index, row) in rows.iter().enumerate() {
            let [start, width, height] = [len, row.width(), row.height()].map(|n| n as u32);
            let picture = Picture { start, width, height }.bytes();
            staged[index * Picture::BYTES..][..Picture::BYTES].copy_from_slice(&picture);
            let bytes = row.pixels();
            staged[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        }
        allocation.used_bytes = len;
        let to = allocation.gpu_pixels.device_ptr(copy_stream).0;
        // SAFETY: the slot is used by one batch at a time, which is finished before it is used
        // again; both memories hold as many bytes.
        unsafe { result::memcpy_htod_async(to, &staged[..len], copy_stream.cu_stream()) }?;
        self.uploaded.record(copy_stream)?;
        compute_stream.wait(&self.uploaded)
    }

    /// The address of the pixels on the GPU.
    pub(super) fn pixels_address(&self, compute_stream: &Arc<CudaStream>) -> u64 {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        allocation.gpu_pixels.device_ptr(compute_stream).0
    }

    /// Enqueues wiping the pixels on the GPU, which have been read.
    pub(super) fn enqueue_wipe_of_pixels(
        &self,
        compute_stream: &Arc<CudaStream>,
    ) -> Result<(), DriverError> {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        let (address, _held) = allocation.gpu_pixels.device_ptr(compute_stream);
        // SAFETY: as many bytes were uploaded.
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
        // SAFETY: nobody reads the slot before the event below has come.
        unsafe { result::memcpy_dtoh_async(to, from, compute_stream.cu_stream()) }?;
        self.finished.record(compute_stream)
    }

    /// Whether [`StagingBuffer::wait`] would return at once.
    pub(super) fn has_run(&self) -> bool {
        !matches!(self.finished.try_is_complete(), Ok(false))
    }

    /// Sleeps until the results are there.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        self.finished.synchronize()
    }

    /// The first `len` results, after [`StagingBuffer::wait`].
    pub(super) fn results(&self, len: usize) -> &[f32] {
        let allocation =
            self.allocation.as_ref().expect("staging buffers grow when models are loaded");
        let all = allocation.pinned_results.as_slice().expect("no copy into the buffer is pending");
        &all[..len]
    }

    /// Overwrites what the batch left in the host's memory.
    pub(super) fn wipe(&mut self) {
        let Some(allocation) = &mut self.allocation else { return };
        if let Ok(pixels) = allocation.pinned_pixels.as_mut_slice() {
            pixels[..allocation.used_bytes].wipe();
        }
        if let Ok(results) = allocation.pinned_results.as_mut_slice() {
            results[..allocation.used_floats].wipe();
        }
    }
}
