//! `menshen models`: what is on disk, what it holds, and whether it still answers as recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::table::Table;
use super::{Common, progress, runtime};
use crate::config::Config;
use crate::device::{Device, DeviceOptions};
use crate::engine::cpu::{CpuNetwork, Crew};
use crate::model::{LicencePolicy, Listing, Manifest, Package, find, scan, space_id};

/// What to do with the models on disk.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the models of the models folder.
    List,
    /// Show what a model takes, answers and consists of.
    Inspect {
        /// `name` or `name/version`.
        #[arg(value_name = "MODEL")]
        wanted: String,
    },
    /// Check hashes, licences, graphs and goldens on the device.
    Verify {
        /// `name` or `name/version`; all models when none is given.
        #[arg(value_name = "MODEL")]
        wanted: Vec<String>,
    },
    /// Time every step of a model on one thread.
    Profile {
        /// `name` or `name/version`.
        model: String,
        /// Rows of the batch.
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// Side of the square input, where the model allows another than its manifest's.
        #[arg(long)]
        side: Option<usize>,
    },
    /// Run a network outside the models folder against recorded answers.
    Compare {
        /// The network.
        onnx: PathBuf,
        /// A safetensors file with `input` and `output.<tensor>` tensors, rows first.
        golden: PathBuf,
    },
}

pub(super) fn run(command: &Command, common: &Common) -> anyhow::Result<ExitCode> {
    let config = common.load(vec![])?;
    match command {
        Command::List => list(&config),
        Command::Inspect { wanted } => inspect(&config, wanted),
        Command::Verify { wanted } => verify(&config, wanted),
        Command::Profile { model, batch, side } => {
            let listings = listings(&config.models.dir)?;
            let package = open(&config, chosen(&listings, model)?)?;
            super::profile::run(&config, &package, *batch, *side)
        }
        Command::Compare { onnx, golden } => super::compare::run(onnx, golden, &config),
    }
}

fn listings(dir: &Path) -> anyhow::Result<Vec<Listing>> {
    scan(dir).with_context(|| format!("cannot list the models of {}", dir.display()))
}

fn chosen<'a>(listings: &'a [Listing], wanted: &str) -> anyhow::Result<&'a Listing> {
    find(listings, wanted).with_context(|| format!("no model is called {wanted}"))
}

