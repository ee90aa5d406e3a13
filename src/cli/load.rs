//! `menshen load`: sends calls to a server at a rate and reports how it answers.

mod print;
mod search;
mod when;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tonic::metadata::{MetadataKey, MetadataMap};

use super::options::SettingOptions;
use super::{client, runtime};
use crate::app::App;
use crate::load::{
    self, CallKind, Conditions, Film, Flow, Measured, Mix, Pictures, Plan, RunResult, Saturation,
    Stores, parse_duration,
};

/// Options of `menshen load`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Address of a server's gRPC listener. Without it, a server is started in this process.
    #[arg(long, conflicts_with_all = ["ConfigFile", "ModelsFolder", "DeviceOptions", "log"])]
    server: Option<String>,
    /// Address of the server's HTTP listener, such as 127.0.0.1:9464, to show what the server says
    /// of the run.
    #[arg(long, value_name = "ADDRESS", requires = "server")]
    metrics: Option<String>,
    /// What to send: verify, compare, embed, detect, check-liveness, health (the null call) or
    /// session; or a mix with weights, such as verify=8,detect=1,session=1. Full names such as
    /// grpc.health.v1.Health/Check are read, too.
    #[arg(long, value_name = "MIX", default_value = "verify")]
    call: Mix,

    #[command(flatten, next_help_heading = "When")]
    when: when::When,
    #[command(flatten, next_help_heading = "How")]
    how: How,
    #[command(flatten, next_help_heading = "What is in the calls")]
    content: Content,
    #[command(flatten, next_help_heading = "Search for saturation")]
    search: search::SearchOptions,
    #[command(flatten, next_help_heading = "Result")]
    output: Output,
    #[command(flatten, next_help_heading = "Options of the server in this process")]
    in_process: SettingOptions,
}

const AFTER_HELP: &str = "\
Open loop: calls are sent at their times whatever the server does, and latency counts from the
intended time. Exits with 1 if a threshold does not hold, or if the run is INVALID: the generator
itself was late (p99 of the lag above 1 ms, or above 5 % of the median latency; the null call is
held to 1 ms only). To measure networks on a device without a service around them, use
`menshen bench`.";

#[derive(Debug, clap::Args)]
struct How {
    /// Deadline of a call, from its intended time.
    #[arg(short, long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
    /// Longest time to connect.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// Number of connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Number of threads that send calls; each has its share of the connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    client_threads: usize,
    /// Let connections take turns over this many source addresses, from 127.0.1.1 on. The server
    /// must be on this machine.
    #[arg(long, value_name = "N", default_value_t = 0)]
    source_addresses: u8,
    /// Metadata of every call, as a JSON object of texts.
    #[arg(short, long, value_name = "JSON", value_parser = parse_metadata)]
    metadata: Option<MetadataMap>,
    /// Most MiB of all calls in flight. Calls beyond are not sent and count as errors.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    in_flight_mib_max: u64,
}

#[derive(Debug, clap::Args)]
struct Content {
    /// Folder with pictures (JPEG or PNG); the built-in portraits unless given.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Folder with the frames of sessions (JPEG), sent 10 a second in the order of their names. If
    /// it has a folder `rest`, that one is shown until a prompt, and the folder of the action
    /// (turn_left, turn_right, blink, nod, open_mouth) after it. Unless given, a person is
    /// rendered, which takes some seconds.
    #[arg(long, value_name = "DIR", requires = "portrait")]
    frames: Option<PathBuf>,
    /// Portrait of the person in the frames.
    #[arg(long, value_name = "FILE", requires = "frames")]
    portrait: Option<PathBuf>,
    /// Number of shops that the calls come from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    stores: u32,
    /// Exponent of Zipf's law: how much more the first shops send. 0: all alike.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    store_skew: f64,
    /// Beginning of the shops' ids; a number follows.
    #[arg(long, value_name = "TEXT", default_value = "load-")]
    store_prefix: String,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Fail unless these hold: conditions such as 'p99<150ms,error<0.1%,verify.p50<60ms,rate>=20'.
    #[arg(long, value_name = "CONDITIONS")]
    threshold: Option<Conditions>,
    /// Print the result as JSON, or write it to a file. `--json-schema` prints its schema.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Print the JSON schema of --json and exit.
    #[arg(long)]
    json_schema: bool,
    /// Write the latencies of every second as a log of HdrHistogram, in nanoseconds.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write the distribution of all latencies as text of HdrHistogram, in milliseconds.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Draw latencies and rates (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn parse_metadata(text: &str) -> Result<MetadataMap, String> {
    let entries: std::collections::BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| format!("no JSON object of texts: {error}"))?;
    let mut metadata = MetadataMap::new();
    for (key, value) in entries {
        let key: MetadataKey<tonic::metadata::Ascii> =
            key.parse().map_err(|_| format!("'{key}' is no key of text metadata"))?;
        let value = value.parse().map_err(|_| format!("the value of '{key}' is not ASCII"))?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.output.json_schema {
        println!("{}", load::REPORT_SCHEMA);
        return Ok(ExitCode::SUCCESS);
    }
    let Output { json, hlog, hgrm, plot, .. } = &args.output;
    let to_file = json.as_ref().filter(|path| *path != Path::new("-"));
    for path in [to_file, hlog.as_ref(), hgrm.as_ref(), plot.as_ref()].into_iter().flatten() {
        // A run may be long, so a file that cannot be written is reported before it.
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
        opened.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let kinds: Vec<CallKind> = args.call.kinds().collect();
    for conditions in [&args.output.threshold, &args.search.slo].into_iter().flatten() {
        conditions.check_kinds(&kinds)?;
    }
    let Some(server) = &args.server else { return run_in_process(args) };
    let plan = plan(args, server.clone(), args.metrics.clone())?;
    run_plan(args, &plan)
}

/// Runs against a server in this process, whose threads are not the generator's.
fn run_in_process(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.in_process.load_in_process()?;
    crate::telemetry::init_logs(&config.log)?;
    client::listen_on_free_ports(&mut config);
    let runtime = runtime()?;
    let spinner = super::spinner("loading the models and checking their goldens");
    let app = runtime.block_on(App::start(config));
    spinner.finish_and_clear();
    let app = app?;
    let metrics = Some(app.http_address().to_string());
    let code =
        plan(args, app.grpc_address().to_string(), metrics).and_then(|plan| run_plan(args, &plan));
    runtime.block_on(app.stop());
    code
}

fn run_plan(args: &Args, plan: &Plan) -> anyhow::Result<ExitCode> {
    if args.search.find_saturation {
        let (objective, found) = search::find(&args.search, plan, args.when.rate)?;
        let plan = Plan { traffic: search::found_traffic(plan, &found), ..plan.clone() };
        return finish(args, &plan, &found.run, Some((&objective, &found)));
    }
    let result = run_once(plan)?;
    finish(args, plan, &result, None)
}

/// Makes one run with a live line. Ctrl-C stops it early: the calls in flight are awaited, and the
/// result is that of the calls so far.
fn run_once(plan: &Plan) -> anyhow::Result<RunResult> {
    let bar = print::LiveLine::new(plan.traffic.duration());
    let is_interrupted = watch_for_interrupt()?;
    let result = load::run(plan, &mut |progress| {
        bar.show(progress);
        if is_interrupted.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
    });
    bar.finish();
    Ok(result?)
}

/// Returns a flag that Ctrl-C sets.
fn watch_for_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = Arc::clone(&flag);
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let interrupted = runtime.block_on(tokio::signal::ctrl_c());
        set.store(interrupted.is_ok(), Ordering::Relaxed);
    })?;
    Ok(flag)
}

