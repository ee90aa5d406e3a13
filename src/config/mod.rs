//! The settings of all layers: gathered, overlaid, checked together, and printed. Each layer owns
//! its section; what holds between sections is checked here.
//!
//! Three places set a key, each over the one before: the TOML file, the environment
//! (`MENSHEN_SERVER__LISTEN` sets `server.listen`), the command line. An unknown key is refused
//! wherever it comes from.

mod overlay;
mod print;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::catalog::ModelSettings;
use crate::device::DeviceSettings;
use crate::face::QualityLimits;
use crate::image::ImageSettings;
use crate::pipeline::{LivenessSettings, VerifySettings};
use crate::scheduler::SchedulerSettings;
use crate::services::{SESSION_ENVELOPE_BYTES_MAX, ServerSettings};
use crate::setting::{RangeCheck, Violation};
use crate::telemetry::LogSettings;

pub use overlay::{Override, ParsedConfig, load, read};
pub use print::print;

/// All settings of the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Listeners, limits on requests, stopping.
    pub server: ServerSettings,
    /// Where networks run, and how.
    pub device: DeviceSettings,
    /// Which models are live. A model is named by its name, or by `name/version` where the folder
    /// holds several versions of it.
    pub models: ModelSettings,
    /// Queues and batches.
    pub scheduler: SchedulerSettings,
    /// Policy and calibration.
    pub verify: VerifySettings,
    /// Liveness sessions: their tokens, and the store that lets each be used once.
    pub liveness: LivenessSettings,
    /// Limits on pictures. A file is judged by its length and its header, before memory is taken
    /// for its pixels.
    pub image: ImageSettings,
    /// Limits that a face must keep before it is embedded and judged, for each source of images.
    pub quality: QualityLimits,
    /// Logs, on standard error.
    pub log: LogSettings,
}

/// Why the settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file's path as given.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML at line {line}: {reason}", path.display())]
    Syntax {
        /// The file's path as given.
        path: std::path::PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said, without the line itself: it may hold a password.
        reason: String,
    },
    /// The defaults could not be written as TOML: a defect of this program.
    #[error("the default configuration cannot be represented")]
    Defaults(#[from] toml::ser::Error),
    /// Settings are refused; at least one.
    #[error("configuration refused: {}", join(.0))]
    Refused(Vec<Refusal>),
}

/// A setting that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key is unknown, or its value means nothing.
    #[error("{key}: {reason}")]
    Unreadable {
        /// Dotted name, as given.
        key: String,
        /// The rule, with the allowed values where there are few.
        reason: String,
    },
    /// A value is outside its range.
    #[error("{0}")]
    OutOfRange(Violation),
    /// A variable starts with `MENSHEN_` but names no key.
    #[error("environment variable {0} names no setting; settings read MENSHEN_SECTION__KEY")]
    Variable(String),
}

fn join(refusals: &[Refusal]) -> String {
    let refusals: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    refusals.join("\n  ")
}

impl Refusal {
    /// The key, or the variable, as it was given.
    pub fn key(&self) -> &str {
        match self {
            Self::Unreadable { key, .. } | Self::Variable(key) => key,
            Self::OutOfRange(violation) => &violation.key,
        }
    }
}

impl Config {
    /// Every setting outside its range, section by section.
    fn violations_in_sections(&self) -> Vec<Violation> {
        // A section that is added must say whether it has ranges. Any path and any name may be
        // that of a model.
        let Self { server, device, models: _, scheduler, verify, liveness, image, quality, log } =
            self;
        [
            server.violations(),
            device.violations(),
            scheduler.violations(),
            verify.violations(),
            liveness.violations(),
            image.violations(),
            quality.violations(),
            log.violations(),
        ]
        .concat()
    }

    /// Every setting that breaks a rule between sections.
    fn violations_between_sections(&self) -> Vec<Violation> {
        let (server, image) = (&self.server, &self.image);
        let mut check = RangeCheck::of("server");
        // Otherwise a large `Verify` would be told to try again for ever.
        check.require(
            server.bytes_max >= image.bytes_max.saturating_mul(1 + image.live_photos_max),
            "bytes_max",
            server.bytes_max,
            "at least image.bytes_max for the portrait and each of image.live_photos_max",
        );
        // A session that keeps its own limit must not be told so either.
        let session = image.bytes_max.saturating_add(self.liveness.session_bytes_max);
        check.require(
            server.bytes_max >= session.saturating_add(SESSION_ENVELOPE_BYTES_MAX),
            "bytes_max",
            server.bytes_max,
            "at least image.bytes_max and liveness.session_bytes_max together, and 192 KiB more",
        );
        check.violations()
    }
}
