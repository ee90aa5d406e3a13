//! CUDA's libraries, loaded when they are first called and not when the process starts, so that one
//! binary runs on hosts with and without a driver.
//!
//! candle links against the libraries. `build.rs` writes a trampoline for each of their functions
//! (`symbols.txt` lists those that cudarc declares), which satisfies the linker: at its first call
//! it looks the function up, and from then on it is one jump. What is not there answers with the
//! error of its library. On processors other than x86-64 the libraries are linked plainly.

use std::fmt;

/// A library of the CUDA toolkit or driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// The driver.
    Cuda,
    /// Matrix products; it needs cuBLASLt beside it.
    CuBlas,
    /// Random numbers: candle opens a generator with each device.
    CuRand,
    /// Convolutions; networks run without it, more slowly.
    CuDnn,
}

impl Library {
    /// All of them, those first that nothing runs without.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::CuBlas, Self::CuRand, Self::CuDnn];

    /// Whether GPUs can be used without it.
    pub fn is_optional(self) -> bool {
        self == Self::CuDnn
    }

    fn key(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::CuBlas => "cublas",
            Self::CuRand => "curand",
            Self::CuDnn => "cudnn",
        }
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cuda => "the NVIDIA driver (libcuda.so.1)",
            Self::CuBlas => "cuBLAS (libcublas.so.13 or .12)",
            Self::CuRand => "cuRAND (libcurand.so.10)",
            Self::CuDnn => "cuDNN (libcudnn.so.9)",
        })
    }
}

/// The loader's own words when `library` cannot be loaded; `None` when it is there.
pub fn missing(library: Library) -> Option<String> {
    loading::open(library.key()).err()
}

/// The first library that GPUs cannot be used without and that is not there, with the loader's words.
pub fn first_missing() -> Option<(Library, String)> {
    let needed = Library::ALL.into_iter().filter(|library| !library.is_optional());
    needed.filter_map(|library| missing(library).map(|reason| (library, reason))).next()
}

mod loading {
    use std::collections::HashMap;
    use std::ffi::{CStr, CString, c_void};
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    /// An open library's handle, or why it could not be opened.
    type LoadResult = Result<usize, String>;

    /// Opens a library once in the life of the process.
    pub(super) fn open(library: &'static str) -> LoadResult {
        // The one global: the loader itself is one, and trampolines have no argument to find
        // anything by.
        static LOADED: OnceLock<Mutex<HashMap<&'static str, LoadResult>>> = OnceLock::new();
        let mut loaded = LOADED.get_or_init(Mutex::default).lock();
        loaded.entry(library).or_insert_with(|| load(library)).clone()
    }

    fn load(library: &str) -> LoadResult {
        let mut reason = String::new();
        for version in versions(library) {
            let name = CString::new(format!("lib{library}.so.{version}"))
                .expect("names of libraries hold no zero");
            // SAFETY: the name ends with a zero; the libraries' start-up code is NVIDIA's.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if !handle.is_null() {
                return Ok(handle as usize);
            }
            if reason.is_empty() {
                // SAFETY: the call before failed on this thread, so there is a message.
                let message = unsafe { CStr::from_ptr(libc::dlerror()) };
                reason = message.to_string_lossy().into_owned();
            }
        }
        Err(reason)
    }

    fn versions(library: &str) -> &'static [&'static str] {
        match library {
            "cuda" => &["1"],
            "curand" => &["10"],
            "cudnn" => &["9"],
            _ => &["13", "12"],
        }
    }

    #[cfg(target_arch = "x86_64")]
    mod trampolines {
        use super::{CStr, c_void};
        use std::sync::atomic::{AtomicPtr, Ordering};

        core::arch::global_asm!(
            include_str!(concat!(env!("OUT_DIR"), "/trampolines.s")),
            options(att_syntax)
        );

        // SYMBOLS: the library and the name behind each slot.
        include!(concat!(env!("OUT_DIR"), "/trampolines.rs"));

        unsafe extern "C" {
            /// Where each trampoline jumps to; in the beginning to its own second half.
            static cuda_lazy_slots: [AtomicPtr<c_void>; SYMBOLS.len()];
        }

        /// `CUDA_ERROR_STUB_LIBRARY`.
        extern "C" fn driver_missing() -> u64 {
            34
        }

        /// `CUBLAS_STATUS_NOT_INITIALIZED` and the like: 1 in every library but the runtime.
        extern "C" fn library_missing() -> u64 {
            1
        }

        /// What the runtime's registration of kernels, which are not called, may take for done.
        extern "C" fn runtime_missing() -> u64 {
            0
        }

        /// Called by a trampoline for the function of its slot.
        // SAFETY: the name is known to `trampolines.s` alone.
        #[unsafe(no_mangle)]
        extern "C" fn cuda_lazy_resolve(slot: usize) -> *const c_void {
            let (library, name) = SYMBOLS[slot];
            let found = match super::open(library) {
                // SAFETY: the handle is open for good, the name ends with a zero.
                Ok(handle) => unsafe { libc::dlsym(handle as *mut c_void, name.as_ptr()) },
                Err(_) => std::ptr::null_mut(),
            };
            let target = match (found.is_null(), library) {
                (false, _) => found,
                (true, "cuda") => driver_missing as *mut c_void,
                (true, "cudart") => runtime_missing as *mut c_void,
                (true, _) => library_missing as *mut c_void,
            };
            // SAFETY: `trampolines.s` defines as many slots as there are symbols.
            let slots = unsafe { &cuda_lazy_slots };
            slots[slot].store(target, Ordering::Release);
            target
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_names_a_library_that_does_not_exist() {
        let reason = loading::open("menshen-has-no-such").unwrap_err();
        assert!(reason.contains("libmenshen-has-no-such.so.13"), "{reason}");
    }
}
