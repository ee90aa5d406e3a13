//! `menshen models`: what is on disk, what it holds, and whether it still answers as recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::table::Table;
use super::{Common, progress, runtime};
use crate::catalog::{ModelSettings, choose_members};
use crate::config::Config;
use crate::device::Device;
use crate::engine::cpu::{CpuNetwork, ThreadTeam};
use crate::liveness::Fusion;
use crate::model::{Ensemble, Listing, Manifest, Package, find, scan, scan_ensembles, space_id};

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

fn ensembles(dir: &Path) -> anyhow::Result<Vec<Ensemble>> {
    scan_ensembles(dir).with_context(|| format!("cannot list the ensembles of {}", dir.display()))
}

fn chosen<'a>(listings: &'a [Listing], wanted: &str) -> anyhow::Result<&'a Listing> {
    find(listings, wanted).with_context(|| format!("no model is called {wanted}"))
}

fn open(config: &Config, listing: &Listing) -> anyhow::Result<Package> {
    Ok(Package::open_with(&listing.dir, config.models.licence_policy())?)
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["model", "task", "input", "precision", "licence", "origin", ""]);
    let models = &config.models;
    let ensembles = ensembles(&models.dir)?;
    let live = live_names(models, &ensembles);
    let mark = |name: &str, id: &str| {
        if live.contains(&name) || live.contains(&id) { "live".to_owned() } else { String::new() }
    };
    for listing in listings(&models.dir)? {
        let manifest = &listing.manifest;
        table.row(vec![
            manifest.id(),
            manifest.task.name().to_owned(),
            format!("{}×{}", manifest.input.width, manifest.input.height),
            manifest.precision.name().to_owned(),
            manifest.licence.as_str().to_owned(),
            format!("{} {}", manifest.origin.package, manifest.origin.version),
            mark(&manifest.name, &manifest.id()),
        ]);
    }
    for ensemble in &ensembles {
        table.row(vec![
            ensemble.id(),
            "passive-liveness".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            format!("{} of {}", fusion_name(ensemble), ensemble.members.join(", ")),
            mark(&ensemble.name, &ensemble.id()),
        ]);
    }
    for line in table.lines() {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the live models and the live ensemble are called, by name or `name/version`.
fn live_names<'a>(models: &'a ModelSettings, ensembles: &'a [Ensemble]) -> Vec<&'a str> {
    let ModelSettings { detector, embedder, mesh, iris, liveness, .. } = models;
    let members = find_ensemble(ensembles, liveness).map(|ensemble| &ensemble.members);
    let asked = [detector, embedder, mesh, iris, liveness].into_iter();
    asked.chain(members.into_iter().flatten()).map(String::as_str).collect()
}

/// The ensemble called `wanted`, by name in its newest version.
fn find_ensemble<'a>(ensembles: &'a [Ensemble], wanted: &str) -> Option<&'a Ensemble> {
    ensembles.iter().rfind(|ensemble| wanted == ensemble.name || wanted == ensemble.id())
}

fn fusion_name(ensemble: &Ensemble) -> &'static str {
    match ensemble.fusion {
        Fusion::Mean => "mean",
        Fusion::Min => "min",
    }
}

fn inspect(config: &Config, wanted: &str) -> anyhow::Result<ExitCode> {
    if let Some(ensemble) = find_ensemble(&ensembles(&config.models.dir)?, wanted) {
        for line in ensemble_lines(ensemble) {
            println!("{line}");
        }
        return Ok(ExitCode::SUCCESS);
    }
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
    let device = &config.device;
    let precision = device.precision.unwrap_or(package.manifest.precision);
    let team = Arc::new(ThreadTeam::new(1)?);
    let network = CpuNetwork::load(&package.graph()?, device.kernels, precision, team)?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, algorithm) in network.steps() {
        *counts.entry(algorithm).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(algorithm, count)| format!("{algorithm} {count}")).collect();
    let [weights, activations] =
        network.memory_bytes().map(|bytes| bytes as f64 / (1 << 20) as f64);
    Ok(vec![
        format!("plan        {} kernels, {precision}: {}", network.kernels(), counts.join(", ")),
        format!("memory      {weights:.1} MiB of weights, {activations:.1} MiB for each thread"),
    ])
}

