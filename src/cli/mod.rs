//! Commands. The only place that prints.
#![expect(clippy::print_stdout, reason = "printing is what a command line does")]

mod bench;
mod check;
mod client;
mod compare;
mod demo;
mod detect;
mod devices;
mod draw;
mod eval;
mod health;
mod liveness;
mod models;
mod profile;
mod serve;
mod table;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Override, ParsedConfig};

/// Face verification and liveness over gRPC.
#[derive(Debug, Parser)]
#[command(name = "menshen", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Settings every command understands. A TOML file (`--config`) and environment variables
/// (`MENSHEN_SECTION__KEY`, such as `MENSHEN_SERVER__LISTEN`) set the same keys; the command line
/// wins over the environment, and that over the file.
#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder with the models.
    #[arg(long, global = true, value_name = "DIR")]
    models: Option<String>,
    /// Where networks run: `cpu`, `auto` or `cuda:0,1`.
    #[arg(long, global = true)]
    device: Option<String>,
    /// Threads that run networks on the CPU; 0 takes one per core (`device.threads`).
    #[arg(long, global = true, value_name = "N")]
    threads: Option<u32>,
    /// What all models are computed in, `f32`, `bf16` (CPU), `tf32` or `f16` (GPU); else each manifest
    /// decides (`device.precision`).
    #[arg(long, global = true)]
    precision: Option<String>,
    /// Log filter such as `info` or `menshen=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC until SIGTERM or Ctrl-C.
    Serve(serve::Args),
    /// Read what a start needs and name everything that is wrong; fails if something is.
    Check(check::Args),
    /// Ask a server whether it is ready; fails unless it is.
    Health(health::Args),
    /// Start a server in this process, verify real portraits through it, and print a table.
    Demo(demo::Args),
    /// Ask a server whether a live photograph matches a portrait.
    Verify(verify::Args),
    /// Find the faces of a picture and judge its quality.
    Detect(detect::Args),
    /// Run a liveness session against a server, from pictures on disk.
    Liveness(liveness::Args),
    /// Look at the devices of this build and machine.
    Devices(devices::Args),
    /// Measure the networks on a device, and how right they are.
    Bench(bench::Args),
    /// Look at the models on disk.
    #[command(subcommand)]
    Models(models::Command),
    /// Judge a system by scores recorded elsewhere.
    #[command(subcommand)]
    Eval(eval::Command),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "errors of a command go to standard error")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(&args, &cli.common),
        Command::Check(args) => check::run(&args, &cli.common),
        Command::Health(args) => health::run(&args),
        Command::Demo(args) => demo::run(&args, &cli.common),
        Command::Verify(args) => verify::run(&args, &cli.common),
        Command::Detect(args) => detect::run(&args, &cli.common),
        Command::Liveness(args) => liveness::run(&args, &cli.common),
        Command::Devices(args) => devices::run(&args),
        Command::Bench(args) => bench::run(&args, &cli.common),
        Command::Models(command) => models::run(&command, &cli.common),
        Command::Eval(command) => eval::run(&command, &cli.common),
    }
}

impl Common {
    /// Reads the settings, `flags` over those every command has.
    fn load(&self, flags: Vec<Override>) -> anyhow::Result<Config> {
        let overrides = self.overrides(flags);
        Ok(crate::config::load(self.config.as_deref(), std::env::vars(), &overrides)?)
    }

    /// As [`Common::load`], with refused settings beside the others.
    fn read(&self, flags: Vec<Override>) -> Result<ParsedConfig, ConfigError> {
        let overrides = self.overrides(flags);
        crate::config::read(self.config.as_deref(), std::env::vars(), &overrides)
    }

    fn overrides(&self, flags: Vec<Override>) -> Vec<Override> {
        let mut overrides: Vec<Override> = [
            ("models.dir", &self.models),
            ("device.device", &self.device),
            ("device.precision", &self.precision),
            ("log.filter", &self.log),
        ]
        .into_iter()
        .filter_map(|(key, value)| text(key, value.as_deref()))
        .collect();
        overrides.extend(self.threads.map(|threads| Override {
            key: "device.threads",
            value: toml::Value::Integer(threads.into()),
        }));
        overrides.extend(flags);
        overrides
    }
}

/// A setting given as text; `None` when the flag was not given.
fn text(key: &'static str, value: Option<&str>) -> Option<Override> {
    value.map(|value| Override { key, value: toml::Value::String(value.to_owned()) })
}

/// A runtime with one worker per core.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A progress bar on standard error for work of more than a second; silent when nobody watches.
fn progress(steps: u64, what: &'static str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(steps);
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("{msg:>22} {bar:32} {pos}/{len} {elapsed}")
    {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A spinner with the time that passed, for work whose length is not known.
fn spinner(what: &'static str) -> indicatif::ProgressBar {
    let spinner = indicatif::ProgressBar::new_spinner();
    if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.set_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
