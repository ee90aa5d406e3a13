//! The `menshen` binary: see the library's crate documentation.

fn main() {}
