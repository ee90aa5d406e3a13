//! Log lines: readable text on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::setting::{RangeCheck, Violation};

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Format of log lines: `pretty`, `json`, or `auto`, which is `pretty` on a terminal and `json`
    /// elsewhere.
    pub format: LogFormat,
    /// Which lines are logged: a `tracing` filter such as `info` or `menshen=debug,info`.
    pub filter: String,
    /// Fraction, from 0 to 1, of the answered and cancelled calls that get a log line. Every other
    /// call gets one.
    pub calls_sampled: f64,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// [`LogFormat::Pretty`] on a terminal, [`LogFormat::Json`] elsewhere.
    Auto,
    /// Readable text.
    Pretty,
    /// One JSON object for each line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned(), calls_sampled: 1.0 }
    }
}

impl LogSettings {
    /// Returns every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("log");
        let is_filter = EnvFilter::try_new(&self.filter).is_ok();
        check.require(is_filter, "filter", &self.filter, "a filter such as info or menshen=debug");
        let is_fraction = (0.0..=1.0).contains(&self.calls_sampled);
        check.require(is_fraction, "calls_sampled", self.calls_sampled, "from 0 to 1");
        check.violations()
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log.filter is not a valid filter")]
    Filter(#[from] ParseError),
    /// The process already logs.
    #[error("logging was started before")]
    Twice(#[from] TryInitError),
}

/// Starts to write log lines to standard error. Panics are logged too, but without their message,
/// which may quote what a caller sent. May be called once for each process.
///
/// # Errors
/// The filter does not parse, or this is the second call.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    subscriber(settings, std::io::stderr)?.try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%location, "panic");
    }));
    Ok(())
}

/// Makes a subscriber that writes log lines to `writer`. In JSON, the fields of the call are under
/// `span`.
///
/// # Errors
/// The filter does not parse.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_reported() {
        assert_eq!(LogSettings::default().violations(), []);
        let settings = LogSettings { filter: "menshen=loud".to_owned(), ..LogSettings::default() };
        assert_eq!(settings.violations()[0].key, "log.filter");
    }
}
