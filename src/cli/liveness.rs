//! `menshen liveness`: runs one session against a server, with pictures from disk.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{self, RequestOptions, enum_name, reason_line};
use super::runtime;
use crate::proto::v1;
use crate::proto::v1::liveness_service_client::LivenessServiceClient;
use crate::proto::v1::run_response::Event;

/// Most frames that wait to be sent. The camera drops further frames.
const FRAMES_QUEUED_MAX: usize = 4;

/// Options of `menshen liveness`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    request: RequestOptions,
    /// Folder with the frames: JPEG files, taken in the order of their names.
    #[arg(long, value_name = "DIR", required_unless_present = "camera_simulated")]
    frames: Option<PathBuf>,
    /// Send this photograph (JPEG) for 10 seconds instead of frames: what an attacker with a
    /// photograph gets.
    #[arg(long, value_name = "FILE", conflicts_with = "frames")]
    camera_simulated: Option<PathBuf>,
    /// Frames per second, 1 to 60.
    #[arg(long, default_value_t = 10.0, value_parser = parse_fps)]
    fps: f64,
    /// Mark the frames as mirror images.
    #[arg(long)]
    mirrored: bool,
    /// Send all frames at once as a recording (`Evaluate`) instead of a stream (`Run`).
    #[arg(long)]
    batch: bool,
    /// Id of the transaction that the session belongs to. A transaction may have a few sessions
    /// only; unless given, each run is a new transaction.
    #[arg(long)]
    transaction: Option<String>,
    /// Id of the capture device.
    #[arg(long, default_value = "command-line")]
    device_id: String,
}

type LivenessClient = LivenessServiceClient<tonic::transport::Channel>;

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let portrait = client::read_image(&args.request.portrait)?;
    let files = frame_files(args)?;
    let result = runtime()?.block_on(async {
        let channel = client::connect(&args.request.server).await?;
        let mut client = LivenessServiceClient::new(channel);
        let session = create_session(&mut client, args, &portrait).await?;
        if args.batch {
            evaluate_recording(&mut client, args, portrait, session, &files).await
        } else {
            run_stream(&mut client, args, portrait, session, files).await
        }
    })?;
    print_result(&result);
    let passed = result.decision() == v1::Decision::Pass;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse_fps(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fps) if (1.0..=60.0).contains(&fps) => Ok(fps),
        _ => Err("must be from 1 to 60".to_owned()),
    }
}

/// Returns the files of the frames in order. A simulated camera repeats its photograph.
fn frame_files(args: &Args) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(photo) = &args.camera_simulated {
        return Ok(vec![photo.clone(); (args.fps * SIMULATED_SECONDS) as usize]);
    }
    let dir = args.frames.as_deref().context("--frames or --camera-simulated is required")?;
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read {}", dir.display()))?;
    files.retain(|file| is_jpeg(file));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .jpg or .jpeg file", dir.display());
    Ok(files)
}

/// How long the simulated camera shows its photograph.
const SIMULATED_SECONDS: f64 = 10.0;

fn is_jpeg(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| e.eq_ignore_ascii_case("jpg") || e.eq_ignore_ascii_case("jpeg"))
}

async fn create_session(
    client: &mut LivenessClient,
    args: &Args,
    portrait: &v1::Image,
) -> anyhow::Result<v1::CreateSessionResponse> {
    let assurance = if args.batch { v1::Assurance::Batch } else { v1::Assurance::Stream };
    let request = v1::CreateSessionRequest {
        context: Some(args.request.context()),
        device_id: args.device_id.clone(),
        transaction_id: args.transaction.clone().unwrap_or_else(new_transaction_id),
        portrait_sha256: Sha256::digest(&portrait.data).to_vec(),
        portrait: None,
        portrait_source: args.request.portrait_source(),
        policy_fmr: None,
        assurance: assurance.into(),
    };
    let session = client.create_session(request).await;
    let session = session.map_err(|status| client::call_error(&status))?.into_inner();
    println!(
        "session     {}  (attempt {} of {})",
        session.session_id, session.attempt, session.attempts_max
    );
    if let Some(prompt) = &session.prompt {
        println!("prompt      {}", prompt.message);
    }
    Ok(session)
}

fn new_transaction_id() -> String {
    format!("command-line/{}", uuid::Uuid::new_v4())
}

async fn evaluate_recording(
    client: &mut LivenessClient,
    args: &Args,
    portrait: v1::Image,
    session: v1::CreateSessionResponse,
    files: &[PathBuf],
) -> anyhow::Result<v1::LivenessResult> {
    println!("actions     {}", action_names(session.actions()));
    let begun_unix_ms = now_unix_ms();
    let frames = (0..).zip(files).map(|(index, file)| {
        let after = Duration::from_secs_f64(f64::from(index) / args.fps);
        read_frame(args, index, file, begun_unix_ms + whole_ms(after))
    });
    let request = v1::EvaluateRequest {
        context: Some(args.request.context()),
        token: session.token,
        device_id: args.device_id.clone(),
        portrait: Some(portrait),
        frames: frames.collect::<anyhow::Result<_>>()?,
    };
    client::wait_for_answer(client.evaluate(request)).await
}

