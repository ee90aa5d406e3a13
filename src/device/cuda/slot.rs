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
pub(super) struct Slot {
    context: Arc<CudaContext>,
    /// `None` before a model is loaded.
    memory: Option<Memory>,
    /// The pixels are on the GPU.
    uploaded: CudaEvent,
    /// The results are in the host's memory.
    finished: CudaEvent,
}

struct Memory {
    staged: PinnedHostSlice<u8>,
    pixels: CudaSlice<u8>,
    results: PinnedHostSlice<f32>,
    /// Bytes and floats the batch in this slot has.
    used: [usize; 2],
}

impl Slot {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        // The host sleeps while it waits.
        let finished = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC;
        Ok(Self {
            context: Arc::clone(context),
            memory: None,
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
        let held = self.memory.as_ref().map_or([0, 0], |m| [m.staged.len(), m.results.len()]);
        if bytes <= held[0] && floats <= held[1] {
            return Ok(());
        }
        let (bytes, floats) = (bytes.max(held[0]), floats.max(held[1]));
        // What is held stays until there is more: a slot must serve on when memory is short.
        // SAFETY: numbers of any value are valid; results are read only after they were written.
        // Without flags the memory is cached, as the host reads it.
        let (mut staged, mut results) = unsafe {
            (
                self.context.alloc_pinned_with_flags::<u8>(bytes, 0)?,
                self.context.alloc_pinned_with_flags::<f32>(floats, 0)?,
            )
        };
        staged.as_mut_slice()?.fill(0);
        results.as_mut_slice()?.fill(0.0);
        let pixels = stream.alloc_zeros::<u8>(bytes)?;
        self.memory = Some(Memory { staged, pixels, results, used: [0, 0] });
        Ok(())
    }

    /// Copies rows into the slot and enqueues their upload, which `compute` waits for.
    pub(super) fn upload(
        &mut self,
        copies: &Arc<CudaStream>,
        compute: &Arc<CudaStream>,
        rows: &[RgbImage],
    ) -> Result<(), DriverError> {
        let memory = self.memory.as_mut().expect("slots grow when models are loaded");
        let mut len = rows.len() * Picture::BYTES;
        let staged = memory.staged.as_mut_slice()?;
        for (index, row) in rows.iter().enumerate() {
            let [start, width, height] = [len, row.width(), row.height()].map(|n| n as u32);
            let picture = Picture { start, width, height }.bytes();
            staged[index * Picture::BYTES..][..Picture::BYTES].copy_from_slice(&picture);
            let bytes = row.pixels();
            staged[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        }
        memory.used[0] = len;
        let to = memory.pixels.device_ptr(copies).0;
        // SAFETY: the slot is used by one batch at a time, which is finished before it is used
        // again; both memories hold as many bytes.
        unsafe { result::memcpy_htod_async(to, &staged[..len], copies.cu_stream()) }?;
        self.uploaded.record(copies)?;
        compute.wait(&self.uploaded)
    }

    /// The address of the pixels on the GPU.
    pub(super) fn pixels(&self, compute: &Arc<CudaStream>) -> u64 {
        let memory = self.memory.as_ref().expect("slots grow when models are loaded");
        memory.pixels.device_ptr(compute).0
    }

    /// Enqueues wiping the pixels on the GPU, which have been read.
    pub(super) fn forget_pixels(&self, compute: &Arc<CudaStream>) -> Result<(), DriverError> {
        let memory = self.memory.as_ref().expect("slots grow when models are loaded");
        let (address, _held) = memory.pixels.device_ptr(compute);
        // SAFETY: as many bytes were uploaded.
        unsafe { result::memset_d8_async(address, 0, memory.used[0], compute.cu_stream()) }
    }

    /// Enqueues the download of the first `len` results.
    pub(super) fn download(
        &mut self,
        compute: &Arc<CudaStream>,
        results: &CudaSlice<f32>,
        len: usize,
    ) -> Result<(), DriverError> {
        let memory = self.memory.as_mut().expect("slots grow when models are loaded");
        let (from, _held) = results.device_ptr(compute);
        memory.used[1] = len;
        let to = &mut memory.results.as_mut_slice()?[..len];
        // SAFETY: nobody reads the slot before the event below has come.
        unsafe { result::memcpy_dtoh_async(to, from, compute.cu_stream()) }?;
        self.finished.record(compute)
    }

    /// Whether [`Slot::wait`] would return at once.
    pub(super) fn has_run(&self) -> bool {
        !matches!(self.finished.try_is_complete(), Ok(false))
    }

    /// Sleeps until the results are there.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        self.finished.synchronize()
    }

    /// The first `len` results, after [`Slot::wait`].
    pub(super) fn results(&self, len: usize) -> &[f32] {
        let memory = self.memory.as_ref().expect("slots grow when models are loaded");
        let all = memory.results.as_slice().expect("no copy is left that could fail");
        &all[..len]
    }

    /// Overwrites what the batch left in the host's memory.
    pub(super) fn wipe(&mut self) {
        let Some(Memory { staged, results, used: [bytes, floats], .. }) = &mut self.memory else {
            return;
        };
        if let Ok(staged) = staged.as_mut_slice() {
            staged[..*bytes].wipe();
        }
        if let Ok(results) = results.as_mut_slice() {
            results[..*floats].wipe();
        }
    }
}
