//! `menshen serve`.

use std::io::Write;
use std::process::ExitCode;

use super::options::{SettingOptions, text};
use super::runtime;
use crate::app::App;
use crate::config::{self, Config, ConfigError, Override, ParsedConfig};
use crate::shutdown;

/// Options of `menshen serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: ServeOptions,
    /// Print the settings in force as TOML, each with its explanation, and exit.
    #[arg(long)]
    print_config: bool,
}

/// The options of `menshen serve` that set something; `menshen check` takes the same.
#[derive(Debug, clap::Args)]
pub(super) struct ServeOptions {
    /// Address of the gRPC listener (`server.listen`); 127.0.0.1:50051 unless set.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the HTTP listener for /metrics, /livez and /readyz (`server.http_listen`);
    /// 127.0.0.1:9464 unless set.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// False-match rate of decisions whose request names none (`verify.policy_fmr`), above 0 and
    /// below 1; 1e-4 unless set.
    #[arg(long, value_name = "FMR")]
    fmr: Option<f64>,
    /// Calibration of this deployment (`verify.calibration`, TOML). Its entries precede those of
    /// the embedding model; unless set, only the model's entries decide.
    #[arg(long, value_name = "FILE")]
    calibration: Option<String>,
    #[command(flatten)]
    settings: SettingOptions,
}

impl ServeOptions {
    fn load(&self) -> anyhow::Result<Config> {
        self.settings.load(self.overrides())
    }

    /// Reads the settings and returns the refused ones beside the others.
    pub(super) fn read(&self) -> Result<ParsedConfig, ConfigError> {
        self.settings.read(self.overrides())
    }

    fn overrides(&self) -> Vec<Override> {
        let fmr = self
            .fmr
            .map(|fmr| Override { key: "verify.policy_fmr", value: toml::Value::Float(fmr) });
        let flags = [
            text("server.listen", self.listen.as_deref()),
            text("server.http_listen", self.http_listen.as_deref()),
            text("verify.calibration", self.calibration.as_deref()),
            fmr,
        ];
        flags.into_iter().flatten().collect()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.options.load()?;
    if args.print_config {
        print!("{}", config::print(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    crate::telemetry::init_logs(&config.log)?;
    runtime()?.block_on(async {
        let mut stop = shutdown::Signals::listen()?;
        let mut app = App::bind(config).await?;
        print_line(concat!("menshen ", env!("CARGO_PKG_VERSION")));
        let spinner = super::spinner("loading the models and checking their goldens");
        tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            loaded = app.load() => loaded?,
        }
        spinner.finish_and_clear();
        for line in app.describe() {
            print_line(&line);
        }
        print_line("ready");
        stop.wait().await;
        print_line("stopping: requests in flight are finished");
        app.stop().await;
        print_line("stopped");
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line and ignores errors: a closed pipe must not keep a server from draining.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
