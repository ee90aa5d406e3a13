//! The `menshen` binary. See the documentation of the library crate.

use std::process::ExitCode;

/// Networks allocate and free megabytes at every step. The allocator of the system returns them to
/// the kernel each time, which made a batch of 8 up to six times slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    menshen::cli::main()
}
