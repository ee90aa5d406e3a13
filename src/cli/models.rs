//! `menshen models`: which models are on disk, what they contain, and whether their goldens hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::compare::CompareOptions;
use super::options::{ConfigFile, DeviceOptions, ModelsFolder, text};
use super::table::Table;
use super::{progress_bar, runtime};
use crate::catalog::{ModelSettings, choose_members};
use crate::config::Config;
use crate::device::DeviceGroup;
use crate::engine::cpu::{CpuNetwork, ThreadTeam};
use crate::liveness::Fusion;
use crate::model::{Ensemble, Listing, Manifest, Package, find, scan, scan_ensembles, space_id};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the models of the models folder and mark those that `serve` would run.
    List {
        #[command(flatten)]
        file: ConfigFile,
        #[command(flatten)]
        folder: ModelsFolder,
    },
    /// Show the input, outputs, calibration and execution plan of a model.
    Inspect {
        /// `name` or `name/version`.
        model: String,
        #[command(flatten)]
        options: PlanOptions,
    },
    /// Check hashes, licences, graphs and goldens of models on a device; exits with 1 if one is
    /// refused.
    Verify {
        /// `name` or `name/version`; all models unless given.
        #[arg(value_name = "MODEL")]
        names: Vec<String>,
        #[command(flatten)]
        file: ConfigFile,
        #[command(flatten)]
        folder: ModelsFolder,
        #[command(flatten)]
        device: DeviceOptions,
    },
    /// Measure the time of every step of a model on one thread of the CPU.
    Profile {
        /// `name` or `name/version`.
        model: String,
        /// Rows in the batch, 1 to 256.
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// Side of the square input in pixels, for models that allow another side than their
        /// manifest's.
        #[arg(long)]
        side: Option<usize>,
        #[command(flatten)]
        options: PlanOptions,
    },
    /// Compare a network outside the models folder with recorded answers; exits with 1 if it
    /// differs.
    Compare {
        /// The network (ONNX).
        onnx: PathBuf,
        /// The recording: a safetensors file with tensors `input` and `output.<tensor>`, rows
        /// first.
        golden: PathBuf,
        #[command(flatten)]
        options: CompareOptions,
    },
}

/// Options of the commands that plan a model of the models folder for one thread of the CPU.
#[derive(Debug, clap::Args)]
pub(super) struct PlanOptions {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    folder: ModelsFolder,
    /// Precision of the model on the CPU (`device.precision`): `f32` or `bf16`. Unless set, the
    /// manifest decides.
    #[arg(long)]
    precision: Option<String>,
}

impl PlanOptions {
    fn load(&self) -> anyhow::Result<Config> {
        let mut overrides = self.folder.overrides();
        overrides.extend(text("device.precision", self.precision.as_deref()));
        self.file.load(&overrides)
    }
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { file, folder } => list(&file.load(&folder.overrides())?),
        Command::Inspect { model, options } => inspect(&options.load()?, model),
        Command::Verify { names, file, folder, device } => {
            let overrides = [folder.overrides(), device.overrides()].concat();
            verify(&file.load(&overrides)?, names)
        }
        Command::Profile { model, batch, side, options } => {
            let config = options.load()?;
            let listings = read_listings(&config.models.dir)?;
            let package = open_package(&config, find_listing(&listings, model)?)?;
            super::profile::run(&config, &package, *batch, *side)
        }
        Command::Compare { onnx, golden, options } => super::compare::run(onnx, golden, options),
    }
}

fn read_listings(dir: &Path) -> anyhow::Result<Vec<Listing>> {
    scan(dir).with_context(|| format!("cannot list the models of {}", dir.display()))
}

fn read_ensembles(dir: &Path) -> anyhow::Result<Vec<Ensemble>> {
    scan_ensembles(dir).with_context(|| format!("cannot list the ensembles of {}", dir.display()))
}

fn find_listing<'a>(listings: &'a [Listing], name: &str) -> anyhow::Result<&'a Listing> {
    find(listings, name).with_context(|| format!("no model is called {name}"))
}

