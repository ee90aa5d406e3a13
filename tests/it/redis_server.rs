//! A real Redis server for the tests, if the variable `REDIS_SERVER` names its binary.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

/// Limits the report that nothing runs against Redis to one line.
static REPORTED: Once = Once::new();

/// Most starts: another process may take a free port before the server does.
const STARTS_MAX: usize = 10;

/// A running, empty server, killed on drop.
pub struct RedisServer {
    binary: PathBuf,
    options: Vec<String>,
    port: u16,
    folder: TempDir,
    process: Child,
}

impl RedisServer {
    /// Starts a server on a free port. Without a binary, reports so once and returns `None`.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with further options; see [`RedisServer::start`].
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

    /// Starts the server again on its port, empty.
    pub fn restart(&mut self) {
        self.process = spawn(&self.binary, &self.options, self.port, &self.folder)
            .expect("the port is still free");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // The test may have killed the process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes to the stream itself, since `eprintln!` is hidden while tests pass.
fn report_not_run() {
    let line = b"replay: not run against Redis, as REDIS_SERVER names no binary of it\n";
    std::io::stderr().write_all(line).unwrap();
}

/// Starts the server and reads its output until the server is ready or, as a replica, has its
/// master's data. Returns `None` if the server ends before.
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
    // Drains the later output, so that the server never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Some(process)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
