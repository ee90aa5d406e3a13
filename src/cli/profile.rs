//! `menshen models profile`: the time of each step of a network.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::table::Table;
use crate::config::Config;
use crate::engine::cpu::{CpuNetwork, StepReport, ThreadTeam};
use crate::model::Package;

/// Largest batch. A larger one only takes longer.
const BATCH_MAX: usize = 256;

/// Timed runs. The least time of each step counts, since disturbances only add time.
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
        "{}  {}×{}  batch {batch}  {precision}, {} kernels, 1 thread; this core's peak {:.0} \
         GFLOP/s",
        package.id(),
        input.width,
        input.height,
        network.kernels(),
        peak / 1e9,
    );
    for line in steps_table(&steps, peak).render() {
        println!("{line}");
    }
    if steps.iter().any(|step| step.is_in_bands) {
        println!(
            "┆ runs in turns with its neighbours, on a few image lines that stay in the cache"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn steps_table(steps: &[StepReport], peak: f64) -> Table {
    let headings = ["step", "algorithm", ">weights KiB", ">µs", ">share", ">GFLOP/s", ">of peak"];
    let mut table = Table::new(&headings);
    let total_time: Duration = steps.iter().map(|step| step.time).sum();
    for step in steps {
        let rate = (step.macs > 0).then(|| operations_per_second(step.macs, step.time));
        table.add_line(vec![
            format!("{}{}", if step.is_in_bands { "┆ " } else { "" }, step.label),
            step.algorithm.to_owned(),
            match step.weight_bytes {
                0 => String::new(),
                bytes => format!("{:.0}", bytes as f64 / 1024.0),
            },
            format!("{:.1}", step.time.as_secs_f64() * 1e6),
            percent(step.time.as_secs_f64() / total_time.as_secs_f64()),
            rate.map_or_else(String::new, |rate| format!("{:.0}", rate / 1e9)),
            rate.map_or_else(String::new, |rate| percent(rate / peak)),
        ]);
    }
    let macs = steps.iter().map(|step| step.macs).sum();
    let weights: usize = steps.iter().map(|step| step.weight_bytes).sum();
    table.add_line(vec![
        "all".to_owned(),
        String::new(),
        format!("{:.0}", weights as f64 / 1024.0),
        format!("{:.1}", total_time.as_secs_f64() * 1e6),
        percent(1.0),
        format!("{:.0}", operations_per_second(macs, total_time) / 1e9),
        percent(operations_per_second(macs, total_time) / peak),
    ]);
    table
}

/// Returns operations per second; a multiply-add counts as two. Winograd does fewer operations than
/// are counted here.
fn operations_per_second(macs: u64, time: Duration) -> f64 {
    2.0 * macs as f64 / time.as_secs_f64()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
