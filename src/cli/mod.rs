//! The commands. Only this folder prints.
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
mod load;
mod models;
mod options;
mod profile;
mod serve;
mod table;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Face verification and liveness over gRPC.
#[derive(Debug, Parser)]
#[command(name = "menshen", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC until SIGTERM or Ctrl-C.
    Serve(serve::Args),
    /// Check everything that a start reads and print all that is wrong; exits with 1 if anything is
    /// wrong.
    Check(check::Args),
    /// Ask a server whether it is ready; exits with 1 unless it is.
    Health(health::Args),
    /// Start a server in this process, verify real portraits with it, and print a table; exits with
    /// 1 unless all decisions are right.
    Demo(demo::Args),
    /// Ask a server whether a live photograph matches a portrait; exits with 1 unless it passes.
    Verify(verify::Args),
    /// Find the faces of a picture and judge its quality; exits with 1 unless the picture can be
    /// used.
    Detect(detect::Args),
    /// Run a liveness session against a server, with pictures from disk; exits with 1 unless it
    /// passes.
    Liveness(liveness::Args),
    /// List the devices of this machine and what this build can use of them.
    Devices(devices::Args),
    /// Send calls to a server at a rate, and report latencies and outcomes; exits with 1 if
    /// a threshold does not hold.
    Load(Box<load::Args>),
    /// Measure speed and accuracy of the networks on a device; `load` measures a whole server.
    Bench(bench::Args),
    /// List, inspect, verify, profile and compare models on disk.
    #[command(subcommand)]
    Models(models::Command),
    /// Evaluate a system by scores that were recorded elsewhere.
    #[command(subcommand)]
    Eval(eval::Command),
}

/// Parses the command line of this process and runs its command.
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
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Detect(args) => detect::run(&args),
        Command::Liveness(args) => liveness::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(command) => models::run(&command),
        Command::Eval(command) => eval::run(&command),
    }
}

/// Returns a runtime with one worker per core.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Returns a progress bar on standard error; it is hidden if standard error is no terminal.
fn progress_bar(steps: u64, label: &'static str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(steps);
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("{msg:>22} {bar:32} {pos}/{len} {elapsed}")
    {
        bar.set_style(style);
    }
    bar.set_message(label);
    bar
}

/// Returns a spinner with the elapsed time, for work of unknown length.
fn spinner(label: &'static str) -> indicatif::ProgressBar {
    let spinner = indicatif::ProgressBar::new_spinner();
    if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.set_message(label);
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["menshen"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn a_command_takes_no_option_that_does_not_act_on_it() {
        for line in [
            "--config a serve",
            "health --config a",
            "verify --portrait a --live b --device cpu",
            "liveness --portrait a --frames b --models c",
            "devices --threads 2",
            "eval pad a.csv --log info",
            "models list --precision f32",
            "models inspect a --device cpu",
            "models verify a --log info",
            "models profile a --threads 2",
            "models compare a b --models c",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{line}: {error}");
        }
    }

    #[test]
    fn a_command_on_another_server_takes_no_setting_of_a_server_in_this_process() {
        for option in ["--config a", "--models a", "--device cpu", "--threads 2", "--log info"] {
            parse(&format!("detect a {option}")).expect(option);
            parse(&format!("load {option}")).expect(option);
            for command in ["detect a", "load"] {
                let error = parse(&format!("{command} --server b {option}")).expect_err(option);
                assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{option}: {error}");
            }
        }
    }
}
