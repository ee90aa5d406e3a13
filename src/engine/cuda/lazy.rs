//! Loads CUDA's libraries at their first call instead of at the start of the process, so that one
//! binary runs on hosts with and without a driver.
//!
//! candle links against the libraries. To satisfy the linker, `build.rs` writes a trampoline for
//! each function that cudarc declares (`symbols.txt` lists them). At its first call a trampoline
//! looks the function up; from then on it is one jump. A function that does not exist returns an
//! error code of its library. On processors other than x86-64 the libraries are linked in the usual
//! way.

use std::fmt;

/// A library of the CUDA toolkit or driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// The driver.
    Cuda,
    /// Matrix products. cuBLAS itself needs cuBLASLt.
    CuBlas,
    /// Random numbers. candle opens a generator with each device.
    CuRand,
    /// Convolutions. Without cuDNN networks run more slowly.
    CuDnn,
}

impl Library {
    /// All libraries, the required ones first.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::CuBlas, Self::CuRand, Self::CuDnn];

    /// True if GPUs can be used without the library.
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

/// Returns the loader's message if the library cannot be loaded, or `None` if it can.
pub fn missing(library: Library) -> Option<String> {
    loading::open(library.key()).err()
}

/// Returns the first required library that cannot be loaded, with the loader's message.
pub fn first_missing() -> Option<(Library, String)> {
    let needed = Library::ALL.into_iter().filter(|library| !library.is_optional());
    needed.filter_map(|library| missing(library).map(|reason| (library, reason))).next()
}

mod loading {
    use std::collections::HashMap;
    use std::ffi::{CStr, CString, c_void};
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    /// The handle of an open library, or the reason why it could not be opened.
    type LoadResult = Result<usize, String>;

    /// Opens a library, once in the life of the process.
    pub(super) fn open(library: &'static str) -> LoadResult {
        // A global is needed here: the loader itself is global, and trampolines have no argument
        // that could refer to a table.
        static LOADED: OnceLock<Mutex<HashMap<&'static str, LoadResult>>> = OnceLock::new();
        let mut loaded = LOADED.get_or_init(Mutex::default).lock();
        loaded.entry(library).or_insert_with(|| load(library)).clone()
    }

    fn load(library: &str) -> LoadResult {
        let mut reason = String::new();
        for version in versions(library) {
            let name = CString::new(format!("lib{library}.so.{version}"))
                .expect("names of libraries hold no zero");
            // SAFETY: the name ends with a zero. The code that the libraries run when they are
            // loaded is NVIDIA's.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if !handle.is_null() {
                return Ok(handle as usize);
            }
            if reason.is_empty() {
                // SAFETY: `dlopen` has just failed on this thread, so there is a message.
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

        // `SYMBOLS`: the library and the function name of each slot.
        include!(concat!(env!("OUT_DIR"), "/trampolines.rs"));

        unsafe extern "C" {
            /// The address to which each trampoline jumps: at first its own second half, which
            /// calls `cuda_lazy_resolve`.
            static cuda_lazy_slots: [AtomicPtr<c_void>; SYMBOLS.len()];
        }

        /// `CUDA_ERROR_STUB_LIBRARY`.
        extern "C" fn driver_missing() -> u64 {
            34
        }

        /// `CUBLAS_STATUS_NOT_INITIALIZED` and similar codes: 1 is an error in every library except
        /// the runtime.
        extern "C" fn library_missing() -> u64 {
            1
        }

        /// Success, for the registration of kernels with the runtime. Those kernels are never
        /// called.
        extern "C" fn runtime_missing() -> u64 {
            0
        }

        /// Returns the function of a slot, and lets the trampoline of the slot jump to it from now
        /// on. Trampolines call this at their first call.
        // SAFETY: only `trampolines.s` uses this symbol name.
        #[unsafe(no_mangle)]
        extern "C" fn cuda_lazy_resolve(slot: usize) -> *const c_void {
            let (library, name) = SYMBOLS[slot];
            let found = match super::open(library) {
                // SAFETY: the handle is never closed, and the name ends with a zero.
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