/// Writes the files, prints the result and returns the exit code.
fn finish(
    args: &Args,
    plan: &Plan,
    result: &RunResult,
    saturation: Option<(&Conditions, &Saturation)>,
) -> anyhow::Result<ExitCode> {
    let Output { threshold, json, hlog, hgrm, plot, .. } = &args.output;
    let thresholds: Vec<Measured> = threshold.as_ref().map_or(Vec::new(), |of| of.measure(result));
    if let Some(path) = hlog {
        load::write_hlog(path, result)?;
    }
    if let Some(path) = hgrm {
        load::write_hgrm(path, result)?;
    }
    if let Some(path) = plot {
        write(path, &load::draw_plot(plan, result, saturation))?;
    }
    let is_printed_as_json = json.as_deref() == Some(Path::new("-"));
    if let Some(path) = json {
        let text = format!("{:#}\n", load::as_json(plan, result, &thresholds, saturation));
        if is_printed_as_json { print!("{text}") } else { write(path, &text)? }
    }
    if !is_printed_as_json {
        if let Some((objective, found)) = saturation {
            print::print_lines(&search::trial_lines(found));
            println!("\n{objective} holds up to {:.1} calls a second\n", found.rate);
        }
        print::print_result(plan, result, &thresholds);
    }
    let holds = thresholds.iter().all(|measured| measured.holds);
    let is_good = holds && result.problems.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn plan(args: &Args, server: String, metrics: Option<String>) -> anyhow::Result<Plan> {
    let Args { when, how, content, .. } = args;
    Ok(Plan {
        server,
        metrics,
        mix: args.call.clone(),
        traffic: when::traffic(when)?,
        warm_up: when.warm_up,
        timeout: how.timeout,
        connect_timeout: how.connect_timeout,
        connections: how.connections,
        threads: how.client_threads,
        source_addresses: how.source_addresses,
        stores: Stores {
            count: content.stores,
            skew: content.store_skew,
            prefix: content.store_prefix.clone(),
        },
        pictures: match &content.pictures {
            Some(folder) => Pictures::read(folder)?,
            None => Pictures::built_in(),
        },
        film: film(args)?,
        metadata: how.metadata.clone().unwrap_or_default(),
        in_flight_bytes_max: how.in_flight_mib_max.saturating_mul(1 << 20),
        seed: when.seed,
    })
}

/// Returns what the camera of sessions sees; `None` without sessions.
fn film(args: &Args) -> anyhow::Result<Option<Arc<Film>>> {
    if !args.call.kinds().any(|kind| kind == CallKind::Session) {
        return Ok(None);
    }
    let Content { frames, portrait, .. } = &args.content;
    if let (Some(frames), Some(portrait)) = (frames, portrait) {
        return Ok(Some(Arc::new(Film::read(frames, portrait)?)));
    }
    let bar = super::progress_bar(100, "rendering sessions");
    let film = Film::render(|share| bar.set_position((share * 100.0) as u64));
    bar.finish_and_clear();
    Ok(Some(Arc::new(film)))
}
