//! `menshen bench`: how right and how fast the networks are on a device, as a report to paste.

mod gpu_use;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use self::gpu_use::Watch;
use super::table::Table;
use super::{Common, demo, progress, runtime};
use crate::config::Config;
use crate::device::{Batch, Device, DeviceChoice, DeviceOptions, LoadedModel, RowOutput};
use crate::engine::Precision;
use crate::image::RgbImage;
use crate::model::{LicencePolicy, Package, scan};

/// Options of `menshen bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Only this model, by its name.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Leave the whole pipeline out.
    #[arg(long)]
    networks_only: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Longest measurement of one number.
const SECONDS_MAX: f64 = 60.0;

/// Rows compared with the CPU.
const ROWS_COMPARED: usize = 4;

/// Everything measured.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    devices: Vec<String>,
    networks: Vec<NetworkReport>,
    pipeline: Option<PipelineReport>,
}

/// One network in one precision.
#[derive(Debug, Serialize)]
struct NetworkReport {
    model: String,
    precision: &'static str,
    /// Largest 1 − cosine of an output and that of the CPU in `f32`, on patterns.
    cosine_distance: f64,
    buckets: Vec<BucketReport>,
}

/// One batch size.
#[derive(Debug, Serialize)]
struct BucketReport {
    bucket: usize,
    /// One batch at a time, from pixels to answers: the median.
    alone_ms: f64,
    /// With every slot in use.
    rows_per_second: f64,
    /// The same with one slot, where nothing overlaps.
    rows_per_second_one_slot: f64,
    /// The same with every step launched by itself; only on GPUs.
    rows_per_second_without_graphs: Option<f64>,
}

/// Verifications through a server in this process.
#[derive(Debug, Serialize)]
struct PipelineReport {
    verifications_per_second: f64,
    right: usize,
    pairs: usize,
    gpu_use_percent: Option<f64>,
}

