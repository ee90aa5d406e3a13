//! Page-aligned memory, mapped from the operating system.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Zeroed bytes at the start of a page, which is more alignment than any vector instruction needs.
/// A size of at least a huge page starts at a huge page, which saves entries of the TLB.
///
/// The memory comes from the system, not from the allocator. It lives as long as its network, and
/// an allocator that cuts it out of its own regions keeps the unused rest. A mapping takes as much
/// memory as it was asked for, and none once it is dropped. Any access to the pages just before or
/// after the bytes is a fault.
#[derive(Debug)]
pub(super) struct MappedMemory {
    start: *mut u8,
    bytes: usize,
    /// The mapping: the bytes, with at least one inaccessible page on either side.
    mapping: *mut u8,
    mapped_bytes: usize,
}

/// Bytes of the largest base page that systems use on this architecture.
const PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };

/// Bytes of a huge page on x86-64 and aarch64.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes after the last requested one. Tests fill them with [`POISON`].
const MAPPING_GUARD_BYTES: usize = if cfg!(test) { 256 } else { 0 };

/// Tests fill memory that no kernel may use with this byte. In every format it makes a NaN.
pub(super) const POISON: u8 = 0xff;

// SAFETY: the mapping owns its bytes and gives them out only as pointers. Code that writes through
// such a pointer makes sure that no other thread uses the same bytes.
unsafe impl Send for MappedMemory {}
// SAFETY: as above.
unsafe impl Sync for MappedMemory {}

impl MappedMemory {
    /// Maps `bytes` zeros, rounded up to whole pages.
    ///
    /// # Panics
    /// If the system has no more memory.
    pub(super) fn zeroed(bytes: usize) -> Self {
        let size = (bytes + MAPPING_GUARD_BYTES).next_multiple_of(PAGE_BYTES);
        let page_bytes = if size < HUGE_PAGE_BYTES { PAGE_BYTES } else { HUGE_PAGE_BYTES };
        // Before the bytes lie a guard page and the bytes up to the next huge page, after it a
        // guard page. Pages that are never touched take no memory.
        let mapped_bytes = page_bytes + size + PAGE_BYTES;
        // SAFETY: the system chooses a free address range, and all pointers lie in it.
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
            // Only whole huge pages, so that the last one takes no more memory than its part.
            let whole = size / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            // SAFETY: the advice changes no content. A kernel without huge pages refuses it, which
            // costs speed only.
            let _ = unsafe { madvise(start.cast(), whole, Advice::LinuxHugepage) };
        }
        if cfg!(test) {
            // SAFETY: the bytes from the last requested one to the end of its page are mapped.
            unsafe { start.add(bytes).write_bytes(POISON, size - bytes) };
        }
        Self { start, bytes: size, mapping, mapped_bytes }
    }

    /// Maps memory that holds a copy of `numbers`.
    pub(super) fn from_slice<T: Copy>(numbers: &[T]) -> Self {
        let memory = Self::zeroed(size_of_val(numbers));
        // SAFETY: the memory is as long as `numbers`, and no other code has its pointer yet.
        unsafe {
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), memory.start.cast(), numbers.len());
        }
        memory
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and no pointer to it is used after the drop.
        let unmapped = unsafe { munmap(self.mapping.cast(), self.mapped_bytes) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}
