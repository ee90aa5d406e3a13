//! The options that set settings. A command flattens the options that act on it, and no others.

use std::path::PathBuf;

use crate::config::{Config, ConfigError, Override, ParsedConfig};

/// The option of every command that reads settings.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// Configuration file (TOML). An environment variable (`MENSHEN_SERVER__LISTEN` sets
    /// `server.listen`) overrides the file; an option overrides both.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads the settings: defaults, then the file, then the environment, then `overrides`.
    pub(super) fn load(&self, overrides: &[Override]) -> anyhow::Result<Config> {
        Ok(crate::config::load(self.config.as_deref(), std::env::vars(), overrides)?)
    }

    /// Reads the settings as [`ConfigFile::load`] does, and returns the refused ones beside them.
    fn read(&self, overrides: &[Override]) -> Result<ParsedConfig, ConfigError> {
        crate::config::read(self.config.as_deref(), std::env::vars(), overrides)
    }
}

/// The option of the commands that read the models folder.
#[derive(Debug, clap::Args)]
pub(super) struct ModelsFolder {
    /// Folder with the models (`models.dir`); `models` unless set.
    #[arg(long, value_name = "DIR")]
    models: Option<String>,
}

impl ModelsFolder {
    pub(super) fn overrides(&self) -> Vec<Override> {
        text("models.dir", self.models.as_deref()).into_iter().collect()
    }
}

/// The options of the commands that run networks on a device.
#[derive(Debug, clap::Args)]
pub(super) struct DeviceOptions {
    /// Where networks run (`device.device`): `cpu`, `auto` or `cuda:0,1`; `cpu` unless set.
    #[arg(long)]
    device: Option<String>,
    /// Threads that run networks on the CPU (`device.threads`), at most 1024; 0, the default, takes
    /// one per core.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Precision that all models are computed in (`device.precision`): `f32`, `bf16` (CPU), `tf32`
    /// or `f16` (GPU). Unless set, the manifest of each model decides.
    #[arg(long)]
    precision: Option<String>,
}

impl DeviceOptions {
    pub(super) fn overrides(&self) -> Vec<Override> {
        let overrides = [
            text("device.device", self.device.as_deref()),
            number("device.threads", self.threads),
            text("device.precision", self.precision.as_deref()),
        ];
        overrides.into_iter().flatten().collect()
    }
}

/// All options that set what every server has. The commands that start a server take them, and
/// `menshen check`.
#[derive(Debug, clap::Args)]
pub(super) struct SettingOptions {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    folder: ModelsFolder,
    #[command(flatten)]
    device: DeviceOptions,
    /// Log filter (`log.filter`) such as `info` or `menshen=debug`. Unless set, `serve` logs at
    /// `info`; a command that starts a server in its own process logs warnings.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl SettingOptions {
    /// Reads the settings, with `overrides` over those of these options.
    pub(super) fn load(&self, overrides: Vec<Override>) -> anyhow::Result<Config> {
        self.file.load(&self.overrides(overrides))
    }

    /// Reads the settings as [`SettingOptions::load`] does, and returns the refused ones too.
    pub(super) fn read(&self, overrides: Vec<Override>) -> Result<ParsedConfig, ConfigError> {
        self.file.read(&self.overrides(overrides))
    }

    /// Reads the settings of a server in the process of a command that prints a result. Without
    /// `--log` the server logs warnings only.
    pub(super) fn load_in_process(&self) -> anyhow::Result<Config> {
        let mut config = self.load(Vec::new())?;
        if self.log.is_none() {
            config.log.filter = "warn".to_owned();
        }
        Ok(config)
    }

    fn overrides(&self, further: Vec<Override>) -> Vec<Override> {
        let mut overrides = self.folder.overrides();
        overrides.extend(self.device.overrides());
        overrides.extend(text("log.filter", self.log.as_deref()));
        overrides.extend(further);
        overrides
    }
}

/// Returns the override of a text setting; `None` if its option was not given.
pub(super) fn text(key: &'static str, value: Option<&str>) -> Option<Override> {
    value.map(|value| Override { key, value: toml::Value::String(value.to_owned()) })
}

/// Returns the override of a whole-number setting; `None` if its option was not given.
pub(super) fn number(key: &'static str, value: Option<u32>) -> Option<Override> {
    value.map(|value| Override { key, value: toml::Value::Integer(value.into()) })
}
