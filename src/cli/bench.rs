//! `menshen bench`: measures speed and accuracy of the networks on a device and prints a report.

mod network;

use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use self::network::{NetworkReport, measure_network};
use super::options::SettingOptions;
use super::table::Table;
use super::{demo, progress_bar, runtime};
use crate::config::Config;
use crate::device::{DeviceGroup, DeviceSettings};
use crate::engine::Precision;
use crate::model::{Listing, Package, scan};

/// Options of `menshen bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Duration of each measurement, in seconds: above 0, at most 60.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Measure only the versions of this model; all models unless given.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Do not measure whole verifications through a server in this process.
    #[arg(long)]
    networks_only: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingOptions,
}

/// Longest duration of one measurement, in seconds.
const SECONDS_MAX: f64 = 60.0;

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    devices: Vec<String>,
    networks: Vec<NetworkReport>,
    pipeline: Option<PipelineReport>,
}

/// Throughput of verifications through a server in this process.
#[derive(Debug, Serialize)]
struct PipelineReport {
    verifications_per_second: f64,
    right: usize,
    pairs: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.seconds > 0.0 && args.seconds <= SECONDS_MAX,
        "--seconds must be above 0 and at most {SECONDS_MAX}"
    );
    let config = args.settings.load_in_process()?;
    crate::telemetry::init_logs(&config.log)?;
    let report = runtime()?.block_on(measure(args, config))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let violations: Vec<_> = report.networks.iter().filter_map(NetworkReport::violation).collect();
    anyhow::ensure!(
        violations.is_empty(),
        "farther from the CPU's outputs than the limit: {}",
        violations.join("; ")
    );
    let is_right = report.pipeline.as_ref().is_none_or(|pipeline| pipeline.right == pipeline.pairs);
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &Args, config: Config) -> anyhow::Result<Report> {
    let models = select_models(&config, args.model.as_deref())?;
    let policy = config.models.licence_policy();
    let group = DeviceGroup::open(&config.device).await?;
    let devices = group.describe().map(ToString::to_string).collect();
    let precisions =
        precisions(&config.device, group.describe().all(|device| device.name == "cpu"));
    drop(group);
    let bar = progress_bar((models.len() * precisions.len()) as u64, "measuring networks");
    let mut networks = Vec::new();
    for listing in models {
        for &precision in &precisions {
            let has_tolerance = listing.manifest.golden.tolerance_in(precision).is_some();
            if !has_tolerance && config.device.precision.is_none() {
                let model = listing.manifest.id();
                tracing::warn!(model, %precision, "not measured: its golden has no tolerance");
                bar.inc(1);
                continue;
            }
            let package = || Package::open_with(&listing.dir, policy);
            let settings = DeviceSettings { precision: Some(precision), ..config.device.clone() };
            networks.push(measure_network(package, &settings, args.seconds).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let pipeline = match args.networks_only {
        true => None,
        false => Some(measure_pipeline(config, args.seconds).await?),
    };
    Ok(Report { version: env!("CARGO_PKG_VERSION"), devices, networks, pipeline })
}

/// Returns all models, or the versions of the model called `name`.
fn select_models(config: &Config, name: Option<&str>) -> anyhow::Result<Vec<Listing>> {
    let mut models = scan(&config.models.dir)?;
    models.retain(|listing| name.is_none_or(|name| listing.manifest.name == name));
    anyhow::ensure!(!models.is_empty(), "no model is called {}", name.unwrap_or("anything"));
    Ok(models)
}

/// Returns the configured precision; without one, those that the kind of device is made for.
fn precisions(settings: &DeviceSettings, is_cpu: bool) -> Vec<Precision> {
    match (settings.precision, is_cpu) {
        (Some(precision), _) => vec![precision],
        (None, true) => vec![Precision::F32],
        (None, false) => vec![Precision::F32, Precision::Tf32, Precision::F16],
    }
}

async fn measure_pipeline(config: Config, seconds: f64) -> anyhow::Result<PipelineReport> {
    let (app, client) = super::client::start_in_process(config).await?;
    let faces = std::path::Path::new(demo::FACES_DIR);
    let started = Instant::now();
    let (mut pairs, mut right) = (0, 0);
    while pairs == 0 || started.elapsed().as_secs_f64() < seconds {
        let (verified, of_them_right) = demo::count_right(faces, &client).await?;
        pairs += verified;
        right += of_them_right;
    }
    let elapsed = started.elapsed().as_secs_f64();
    drop(client);
    app.stop().await;
    let verifications_per_second = pairs as f64 / elapsed;
    Ok(PipelineReport { verifications_per_second, right, pairs })
}

fn print(report: &Report) {
    println!("menshen {} bench", report.version);
    report.devices.iter().for_each(|device| println!("device  {device}"));
    println!();
    let mut table = Table::new(&[
        "model",
        "precision",
        ">1 - cosine",
        ">batch",
        ">ms alone",
        ">rows/s",
        ">one slot",
        ">no graphs",
    ]);
    for network in &report.networks {
        for (index, bucket) in network.buckets.iter().enumerate() {
            let once = |text: String| if index == 0 { text } else { String::new() };
            let without_graphs = bucket.rows_per_second_without_graphs;
            table.add_line(vec![
                once(network.model.clone()),
                once(network.precision.to_owned()),
                once(format!("{:.1e}", network.cosine_distance)),
                bucket.bucket.to_string(),
                format!("{:.2}", bucket.alone_ms),
                format!("{:.0}", bucket.rows_per_second),
                format!("{:.0}", bucket.rows_per_second_one_slot),
                without_graphs.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
            ]);
        }
    }
    table.render().iter().for_each(|line| println!("{line}"));
    println!("1 - cosine: the largest distance of any output to the CPU's in f32, on patterns.");
    println!("rows/s: with all slots; with one slot, where nothing overlaps; without CUDA graphs.");
    if let Some(pipeline) = &report.pipeline {
        println!();
        println!(
            "Verify, all networks through gRPC: {:.1} a second, {} of {} right",
            pipeline.verifications_per_second, pipeline.right, pipeline.pairs,
        );
    }
}