async fn run_stream(
    client: &mut LivenessClient,
    args: &Args,
    portrait: v1::Image,
    session: v1::CreateSessionResponse,
    files: Vec<PathBuf>,
) -> anyhow::Result<v1::LivenessResult> {
    let (frames, outgoing) = mpsc::channel(FRAMES_QUEUED_MAX);
    let start = v1::Start {
        context: Some(args.request.context()),
        token: session.token,
        device_id: args.device_id.clone(),
        portrait: Some(portrait),
    };
    let start = v1::RunRequest { message: Some(v1::run_request::Message::Start(start)) };
    frames.try_send(start).context("the channel is empty and takes the start")?;
    let to_error = |status: tonic::Status| client::call_error(&status);
    let call = client.run(ReceiverStream::new(outgoing));
    let read_events = async {
        let mut events = call.await.map_err(to_error)?.into_inner();
        while let Some(event) = events.message().await.map_err(to_error)? {
            match event.event {
                Some(Event::Result(result)) => return Ok(*result),
                Some(event) => print_event(&event),
                None => {}
            }
        }
        anyhow::bail!("the server ended the stream without a result")
    };
    tokio::pin!(read_events);
    tokio::select! {
        result = &mut read_events => result,
        sent = send_frames(args, frames, files) => {
            sent?;
            read_events.await
        }
    }
}

/// Sends the frames at the camera's rate until the server ends the stream.
async fn send_frames(
    args: &Args,
    frames: mpsc::Sender<v1::RunRequest>,
    files: Vec<PathBuf>,
) -> anyhow::Result<()> {
    let mut frame_interval = tokio::time::interval(Duration::from_secs_f64(1.0 / args.fps));
    for (index, file) in (0..).zip(&files) {
        frame_interval.tick().await;
        let frame = read_frame(args, index, file, now_unix_ms())?;
        let frame = v1::RunRequest { message: Some(v1::run_request::Message::Frame(frame)) };
        if let Err(mpsc::error::TrySendError::Closed(_)) = frames.try_send(frame) {
            break;
        }
    }
    Ok(())
}

fn read_frame(
    args: &Args,
    sequence: u32,
    file: &Path,
    capture_unix_ms: i64,
) -> anyhow::Result<v1::Frame> {
    Ok(v1::Frame {
        sequence,
        capture_unix_ms,
        image: Some(client::read_image(file)?),
        mirrored: args.mirrored,
        rotation_degrees: 0,
    })
}

fn now_unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_ms)
}

fn whole_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn print_event(event: &Event) {
    match event {
        Event::Prompt(prompt) => println!("prompt      {}", prompt.message),
        Event::Guidance(guidance) => println!("guidance    {}", guidance.message),
        Event::StepDone(step) => {
            println!("done        {}", enum_name(step.action().as_str_name(), "ACTION_"));
        }
        Event::Thinned(thinned) => println!("thinned     {} frames so far", thinned.frames),
        Event::Result(_) => {}
    }
}

fn action_names(actions: impl Iterator<Item = v1::Action>) -> String {
    let names = actions.map(|action| enum_name(action.as_str_name(), "ACTION_").to_owned());
    names.collect::<Vec<_>>().join(", ")
}

fn print_result(result: &v1::LivenessResult) {
    println!("decision    {}", enum_name(result.decision().as_str_name(), "DECISION_"));
    println!("assurance   {}", enum_name(result.assurance().as_str_name(), "ASSURANCE_"));
    println!("actions     {}  ({} done)", action_names(result.actions()), result.steps_done);
    if let Some(similarity) = result.similarity {
        let limit = result.similarity_min.map_or(String::new(), |min| {
            format!("  (at least {min:.3} for a false-match rate of {:e})", result.policy_fmr)
        });
        println!("similarity  {similarity:.3}{limit}");
    }
    println!("frames      {} received, {} judged", result.frames_received, result.frames_judged);
    for reason in &result.reasons {
        println!("reason      {}", reason_line(reason));
    }
    for check in &result.checks {
        let bound = match check.kind() {
            v1::LimitKind::Max => "at most",
            v1::LimitKind::Min | v1::LimitKind::Unspecified => "at least",
        };
        let mark = if check.passed { "✓" } else { "✗" };
        println!("{mark} {:<26} {:>10.3}  ({bound} {:.3})", check.name, check.value, check.limit);
    }
}
