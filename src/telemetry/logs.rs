//! Log lines: for people on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogFormat, LogSettings};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log.filter is not a valid filter")]
    Filter(#[from] ParseError),
    /// The process logs already.
    #[error("logging was started before")]
    Twice(#[from] TryInitError),
}

/// Sends log lines to standard error from here on, and panics among them without their message,
/// which may quote what a caller sent. Once per process.
///
/// # Errors
/// A filter that does not parse, or a second call.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::try_new(&settings.filter)?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    if pretty {
        builder.with_target(false).finish().try_init()?;
    } else {
        builder.json().flatten_event(true).finish().try_init()?;
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%location, "panic");
    }));
    Ok(())
}
