//! Buffers of bytes that start at a page.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Zeroed bytes at the start of a page, which is more than any vector instruction asks for; of a
/// huge page when they fill one, so that the processor finds them with few look-ups.
///
/// They come from the system, not from the allocator: they live as long as their network, and an
/// allocator that cuts them out of regions of its own keeps what is left over. They take up as much
/// memory as is asked for and none when they are dropped, and whoever reads or writes in front of
/// their first page or behind their last one is stopped.
#[derive(Debug)]
pub(super) struct Buffer {
    start: *mut u8,
    bytes: usize,
    /// The bytes with a page that nobody may touch on either side.
    mapping: *mut u8,
    mapped_bytes: usize,
}

/// Bytes of the largest page that a system for this processor has.
const PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };

/// Bytes of a huge page on x86-64 and aarch64.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes behind the last one that tests fill with [`POISON`].
const GUARD_BYTES: usize = if cfg!(test) { 256 } else { 0 };

/// What tests fill memory with that nobody may read or write: not a number, in every format.
pub(super) const POISON: u8 = 0xff;

// SAFETY: the buffer owns its bytes and gives them away only as pointers; who writes through them
// sees to it that nobody else reads or writes the same bytes meanwhile.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `bytes` zeros.
    ///
    /// # Panics
    /// When the system has no more memory.
    pub(super) fn zeroed(bytes: usize) -> Self {
        let size = (bytes + GUARD_BYTES).next_multiple_of(PAGE_BYTES);
        let page_bytes = if size < HUGE_PAGE_BYTES { PAGE_BYTES } else { HUGE_PAGE_BYTES };
        // In front, a page and as much as it may be to the next huge one; behind, a page. What is
        // never touched takes up nothing.
        let mapped_bytes = page_bytes + size + PAGE_BYTES;
        // SAFETY: the system chooses a place that is free, and all pointers lie in it.
        let (mapping, start) = unsafe {
            let nowhere = std::ptr::null_mut();
            let mapping =
                mmap_anonymous(nowhere, mapped_bytes, ProtFlags::empty(), MapFlags::PRIVATE);
            let mapping = mapping.expect("there are addresses for a network").cast::<u8>();
            let after_page = mapping.add(PAGE_BYTES);
            let start = after_page.add(after_page.align_offset(page_bytes));
            mprotect(start.cast(), size, MprotectFlags::READ | MprotectFlags::WRITE)
                .expect("there is memory for a network");
            (mapping, start)
        };
        #[cfg(target_os = "linux")]
        if page_bytes == HUGE_PAGE_BYTES {
            use rustix::mm::{Advice, madvise};
            // Only whole huge pages, so that the last one takes up no more than its part.
            let whole = size / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            // SAFETY: advice changes no content. A kernel without huge pages says no, which costs
            // speed only.
            let _ = unsafe { madvise(start.cast(), whole, Advice::LinuxHugepage) };
        }
        if cfg!(test) {
            // SAFETY: the bytes from the last one asked for to the last one of its page.
            unsafe { start.add(bytes).write_bytes(POISON, size - bytes) };
        }
        Self { start, bytes: size, mapping, mapped_bytes }
    }

    /// The numbers, as packed weights are.
    pub(super) fn from_slice<T: Copy>(numbers: &[T]) -> Self {
        let buffer = Self::zeroed(size_of_val(numbers));
        // SAFETY: the buffer is as long as the numbers and is nobody else's yet.
        unsafe {
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), buffer.start.cast(), numbers.len());
        }
        buffer
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and nobody has the pointer any more.
        let unmapped = unsafe { munmap(self.mapping.cast(), self.mapped_bytes) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}