fn open_package(config: &Config, listing: &Listing) -> anyhow::Result<Package> {
    Ok(Package::open_with(&listing.dir, config.models.licence_policy())?)
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["model", "task", "input", "precision", "licence", "origin", ""]);
    let models = &config.models;
    let ensembles = read_ensembles(&models.dir)?;
    let live = live_names(models, &ensembles);
    let mark = |name: &str, id: &str| {
        if live.contains(&name) || live.contains(&id) { "live".to_owned() } else { String::new() }
    };
    for listing in read_listings(&models.dir)? {
        let manifest = &listing.manifest;
        table.add_line(vec![
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
        table.add_line(vec![
            ensemble.id(),
            "passive-liveness".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            format!("{} of {}", fusion_name(ensemble), ensemble.members.join(", ")),
            mark(&ensemble.name, &ensemble.id()),
        ]);
    }
    for line in table.render() {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the names of the live models and of the members of the live ensemble, as `name` or
/// `name/version`.
fn live_names<'a>(models: &'a ModelSettings, ensembles: &'a [Ensemble]) -> Vec<&'a str> {
    let ModelSettings { detector, embedder, mesh, iris, liveness, .. } = models;
    let members = find_ensemble(ensembles, liveness).map(|ensemble| &ensemble.members);
    let settings = [detector, embedder, mesh, iris, liveness].into_iter();
    settings.chain(members.into_iter().flatten()).map(String::as_str).collect()
}

/// Returns the ensemble called `name`: the newest version, or the version that `name` gives.
fn find_ensemble<'a>(ensembles: &'a [Ensemble], name: &str) -> Option<&'a Ensemble> {
    ensembles.iter().rfind(|ensemble| name == ensemble.name || name == ensemble.id())
}

fn fusion_name(ensemble: &Ensemble) -> &'static str {
    match ensemble.fusion {
        Fusion::Mean => "mean",
        Fusion::Min => "min",
    }
}

fn inspect(config: &Config, name: &str) -> anyhow::Result<ExitCode> {
    if let Some(ensemble) = find_ensemble(&read_ensembles(&config.models.dir)?, name) {
        for line in ensemble_lines(ensemble) {
            println!("{line}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let listings = read_listings(&config.models.dir)?;
    let package = open_package(config, find_listing(&listings, name)?)?;
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

/// Returns lines about the plan by which this machine would run the model.
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
    for entry in &manifest.calibration {
        lines.push(format!("calibration {}: {}", entry.id(), entry.source()));
        for point in entry.points() {
            lines.push(format!("            FMR {:e} at {:.3}", point.fmr, point.similarity));
        }
    }
    lines
}

fn verify(config: &Config, names: &[String]) -> anyhow::Result<ExitCode> {
    let dir = &config.models.dir;
    let (listings, ensembles) = (read_listings(dir)?, read_ensembles(dir)?);
    let selection = Selection::new(&listings, &ensembles, names)?;
    if selection.models.is_empty() && selection.ensembles.is_empty() {
        bail!("{} holds no models", dir.display());
    }
    let runtime = runtime()?;
    let device = runtime.block_on(DeviceGroup::open(&config.device))?;
    let bar = progress_bar(selection.models.len() as u64, "verifying models");
    let mut table = Table::new(&["model", "result", ">build ms", ">golden ms", "batches (ms)"]);
    let mut refusals = Vec::new();
    for listing in selection.models {
        let loaded = open_package(config, listing)
            .and_then(|package| Ok(runtime.block_on(device.load(package))?));
        let cells = loaded.map(|model| timing_cells(&model));
        table.add_line(result_cells(listing.manifest.id(), cells, &mut refusals));
        bar.inc(1);
    }
    let manifests: Vec<&Manifest> = listings.iter().map(|listing| &listing.manifest).collect();
    for ensemble in selection.ensembles {
        let checked = choose_members(&manifests, ensemble).map(|_| vec!["ok".to_owned()]);
        table.add_line(result_cells(ensemble.id(), checked.map_err(Into::into), &mut refusals));
    }
    bar.finish_and_clear();
    for device in device.describe() {
        println!("device {device}");
    }
    for line in table.render() {
        println!("{line}");
    }
    for refusal in &refusals {
        println!("{refusal}");
    }
    Ok(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The models and ensembles to verify.
struct Selection<'a> {
    models: Vec<&'a Listing>,
    ensembles: Vec<&'a Ensemble>,
}

impl<'a> Selection<'a> {
    /// Selects everything if `names` is empty. An ensemble also selects its members, as far as they
    /// exist.
    fn new(
        listings: &'a [Listing],
        ensembles: &'a [Ensemble],
        names: &[String],
    ) -> anyhow::Result<Self> {
        if names.is_empty() {
            let (models, ensembles) = (listings.iter().collect(), ensembles.iter().collect());
            return Ok(Self { models, ensembles });
        }
        let mut selection = Self { models: Vec::new(), ensembles: Vec::new() };
        for name in names {
            match find_ensemble(ensembles, name) {
                None => selection.models.push(find_listing(listings, name)?),
                Some(ensemble) => {
                    let members = ensemble.members.iter();
                    selection.models.extend(members.filter_map(|member| find(listings, member)));
                    selection.ensembles.push(ensemble);
                }
            }
        }
        Ok(selection)
    }
}

/// Returns the table's cells of one result. The reason of a refusal is added to `refusals`.
fn result_cells(
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
