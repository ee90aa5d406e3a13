//! The `menshen` binary: see the library's crate documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    menshen::cli::main()
}