pub(super) fn run(args: &Args, common: &Common) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.seconds > 0.0 && args.seconds <= SECONDS_MAX,
        "--seconds must be above 0 and at most {SECONDS_MAX}"
    );
    let mut config = common.load(vec![])?;
    if common.log.is_none() {
        config.log.filter = "warn".to_owned();
    }
    crate::telemetry::init_logs(&config.log)?;
    let report = runtime()?.block_on(measure(args, config))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let is_right = report.pipeline.as_ref().is_none_or(|pipeline| pipeline.right == pipeline.pairs);
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &Args, config: Config) -> anyhow::Result<Report> {
    let options = DeviceOptions::of(&config.device)?;
    let packages = packages(&config, args.model.as_deref())?;
    let precisions = precisions(&options);
    let bar = progress((packages.len() * precisions.len()) as u64, "measuring networks");
    let (mut networks, mut devices) = (Vec::new(), Vec::new());
    for (dir, policy) in packages {
        for &precision in &precisions {
            let package = || Package::open_with(&dir, policy);
            let mut options = options.clone();
            options.cpu.precision = Some(precision);
            let device = Device::open(&options).await?;
            devices = device.describe().map(ToString::to_string).collect();
            drop(device);
            networks.push(measure_network(package, &options, precision, args.seconds).await?);
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

/// The folders of the default models, or of one.
fn packages(
    config: &Config,
    name: Option<&str>,
) -> anyhow::Result<Vec<(std::path::PathBuf, LicencePolicy)>> {
    let policy = match config.models.accept_noncommercial {
        true => LicencePolicy::AcceptNonCommercial,
        false => LicencePolicy::Commercial,
    };
    let listings = scan(&config.models.dir)?.into_iter();
    let chosen = listings.filter(|l| name.is_none_or(|name| l.manifest.name == name));
    let folders: Vec<_> = chosen.map(|listing| (listing.dir, policy)).collect();
    anyhow::ensure!(!folders.is_empty(), "no model is called {}", name.unwrap_or("anything"));
    Ok(folders)
}

/// What is asked for; else what the kind of device is made for.
fn precisions(options: &DeviceOptions) -> Vec<Precision> {
    match (options.cpu.precision, &options.choice) {
        (Some(precision), _) => vec![precision],
        (None, DeviceChoice::Cpu) => vec![Precision::F32],
        (None, _) => vec![Precision::F32, Precision::F16],
    }
}

async fn measure_network(
    package: impl Fn() -> Result<Package, crate::model::ModelError>,
    options: &DeviceOptions,
    precision: Precision,
    seconds: f64,
) -> anyhow::Result<NetworkReport> {
    let device = Device::open(options).await?;
    let model = device.load(package()?).await?;
    let cosine_distance = compare(&device, &model, package()?).await?;
    let mut buckets = Vec::new();
    for &bucket in model.buckets() {
        let alone_ms = median_ms(&device, &model, bucket, seconds).await?;
        let rows_per_second = throughput(&device, &model, bucket, seconds).await?;
        buckets.push(BucketReport {
            bucket,
            alone_ms,
            rows_per_second,
            rows_per_second_one_slot: 0.0,
            rows_per_second_without_graphs: None,
        });
    }
    let id = model.id();
    drop((model, device));
    let one_slot = DeviceOptions { slots: Some(std::num::NonZeroUsize::MIN), ..options.clone() };
    for (bucket, rate) in rates(&one_slot, package()?, seconds).await?.into_iter().enumerate() {
        buckets[bucket].rows_per_second_one_slot = rate;
    }
    #[cfg(feature = "cuda")]
    if options.choice != DeviceChoice::Cpu {
        let mut eager = options.clone();
        eager.cuda.graphs = false;
        for (bucket, rate) in rates(&eager, package()?, seconds).await?.into_iter().enumerate() {
            buckets[bucket].rows_per_second_without_graphs = Some(rate);
        }
    }
    Ok(NetworkReport { model: id, precision: precision.name(), cosine_distance, buckets })
}

/// Rows a second of each bucket, under other options.
async fn rates(
    options: &DeviceOptions,
    package: Package,
    seconds: f64,
) -> anyhow::Result<Vec<f64>> {
    let device = Device::open(options).await?;
    let model = device.load(package).await?;
    let mut rates = Vec::new();
    for &bucket in model.buckets() {
        rates.push(throughput(&device, &model, bucket, seconds).await?);
    }
    Ok(rates)
}

/// The largest 1 − cosine of any output and the CPU's in `f32`.
async fn compare(
    device: &Device,
    model: &Arc<LoadedModel>,
    package: Package,
) -> anyhow::Result<f64> {
    let mut options = DeviceOptions::default();
    options.cpu.precision = Some(Precision::F32);
    let cpu = Device::open(&options).await?;
    let known = cpu.load(package).await?;
    let mut worst = 0.0_f64;
    for seed in 0..ROWS_COMPARED {
        let found = one(device, model, seed).await?;
        let expected = one(&cpu, &known, seed).await?;
        for (a, b) in found.slices().iter().zip(expected.slices()) {
            worst = worst.max(cosine_distance(a, b));
        }
    }
    Ok(worst)
}

async fn one(device: &Device, model: &Arc<LoadedModel>, seed: usize) -> anyhow::Result<RowOutput> {
    let bucket = model.buckets()[0];
    let rows = vec![pattern(model, seed)];
    let mut outcome = run_batch(device, model, rows, bucket).await?;
    Ok(outcome.pop().context("a batch of one row gives one answer")??)
}

async fn run_batch(
    device: &Device,
    model: &Arc<LoadedModel>,
    rows: Vec<RgbImage>,
    bucket: usize,
) -> anyhow::Result<Vec<Result<RowOutput, crate::device::DeviceError>>> {
    let batch = Batch { model: Arc::clone(model), rows, bucket };
    let slot = device.reserve(model.placement()).await?;
    Ok(slot.launch(batch).await?.rows)
}

fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 { 0.0 } else { 1.0 - dot(a, b) / lengths }
}

/// A picture of soft waves of the size a model takes, another for each seed.
fn pattern(model: &LoadedModel, seed: usize) -> RgbImage {
    let input = &model.manifest().input;
    let mut image = RgbImage::black(input.width, input.height);
    let width = input.width;
    for (at, value) in image.pixels_mut().iter_mut().enumerate() {
        let (pixel, channel) = (at / 3, at % 3);
        let (x, y) = ((pixel % width) as f32, (pixel / width) as f32);
        let wave = (x / (9 + seed) as f32 + channel as f32).sin() * (y / 13.0).cos();
        *value = (127.5 + 100.0 * wave) as u8;
    }
    image
}

/// The median of batches that run one at a time.
async fn median_ms(
    device: &Device,
    model: &Arc<LoadedModel>,
    bucket: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.is_empty() || begun.elapsed().as_secs_f64() < seconds {
        let rows = (0..bucket).map(|seed| pattern(model, seed)).collect();
        let started = Instant::now();
        run_batch(device, model, rows, bucket).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}

/// Batches on their way at once: more than any device has slots, so that each finds work.
const BATCHES_AHEAD: usize = 8;

/// Rows a second while there is always a batch waiting.
async fn throughput(
    device: &Device,
    model: &Arc<LoadedModel>,
    bucket: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let mut flying = VecDeque::new();
    let (mut done, begun) = (0, Instant::now());
    let limit = Duration::from_secs_f64(seconds);
    while begun.elapsed() < limit || !flying.is_empty() {
        if begun.elapsed() < limit && flying.len() < BATCHES_AHEAD {
            let rows = (0..bucket).map(|seed| pattern(model, seed)).collect();
            let batch = Batch { model: Arc::clone(model), rows, bucket };
            let slot = device.reserve(model.placement()).await?;
            flying.push_back(slot.launch(batch));
            continue;
        }
        if let Some(outcome) = flying.pop_front() {
            let rows = outcome.await?.rows;
            done += rows.len();
            rows.into_iter().try_for_each(|row| row.map(drop))?;
        }
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

async fn measure_pipeline(config: Config, seconds: f64) -> anyhow::Result<PipelineReport> {
    let (app, client) = super::client::in_process(config).await?;
    let faces = std::path::Path::new(demo::FACES);
    let watch = Watch::start();
    let (begun, mut pairs, mut right) = (Instant::now(), 0, 0);
    while pairs == 0 || begun.elapsed().as_secs_f64() < seconds {
        let (done, good) = demo::count_right(faces, &client).await?;
        (pairs, right) = (pairs + done, right + good);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let gpu_use_percent = watch.mean();
    drop(client);
    app.stop().await;
    let verifications_per_second = pairs as f64 / elapsed;
    Ok(PipelineReport { verifications_per_second, right, pairs, gpu_use_percent })
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
        for (place, bucket) in network.buckets.iter().enumerate() {
            let first = |text: String| if place == 0 { text } else { String::new() };
            let eager = bucket.rows_per_second_without_graphs;
            table.row(vec![
                first(network.model.clone()),
                first(network.precision.to_owned()),
                first(format!("{:.1e}", network.cosine_distance)),
                bucket.bucket.to_string(),
                format!("{:.2}", bucket.alone_ms),
                format!("{:.0}", bucket.rows_per_second),
                format!("{:.0}", bucket.rows_per_second_one_slot),
                eager.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
            ]);
        }
    }
    table.lines().iter().for_each(|line| println!("{line}"));
    println!("1 - cosine: the largest of any output from the CPU in f32, on patterns.");
    println!(
        "Rates: rows a second with all slots; with one, where nothing overlaps; without graphs."
    );
    if let Some(pipeline) = &report.pipeline {
        let used = pipeline.gpu_use_percent;
        println!();
        println!(
            "Verify, all networks through gRPC: {:.1} a second, {} of {} right; GPU use {}",
            pipeline.verifications_per_second,
            pipeline.right,
            pipeline.pairs,
            used.map_or_else(
                || "not read (no nvidia-smi)".to_owned(),
                |used| format!("{used:.0} %")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_equal_directions_is_zero_and_of_opposite_ones_two() {
        assert!(cosine_distance(&[1.0, 2.0], &[2.0, 4.0]).abs() < 1e-12);
        assert!((cosine_distance(&[1.0, 0.0], &[-3.0, 0.0]) - 2.0).abs() < 1e-12);
        assert_eq!(cosine_distance(&[0.0], &[0.0]), 0.0);
    }
}