fn open(config: &Config, listing: &Listing) -> anyhow::Result<Package> {
    let policy = if config.models.accept_noncommercial {
        LicencePolicy::AcceptNonCommercial
    } else {
        LicencePolicy::Commercial
    };
    Ok(Package::open_with(&listing.dir, policy)?)
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["model", "task", "input", "precision", "licence", "origin", ""]);
    for listing in listings(&config.models.dir)? {
        let manifest = &listing.manifest;
        let live = [&config.models.detector, &config.models.embedder, &config.models.liveness]
            .into_iter()
            .any(|wanted| *wanted == manifest.name || *wanted == manifest.id());
        table.row(vec![
            manifest.id(),
            manifest.task.name().to_owned(),
            format!("{}×{}", manifest.input.width, manifest.input.height),
            manifest.precision.name().to_owned(),
            manifest.licence.as_str().to_owned(),
            format!("{} {}", manifest.origin.package, manifest.origin.version),
            if live { "live".to_owned() } else { String::new() },
        ]);
    }
    for line in table.lines() {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(config: &Config, wanted: &str) -> anyhow::Result<ExitCode> {
    let listings = listings(&config.models.dir)?;
    let package = open(config, chosen(&listings, wanted)?)?;
    let graph = package.graph()?;
    for line in manifest_lines(&package.manifest) {
        println!("{line}");
    }
    println!("parameters  {:.2} M", graph.parameters() as f64 / 1e6);
    println!("arithmetic  {:.1} M multiply-adds a row", graph.macs() as f64 / 1e6);
    let counts: Vec<String> =
        graph.op_counts().into_iter().map(|(op, count)| format!("{op} {count}")).collect();
    println!("graph       {}", counts.join(", "));
    for line in plan_lines(config, &package)? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// How this machine would run the model.
fn plan_lines(config: &Config, package: &Package) -> anyhow::Result<Vec<String>> {
    let cpu = DeviceOptions::of(&config.device)?.cpu;
    let precision = cpu.precision.unwrap_or(package.manifest.precision);
    let crew = Arc::new(Crew::new(1)?);
    let network = CpuNetwork::load(&package.graph()?, cpu.kernels, precision, crew)?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, algorithm) in network.steps() {
        *counts.entry(algorithm).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(algorithm, count)| format!("{algorithm} {count}")).collect();
    let [weights, activations] = network.memory().map(|bytes| bytes as f64 / (1 << 20) as f64);
    Ok(vec![
        format!("plan        {} kernels, {precision}: {}", network.kernels(), counts.join(", ")),
        format!("memory      {weights:.1} MiB of weights, {activations:.1} MiB for each thread"),
    ])
}

fn manifest_lines(manifest: &Manifest) -> Vec<String> {
    let input = &manifest.input;
    let mut lines = vec![
        format!("model       {}", manifest.id()),
        format!("task        {}", manifest.task.name()),
        format!("file        {}  sha256 {}", manifest.file, manifest.sha256.as_str()),
        format!("licence     {}", manifest.licence.as_str()),
        format!(
            "origin      {} {}, {}",
            manifest.origin.package, manifest.origin.version, manifest.origin.path
        ),
        format!("upstream    {}", manifest.origin.upstream),
        format!("trained on  {}", manifest.origin.training_data),
        format!(
            "input       {}  {}×{}  {:?}  {:?}  (x − {:?}) × {:?}",
            input.tensor,
            input.width,
            input.height,
            input.layout,
            input.colour,
            input.mean,
            input.scale
        ),
        format!("crop        {:?}", input.crop),
        format!("space       {}", space_id(manifest, manifest.precision)),
        format!("buckets     {:?}", manifest.buckets),
    ];
    for output in &manifest.outputs {
        lines.push(format!(
            "output      {}  {:?}  {:?}",
            output.tensor, output.shape, output.meaning
        ));
    }
    for row in &manifest.calibration {
        lines.push(format!("calibration {}: {}", row.id(), row.source()));
        for point in row.points() {
            lines.push(format!("            FMR {:e} at {:.3}", point.fmr, point.similarity));
        }
    }
    lines
}

fn verify(config: &Config, wanted: &[String]) -> anyhow::Result<ExitCode> {
    let listings = listings(&config.models.dir)?;
    let chosen: Vec<&Listing> = if wanted.is_empty() {
        listings.iter().collect()
    } else {
        wanted.iter().map(|name| chosen(&listings, name)).collect::<anyhow::Result<_>>()?
    };
    if chosen.is_empty() {
        bail!("{} holds no models", config.models.dir.display());
    }
    let device = Device::open(&DeviceOptions::of(&config.device)?)?;
    let bar = progress(chosen.len() as u64, "verifying models");
    let mut table = Table::new(&["model", "result", ">build ms", ">golden ms", "batches (ms)"]);
    let mut refusals = Vec::new();
    for listing in chosen {
        let loaded = open(config, listing)
            .and_then(|package| Ok(runtime()?.block_on(device.load(package))?));
        let mut cells = vec![listing.manifest.id()];
        match loaded {
            Ok(model) => cells.extend(timing_cells(&model)),
            Err(error) => {
                refusals.push(format!("{}: {error:#}", listing.manifest.id()));
                cells.push("REFUSED".to_owned());
            }
        }
        table.row(cells);
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("device {}", device.describe());
    for line in table.lines() {
        println!("{line}");
    }
    for refusal in &refusals {
        println!("{refusal}");
    }
    Ok(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn timing_cells(model: &crate::device::LoadedModel) -> Vec<String> {
    let timing = model.timing();
    let ms = |time: std::time::Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
    let buckets: Vec<String> =
        timing.buckets.iter().map(|(bucket, time)| format!("{bucket}: {}", ms(*time))).collect();
    vec!["ok".to_owned(), ms(timing.build), ms(timing.golden), buckets.join("  ")]
}
