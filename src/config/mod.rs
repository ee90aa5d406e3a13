//! The settings of all layers: gathered, overlaid, checked together, and printed. Each layer owns
//! its section. Rules between sections are checked here.
//!
//! A key can be set in three places, and a later one overrides an earlier one: the TOML file, the
//! environment (`MENSHEN_SERVER__LISTEN` sets `server.listen`), the command line. An unknown key is
//! refused in each of them.

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
    /// Listeners, limits on requests, shutdown.
    pub server: ServerSettings,
    /// The devices that run the networks, and how they run them.
    pub device: DeviceSettings,
    /// The live models. A model is chosen by its name, or by `name/version` if the folder holds
    /// several versions of it.
    pub models: ModelSettings,
    /// Queues and batches.
    pub scheduler: SchedulerSettings,
    /// Decision policy and calibration.
    pub verify: VerifySettings,
    /// Liveness sessions: their tokens, and the store that lets each session be used only once.
    pub liveness: LivenessSettings,
    /// Limits on pictures. A file is checked by its length and its header, before memory for its
    /// pixels is allocated.
    pub image: ImageSettings,
    /// Quality limits for a face, for each source of images. Only a face within them is embedded
    /// and judged.
    pub quality: QualityLimits,
    /// Logs, which go to standard error.
    pub log: LogSettings,
}

/// Why the settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The path of the file as given.
        path: std::path::PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML at line {line}: {reason}", path.display())]
    Syntax {
        /// The path of the file as given.
        path: std::path::PathBuf,
        /// The line, from 1.
        line: usize,
        /// The message of the parser, without the text of the line, which may hold a password.
        reason: String,
    },
    /// The defaults cannot be written as TOML, which is a defect of this program.
    #[error("the default configuration cannot be represented")]
    Defaults(#[from] toml::ser::Error),
    /// At least one setting is refused.
    #[error("configuration refused: {}", join(.0))]
    Refused(Vec<Refusal>),
}

/// A refused setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key is unknown, or the value cannot be parsed.
    #[error("{key}: {reason}")]
    Unreadable {
        /// The dotted name as given.
        key: String,
        /// The rule, with the allowed values if there are few.
        reason: String,
    },
    /// The value is outside its range.
    #[error("{0}")]
    OutOfRange(Violation),
    /// An environment variable starts with `MENSHEN_` but names no key.
    #[error("environment variable {0} names no setting; settings read MENSHEN_SECTION__KEY")]
    Variable(String),
}

fn join(refusals: &[Refusal]) -> String {
    let refusals: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    refusals.join("\n  ")
}

impl Refusal {
    /// Returns the key or the variable as given.
    pub fn key(&self) -> &str {
        match self {
            Self::Unreadable { key, .. } | Self::Variable(key) => key,
            Self::OutOfRange(violation) => &violation.key,
        }
    }
}

impl Config {
    /// Returns every setting outside its range, section by section.
    fn violations_in_sections(&self) -> Vec<Violation> {
        // Destructured, so that a new section does not compile until its ranges are checked here.
        // `models` has no ranges: any path and any name may be valid.
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

    /// Returns every setting that breaks a rule between sections.
    fn violations_between_sections(&self) -> Vec<Violation> {
        let (server, image) = (&self.server, &self.image);
        let mut check = RangeCheck::of("server");
        // Otherwise a large `Verify` could never be admitted, and would be told to retry for ever.
        check.require(
            server.bytes_max >= image.bytes_max.saturating_mul(1 + image.live_photos_max),
            "bytes_max",
            server.bytes_max,
            "at least image.bytes_max for the portrait and each of image.live_photos_max",
        );
        // The same holds for a session that keeps `session_bytes_max`.
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