fn ensemble_lines(ensemble: &Ensemble) -> Vec<String> {
    let mut lines = vec![
        format!("ensemble    {}", ensemble.id()),
        "task        passive-liveness".to_owned(),
        format!("fusion      {}", fusion_name(ensemble)),
        format!("threshold   {}: {}", ensemble.score_min, ensemble.score_source),
    ];
    lines.extend(ensemble.members.iter().map(|member| format!("member      {member}")));
    lines
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
    let dir = &config.models.dir;
    let (listings, ensembles) = (listings(dir)?, ensembles(dir)?);
    let picked = Picked::of(&listings, &ensembles, wanted)?;
    if picked.models.is_empty() && picked.ensembles.is_empty() {
        bail!("{} holds no models", dir.display());
    }
    let runtime = runtime()?;
    let device = runtime.block_on(Device::open(&config.device))?;
    let bar = progress(picked.models.len() as u64, "verifying models");
    let mut table = Table::new(&["model", "result", ">build ms", ">golden ms", "batches (ms)"]);
    let mut refusals = Vec::new();
    for listing in picked.models {
        let loaded =
            open(config, listing).and_then(|package| Ok(runtime.block_on(device.load(package))?));
        let cells = loaded.map(|model| timing_cells(&model));
        table.row(result_row(listing.manifest.id(), cells, &mut refusals));
        bar.inc(1);
    }
    let manifests: Vec<&Manifest> = listings.iter().map(|listing| &listing.manifest).collect();
    for ensemble in picked.ensembles {
        let checked = choose_members(&manifests, ensemble).map(|_| vec!["ok".to_owned()]);
        table.row(result_row(ensemble.id(), checked.map_err(Into::into), &mut refusals));
    }
    bar.finish_and_clear();
    for device in device.describe() {
        println!("device {device}");
    }
    for line in table.lines() {
        println!("{line}");
    }
    for refusal in &refusals {
        println!("{refusal}");
    }
    Ok(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be verified.
struct Picked<'a> {
    models: Vec<&'a Listing>,
    ensembles: Vec<&'a Ensemble>,
}

impl<'a> Picked<'a> {
    /// All there is when nothing is named; an ensemble stands for itself and for its members as
    /// far as there are such models.
    fn of(
        listings: &'a [Listing],
        ensembles: &'a [Ensemble],
        wanted: &[String],
    ) -> anyhow::Result<Self> {
        if wanted.is_empty() {
            let (models, ensembles) = (listings.iter().collect(), ensembles.iter().collect());
            return Ok(Self { models, ensembles });
        }
        let mut picked = Self { models: Vec::new(), ensembles: Vec::new() };
        for name in wanted {
            match find_ensemble(ensembles, name) {
                None => picked.models.push(chosen(listings, name)?),
                Some(ensemble) => {
                    let members = ensemble.members.iter();
                    picked.models.extend(members.filter_map(|member| find(listings, member)));
                    picked.ensembles.push(ensemble);
                }
            }
        }
        Ok(picked)
    }
}

/// The row of what was verified; why it is refused is added to `refusals`.
fn result_row(
    id: String,
    result: anyhow::Result<Vec<String>>,
    refusals: &mut Vec<String>,
) -> Vec<String> {
    let cells = result.unwrap_or_else(|error| {
        refusals.push(format!("{id}: {error:#}"));
        vec!["REFUSED".to_owned()]
    });
    [vec![id], cells].concat()
}

fn timing_cells(model: &crate::device::LoadedModel) -> Vec<String> {
    let timing = model.timing();
    let ms = |time: std::time::Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
    let buckets: Vec<String> =
        timing.buckets.iter().map(|(bucket, time)| format!("{bucket}: {}", ms(*time))).collect();
    vec!["ok".to_owned(), ms(timing.build), ms(timing.golden), buckets.join("  ")]
}
