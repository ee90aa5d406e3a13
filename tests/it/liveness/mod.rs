//! Liveness sessions from end to end: a puppet before a camera, a real server, the real networks.
//!
//! One network is not real. A rendered face is no photograph, so the score of the passive network
//! proves nothing. The server under test uses `fixed_live` instead, which finds every face live.

mod attacks;
mod command;
mod honest;
mod replicas;
mod sessions;
mod trouble;

use std::sync::OnceLock;
use std::time::Duration;

use menshen::app::App;
use menshen::proto::v1;
use menshen::proto::v1::liveness_service_client::LivenessServiceClient;
use menshen::proto::v1::run_response::Event;
use menshen_puppet::{Actor, FilmedFrame, Gesture, Puppet, shoot};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{RwLock, mpsc};
use tokio::time::{Instant, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::support::{channel, config, context, copy_folder, fixture, image, portrait, repository};

type Client = LivenessServiceClient<Channel>;

/// Serialises streams in real time, which need a server that keeps up. Such tests take the lock for
/// writing; tests with recordings, which can wait, take the lock for reading.
static REAL_TIME_LOCK: RwLock<()> = RwLock::const_new(());

/// Portraits from which puppets are made.
const PORTRAITS: [&str; 8] = [
    "person_a_1.jpg",
    "person_a_2.jpg",
    "person_b_1.jpg",
    "person_b_2.jpg",
    "impostor_1.jpg",
    "impostor_2.jpg",
    "astronaut.png",
    "grace_hopper.jpg",
];

/// Start of the tests' recordings, in milliseconds after the session was created.
const RECORDED_AFTER_MS: i64 = 1000;

/// Returns a folder with the models of the repository and `fixed_live`.
fn models() -> TempDir {
    let models = tempfile::tempdir().unwrap();
    copy_folder(&config().models.dir, models.path());
    copy_folder(&repository().join("tests/fixtures/models"), models.path());
    models
}

/// Returns the settings of a server that finds every face live and tells callers everything.
fn live_config(models: &TempDir) -> menshen::config::Config {
    let mut config = config();
    config.models.dir = models.path().to_owned();
    config.models.liveness = "fixed_live".to_owned();
    config.liveness.tells_all = true;
    config
}

/// Returns a client of the server that these tests share.
async fn client() -> Client {
    static SHARED: OnceLock<(Runtime, App, TempDir)> = OnceLock::new();
    let start = || {
        SHARED.get_or_init(|| {
            let (runtime, models) = (Runtime::new().unwrap(), models());
            let app = runtime.block_on(App::start(live_config(&models))).unwrap();
            (runtime, app, models)
        })
    };
    let address = tokio::task::spawn_blocking(move || start().1.grpc_address()).await.unwrap();
    liveness_client(channel(address).await)
}

fn liveness_client(channel: Channel) -> Client {
    LivenessServiceClient::new(channel)
}

fn puppet(name: &str) -> Puppet {
    let (picture, points) = portrait(name);
    Puppet::person(&picture, &points)
}

fn session_request(
    transaction: &str,
    portrait: &str,
    assurance: v1::Assurance,
) -> v1::CreateSessionRequest {
    v1::CreateSessionRequest {
        context: context(),
        device_id: "tablet-1".into(),
        transaction_id: transaction.into(),
        portrait_sha256: Sha256::digest(fixture(portrait)).to_vec(),
        portrait: None,
        portrait_source: v1::ImageSource::IdFile.into(),
        policy_fmr: None,
        assurance: assurance.into(),
    }
}

async fn create_session(
    client: &mut Client,
    request: v1::CreateSessionRequest,
) -> v1::CreateSessionResponse {
    client.create_session(request).await.unwrap().into_inner()
}

/// Creates sessions until one asks for these actions. One session in 34 does.
async fn create_with_actions(
    client: &mut Client,
    transaction: &str,
    portrait: &str,
    actions: [v1::Action; 3],
) -> v1::CreateSessionResponse {
    for attempt in 0..2000 {
        let request =
            session_request(&format!("{transaction}-{attempt}"), portrait, v1::Assurance::Batch);
        let session = create_session(client, request).await;
        if session.actions().eq(actions) {
            return session;
        }
    }
    panic!("{actions:?} is never drawn");
}

/// Returns the puppet's gesture for an action of the API.
fn gesture(action: v1::Action) -> Gesture {
    match action {
        v1::Action::TurnLeft => Gesture::TurnLeft,
        v1::Action::TurnRight => Gesture::TurnRight,
        v1::Action::Blink => Gesture::Blink,
        v1::Action::Nod => Gesture::Nod,
        v1::Action::OpenMouth => Gesture::OpenMouth,
        v1::Action::Unspecified => panic!("an action is asked for by name"),
    }
}

fn wire_frame(frame: &FilmedFrame, sequence: u32, begun_unix_ms: i64) -> v1::Frame {
    v1::Frame {
        sequence,
        capture_unix_ms: begun_unix_ms + i64::try_from(frame.at_ms).unwrap(),
        image: image(frame.jpeg.clone()),
        mirrored: false,
        rotation_degrees: 0,
    }
}

/// Returns the time at which a session was created, in milliseconds of Unix time.
fn created_unix_ms(session: &v1::CreateSessionResponse) -> i64 {
    session.expires_unix_ms - 120_000
}

/// Returns an `Evaluate` request with a recording.
fn evaluate_request(
    session: &v1::CreateSessionResponse,
    portrait: &str,
    frames: &[FilmedFrame],
) -> v1::EvaluateRequest {
    let begun = created_unix_ms(session) + RECORDED_AFTER_MS;
    v1::EvaluateRequest {
        context: context(),
        token: session.token.clone(),
        device_id: "tablet-1".into(),
        portrait: image(fixture(portrait)),
        frames: (0..).zip(frames).map(|(index, frame)| wire_frame(frame, index, begun)).collect(),
    }
}

fn start_message(session: &v1::CreateSessionResponse, portrait: &str) -> v1::RunRequest {
    run_request(v1::run_request::Message::Start(v1::Start {
        context: context(),
        token: session.token.clone(),
        device_id: "tablet-1".into(),
        portrait: image(fixture(portrait)),
    }))
}

fn run_request(message: v1::run_request::Message) -> v1::RunRequest {
    v1::RunRequest { message: Some(message) }
}

/// Runs a stream in real time, with 10 frames per second. `react` gets each prompt with its time
/// and moves the actor. The seed fixes the actor's habits.
async fn run_stream(
    client: &mut Client,
    session: &v1::CreateSessionResponse,
    portrait: &str,
    (puppet, seed): (Puppet, u64),
    mut react: impl FnMut(&mut Actor, Gesture, u64),
) -> Result<(Vec<Event>, v1::LivenessResult), Status> {
    let (frames, outgoing) = mpsc::channel(4);
    frames.send(start_message(session, portrait)).await.unwrap();
    let mut answers = client.run(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut actor = Actor::new(seed, puppet.turn_yaws());
    let (begun, begun_unix_ms) = (Instant::now(), created_unix_ms(session));
    let mut frame_interval = interval(Duration::from_millis(100));
    let mut events = Vec::new();
    for sequence in 0.. {
        tokio::select! {
            event = answers.message() => match event?.and_then(|event| event.event) {
                Some(Event::Result(result)) => return Ok((events, *result)),
                Some(event) => {
                    if let Event::Prompt(prompt) = &event {
                        let now_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
                        react(&mut actor, gesture(prompt.action()), now_ms);
                    }
                    events.push(event);
                }
                None => panic!("a stream ends with its result"),
            },
            _ = frame_interval.tick() => {
                let at_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
                let (shot, puppet) = (actor.shot(at_ms), puppet.clone());
                let film = move || FilmedFrame::new(at_ms, &shoot(&puppet, &shot, at_ms));
                let frame = tokio::task::spawn_blocking(film).await.unwrap();
                let frame = wire_frame(&frame, sequence, begun_unix_ms);
                // A session that has ended takes no more frames.
                let _ = frames.send(run_request(v1::run_request::Message::Frame(frame))).await;
            }
        }
    }
    unreachable!("the server ends every session")
}

/// Describes a result for the message of a failed test.
fn describe_result(result: &v1::LivenessResult) -> String {
    let checks = result.checks.iter().filter(|check| !check.passed);
    format!(
        "{:?} after {} steps of {:?}: {:?}, {} frames, {} judged, similarity {:?}, broken {:?}",
        result.decision(),
        result.steps_done,
        result.actions().collect::<Vec<_>>(),
        result.reasons.iter().map(|r| (r.code(), r.value, r.limit)).collect::<Vec<_>>(),
        result.frames_received,
        result.frames_judged,
        result.similarity,
        checks.map(|check| (&check.name, check.value, check.limit)).collect::<Vec<_>>(),
    )
}
