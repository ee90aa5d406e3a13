//! Buffers of bytes that start at a page.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// Zeroed bytes at the start of a page, which is more than any vector instruction asks for; of a
/// huge page when they fill one, so that the processor finds them with few look-ups.
#[derive(Debug)]
pub(super) struct Buffer {
    start: *mut u8,
    layout: Layout,
}

/// Bytes of a page.
const PAGE: usize = 4 << 10;

/// Bytes of a huge page on x86-64 and aarch64.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes behind the last one that tests fill with [`POISON`].
const GUARD: usize = if cfg!(test) { 256 } else { 0 };

/// What tests fill memory with that nobody may read or write: not a number, in every format.
pub(super) const POISON: u8 = 0xff;

// SAFETY: the buffer owns its bytes and gives them away only as pointers; who writes through them
// sees to it that nobody else reads or writes the same bytes meanwhile.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `bytes` zeros.
    pub(super) fn zeroed(bytes: usize) -> Self {
        let page = if bytes < HUGE_PAGE { PAGE } else { HUGE_PAGE };
        let size = (bytes + GUARD).max(PAGE).next_multiple_of(page);
        let layout = Layout::from_size_align(size, page)
            .expect("sizes were checked when the graph was imported");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        if page == HUGE_PAGE {
            use rustix::mm::{Advice, madvise};
            // SAFETY: advice changes no content. A kernel without huge pages says no, which costs
            // speed only.
            let _ = unsafe { madvise(start.cast(), layout.size(), Advice::LinuxHugepage) };
        }
        if cfg!(test) {
            // SAFETY: the bytes from the last one asked for to the last one allocated.
            unsafe { start.add(bytes).write_bytes(POISON, size - bytes) };
        }
        Self { start, layout }
    }

    /// The numbers, as packed weights are.
    pub(super) fn of<T: Copy>(numbers: &[T]) -> Self {
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
        self.layout.size()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody has the pointer any more.
        unsafe { dealloc(self.start, self.layout) }
    }
}
