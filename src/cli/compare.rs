//! `menshen models compare`: compares any network with recorded answers.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::options::{ConfigFile, number, text};
use super::table::Table;
use crate::config::Config;
use crate::device::compare;

/// Options of `menshen models compare`. The command runs on the CPU and reads no models folder.
#[derive(Debug, clap::Args)]
pub(super) struct CompareOptions {
    #[command(flatten)]
    file: ConfigFile,
    /// Threads that run the network (`device.threads`), at most 1024; 0, the default, takes one per
    /// core.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Precision of the network (`device.precision`): `f32` or `bf16`; `f32` unless set.
    #[arg(long)]
    precision: Option<String>,
}

impl CompareOptions {
    fn load(&self) -> anyhow::Result<Config> {
        let overrides = [
            number("device.threads", self.threads),
            text("device.precision", self.precision.as_deref()),
        ];
        let overrides: Vec<_> = overrides.into_iter().flatten().collect();
        self.file.load(&overrides)
    }
}

/// Largest accepted difference from the recording, relative to the range of the output.
const ERROR_MAX: f64 = 1e-3;

/// Largest accepted difference between a row alone and in a batch, relative to the range of the
/// output.
const BATCH_DIFFERENCE_MAX: f64 = 1e-5;

pub(super) fn run(
    onnx: &Path,
    recording: &Path,
    options: &CompareOptions,
) -> anyhow::Result<ExitCode> {
    let config = options.load()?;
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let spinner = super::spinner("running every row alone and in batches");
    let comparisons = compare(read(onnx)?.into(), &read(recording)?, &config.device);
    spinner.finish_and_clear();
    let comparisons = comparisons.with_context(|| format!("cannot compare {}", onnx.display()))?;
    println!("{}", onnx.display());
    let mut table = Table::new(&["output", ">error / range", ">1 - cosine", ">batch / range", ""]);
    let mut all_agree = true;
    for comparison in comparisons {
        let agrees =
            comparison.error <= ERROR_MAX && comparison.batch_difference <= BATCH_DIFFERENCE_MAX;
        all_agree &= agrees;
        table.add_line(vec![
            comparison.tensor,
            format!("{:.1e}", comparison.error),
            format!("{:.1e}", comparison.cosine_distance),
            format!("{:.1e}", comparison.batch_difference),
            if agrees { "✓" } else { "✗ differs" }.to_owned(),
        ]);
    }
    for line in table.render() {
        println!("  {line}");
    }
    Ok(if all_agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
