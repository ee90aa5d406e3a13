//! Log lines: for people on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

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
    subscriber(settings, std::io::stderr)?.try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%location, "panic");
    }));
    Ok(())
}

/// What writes log lines to `writer`. A line of JSON has the call it belongs to under `span`.
///
/// # Errors
/// A filter that does not parse.
pub fn subscriber<W>(
    settings: &LogSettings,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.filter)?;
    let terminal = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(terminal);
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    Ok(if pretty {
        Box::new(builder.with_target(false).finish())
    } else {
        Box::new(builder.json().flatten_event(true).with_span_list(false).finish())
    })
}
