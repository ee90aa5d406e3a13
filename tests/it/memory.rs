//! Memory of a server with the models of this repository.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::repository;

/// Most resident MiB until the server is ready, on two threads. Each thread has 42 MiB to run
/// networks in; 240 MiB in all are usual.
const START_MIB_MAX: u64 = 350;

/// A `menshen serve` process, killed on drop.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Returns the peak of the process's resident memory in MiB.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib >> 10
}

#[test]
fn a_server_with_all_default_models_starts_in_little_memory() {
    let server = Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .args(["--precision", "f32", "--threads", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = ServerProcess(server);
    let output = BufReader::new(server.0.stdout.take().unwrap());
    let mut lines = output.lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"));
    let peak = peak_mib(server.0.id());
    assert!(peak < START_MIB_MAX, "{peak} MiB");
}
