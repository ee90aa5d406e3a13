//! Log lines: for people on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::setting::{RangeCheck, Violation};

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// How lines look: `pretty`, `json`, or `auto`: `pretty` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// What is logged: a `tracing` filter such as `info` or `menshen=debug,info`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

impl LogSettings {
    /// Every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("log");
        let is_filter = EnvFilter::try_new(&self.filter).is_ok();
        check.require(is_filter, "filter", &self.filter, "a filter such as info or menshen=debug");
        check.violations()
    }
}

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
