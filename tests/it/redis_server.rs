//! A real Redis server for the tests, where `REDIS_SERVER` names its binary.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

/// Whether it was said that nothing runs against Redis.
static REPORTED: Once = Once::new();

/// Ports another process may take before the server does.
const STARTS_MAX: usize = 10;

/// A running server with nothing in it, killed on drop.
pub struct RedisServer {
    binary: PathBuf,
    options: Vec<String>,
    port: u16,
    folder: TempDir,
    process: Child,
}

impl RedisServer {
    /// Starts a server on a free port; `None`, and a line that says so, where no binary is named.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with further options.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let Some(binary) = std::env::var_os("REDIS_SERVER").map(PathBuf::from) else {
            REPORTED.call_once(report_not_run);
            return None;
        };
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            if let Some(process) = spawn(&binary, &options, port, &folder) {
                return Some(Self { binary, options, port, folder, process });
            }
        }
        panic!("{} does not start", binary.display());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on its port, empty.
    pub fn restart(&mut self) {
        self.process = spawn(&self.binary, &self.options, self.port, &self.folder)
            .expect("the port is still free");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// To the stream itself: what `eprintln!` says is kept back while tests pass.
fn report_not_run() {
    let line = b"replay: not run against Redis, as REDIS_SERVER names no binary of it\n";
    std::io::stderr().write_all(line).unwrap();
}

/// Starts the server and reads what it prints until it says that it is ready, or, as a replica,
/// that it has its master's data. `None` if it ends before that.
fn spawn(binary: &PathBuf, options: &[String], port: u16, folder: &TempDir) -> Option<Child> {
    let mut process = Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--repl-diskless-sync-delay", "0", "--dir"])
        .arg(folder.path())
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let is_replica = options.iter().any(|option| option == "--replicaof");
    let ready = if is_replica { "Finished with success" } else { "Ready to accept connections" };
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    if !lines.by_ref().any(|line| line.unwrap().contains(ready)) {
        process.wait().unwrap();
        return None;
    }
    // What it prints later must have somewhere to go.
    std::thread::spawn(move || lines.for_each(drop));
    Some(process)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
