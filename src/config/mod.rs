//! Validated settings. Read once, then passed down as values.
//!
//! Three places set a key, each over the one before: the TOML file, the environment
//! (`MENSHEN_SERVER__LISTEN` sets `server.listen`), the command line. A key nobody knows is
//! refused wherever it comes from.

mod layers;
mod liveness;
mod quality;
mod settings;

pub use layers::{Override, load};
pub use liveness::{LivenessSettings, RedisUrl, ReplayTarget, ReplayTargetError};
pub use quality::{QualityLimits, SourceLimits};
pub use settings::{
    Config, DeviceSettings, ImageSettings, LogFormat, LogSettings, ModelSettings,
    SESSION_ENVELOPE_BYTES_MAX, SchedulerSettings, ServerSettings, VerifySettings,
};

/// Why the settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file's path as given.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML")]
    Syntax {
        /// The file's path as given.
        path: std::path::PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key is unknown or its value has the wrong type.
    #[error("configuration refused: {0}")]
    Key(Box<toml::de::Error>),
    /// The defaults could not be written as TOML: a defect of this program.
    #[error("the default configuration cannot be represented")]
    Defaults(#[from] toml::ser::Error),
    /// A variable starts with `MENSHEN_` but names no key.
    #[error("environment variable {0} names no setting; settings read MENSHEN_SECTION__KEY")]
    Variable(String),
    /// A value is outside its range.
    #[error("{key} is {value}, but must be {must}")]
    Range {
        /// Dotted name of the setting.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// The rule it breaks.
        must: &'static str,
    },
}
