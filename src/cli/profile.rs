//! `menshen models profile`: where the time of a network goes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::table::Table;
use crate::config::Config;
use crate::engine::cpu::{CpuNetwork, StepReport, ThreadTeam};
use crate::model::Package;

/// Largest batch: beyond it a profile only takes longer.
const BATCH_MAX: usize = 256;

/// Timed runs; the least time of each step counts, as whatever disturbs a run adds to it.
const REPEATS: usize = 20;

pub(super) fn run(
    config: &Config,
    package: &Package,
    batch: usize,
    side: Option<usize>,
) -> anyhow::Result<ExitCode> {
    if !(1..=BATCH_MAX).contains(&batch) {
        bail!("--batch must be 1 to {BATCH_MAX}");
    }
    let device = &config.device;
    let precision = device.precision.unwrap_or(package.manifest.precision);
    let input = match side {
        Some(side) => package.manifest.input.with_side(side)?,
        None => package.manifest.input.clone(),
    };
    let graph = package.graph_for(&input)?;
    let network =
        CpuNetwork::load(&graph, device.kernels, precision, Arc::new(ThreadTeam::new(1)?))?;
    let spinner = super::spinner("timing every step");
    let (steps, peak) = (network.profile(batch, REPEATS)?, network.peak_flops());
    spinner.finish_and_clear();
    println!(
        "{}  {}×{}  batch {batch}  {precision}, {} kernels, 1 thread; this core's peak {:.0} GFLOP/s",
        package.id(),
        input.width,
        input.height,
        network.kernels(),
        peak / 1e9,
    );
    for line in table(&steps, peak).lines() {
        println!("{line}");
    }
    if steps.iter().any(|step| step.is_in_bands) {
        println!("┆ in turns with its neighbours, some rows at a time that stay in the cache");
    }
    Ok(ExitCode::SUCCESS)
}

fn table(steps: &[StepReport], peak: f64) -> Table {
    let headings = ["step", "algorithm", ">weights KiB", ">µs", ">share", ">GFLOP/s", ">of peak"];
    let mut table = Table::new(&headings);
    let whole: Duration = steps.iter().map(|step| step.time).sum();
    for step in steps {
        let arithmetic = (step.macs > 0).then(|| speed(step.macs, step.time));
        table.row(vec![
            format!("{}{}", if step.is_in_bands { "┆ " } else { "" }, step.label),
            step.algorithm.to_owned(),
            match step.weight_bytes {
                0 => String::new(),
                bytes => format!("{:.0}", bytes as f64 / 1024.0),
            },
            format!("{:.1}", step.time.as_secs_f64() * 1e6),
            percent(step.time.as_secs_f64() / whole.as_secs_f64()),
            arithmetic.map_or_else(String::new, |speed| format!("{:.0}", speed / 1e9)),
            arithmetic.map_or_else(String::new, |speed| percent(speed / peak)),
        ]);
    }
    let macs = steps.iter().map(|step| step.macs).sum();
    let weights: usize = steps.iter().map(|step| step.weight_bytes).sum();
    table.row(vec![
        "all".to_owned(),
        String::new(),
        format!("{:.0}", weights as f64 / 1024.0),
        format!("{:.1}", whole.as_secs_f64() * 1e6),
        percent(1.0),
        format!("{:.0}", speed(macs, whole) / 1e9),
        percent(speed(macs, whole) / peak),
    ]);
    table
}

/// Operations a second; a multiply-add is two. Winograd does fewer than it is credited for.
fn speed(macs: u64, time: Duration) -> f64 {
    2.0 * macs as f64 / time.as_secs_f64()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
