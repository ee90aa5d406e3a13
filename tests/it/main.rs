//! Integration tests: one binary, one file per behaviour, against a real server on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broken_input;
mod command_line;
mod concurrency;
mod deadlines;
mod ensemble;
mod evaluation;
#[cfg(feature = "cuda")]
mod gpu;
mod latency;
mod layers;
mod lifecycle;
mod liveness;
mod load;
mod memory;
mod operations;
mod parity;
mod raw;
mod redis_server;
mod replay;
mod settings;
mod support;
mod verify;

/// The allocator of the server's binary, so that networks are as fast here as there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
