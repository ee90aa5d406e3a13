//! A session that was used on one replica is used up on all. Without the store of used sessions
//! nothing is decided.

use std::os::unix::fs::PermissionsExt;

use menshen::app::App;
use menshen::config::Config;
use menshen::proto::v1;
use menshen::trust::ReplayTarget;
use menshen_puppet::{Actor, FilmedFrame, Gesture, Performance, film};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::sessions::{
    PORTRAIT, Refusal, RunStream, batch_session, blank_frames, client_at, code, refusal, result_of,
    run_without_frames, stream_session,
};
use super::{
    Client, REAL_TIME_LOCK, create_session, describe_result, evaluate_request, gesture,
    live_config, models, puppet, session_request, start_message,
};
use crate::redis_server::RedisServer;
use crate::support::{http_get, reason_codes};

/// Most sessions that are created until one asks for the same actions again. All 34 sequences are
/// equally likely, so one run in 10⁵⁰ fails.
const DRAWS_MAX: usize = 4000;

/// Two servers that share a key file and a Redis server.
struct Replicas {
    redis: RedisServer,
    apps: [App; 2],
    _folders: [TempDir; 2],
}

impl Replicas {
    /// Returns `None` if there is no Redis to share.
    async fn start() -> Option<Self> {
        let redis = RedisServer::start()?;
        let folders = [models(), key_folder()];
        let replay = ReplayTarget::try_from(redis.url()).unwrap();
        let apps = start_two(&folders, &replay).await;
        Some(Self { redis, apps, _folders: folders })
    }

    async fn clients(&self) -> [Client; 2] {
        clients(&self.apps).await
    }
}

/// Returns a folder with a key file.
fn key_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("keys");
    std::fs::write(&key_file, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
    folder
}

/// Starts two servers with the same models and keys.
async fn start_two([models, keys]: &[TempDir; 2], replay: &ReplayTarget) -> [App; 2] {
    let settings = || -> Config {
        let mut config = live_config(models);
        config.liveness.key_file = Some(keys.path().join("keys"));
        config.liveness.replay = replay.clone();
        // Longer than any answer takes on a busy machine.
        config.liveness.replay_timeout_ms = 10_000;
        config
    };
    [App::start(settings()).await.unwrap(), App::start(settings()).await.unwrap()]
}

async fn clients([one, two]: &[App; 2]) -> [Client; 2] {
    [client_at(one.grpc_address()).await, client_at(two.grpc_address()).await]
}

/// Films an honest person who does what a session asks for.
async fn perform(session: &v1::CreateSessionResponse) -> Vec<FilmedFrame> {
    let gestures: Vec<Gesture> = session.actions().map(gesture).collect();
    let filming = move || {
        let puppet = puppet(PORTRAIT);
        let actor = Actor::new(7, puppet.turn_yaws());
        film(&puppet, &Performance::scripted(actor, &gestures, 10).shots, 7)
    };
    tokio::task::spawn_blocking(filming).await.unwrap()
}

/// Creates sessions until one asks for the same actions as `like`.
async fn draw_again(
    client: &mut Client,
    like: &v1::CreateSessionResponse,
) -> v1::CreateSessionResponse {
    for draw in 0..DRAWS_MAX {
        let session = batch_session(client, &format!("{}-{draw}", like.session_id)).await;
        if session.actions == like.actions {
            return session;
        }
    }
    panic!("the same actions are not drawn again");
}

async fn judge(
    client: &mut Client,
    session: &v1::CreateSessionResponse,
    frames: &[FilmedFrame],
) -> v1::LivenessResult {
    client.evaluate(evaluate_request(session, PORTRAIT, frames)).await.unwrap().into_inner()
}

/// Passes a session on `first`. Then `later` servers refuse the same session, and the same frames
/// fail in another session although they show the right actions.
async fn assert_replays_are_refused(first: &mut Client, later: &mut [Client]) {
    let _shared = REAL_TIME_LOCK.read().await;
    let session = batch_session(first, "honest-once").await;
    let frames = perform(&session).await;
    let honest = judge(first, &session, &frames).await;
    assert_eq!(honest.decision(), v1::Decision::Pass, "{}", describe_result(&honest));
    for client in &mut *later {
        let whole = client.evaluate(evaluate_request(&session, PORTRAIT, &frames)).await;
        assert_eq!(code(whole), Code::AlreadyExists);
    }
    for client in later {
        let again = draw_again(client, &session).await;
        assert_ne!(again.session_id, session.session_id);
        let replayed = judge(client, &again, &frames).await;
        assert_eq!(replayed.decision(), v1::Decision::Fail, "{}", describe_result(&replayed));
        let first = reason_codes(&replayed.reasons)[0];
        assert_eq!(first, v1::ReasonCode::ReplayedMedia, "{}", describe_result(&replayed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shown_again_to_the_same_server_is_recognised() {
    let mut client = super::client().await;
    let again = client.clone();
    assert_replays_are_refused(&mut client, &mut [again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shown_again_to_another_replica_is_recognised() {
    let Some(replicas) = Replicas::start().await else { return };
    let [mut one, two] = replicas.clients().await;
    let same = one.clone();
    assert_replays_are_refused(&mut one, &mut [two, same]).await;
}

/// Replicas refuse used sessions because of the store that they share. The settings do not allow a
/// key file without a shared store; these two servers were started around that rule.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_elsewhere_is_new_to_a_replica_with_a_store_of_its_own() {
    let _shared = REAL_TIME_LOCK.read().await;
    let folders = [models(), key_folder()];
    let apps = start_two(&folders, &ReplayTarget::Memory).await;
    let [mut one, mut apart] = clients(&apps).await;
    assert_a_dropped_stream_is_resumed_apart(&mut one, &mut apart).await;
    assert_the_same_bytes_pass_apart(&mut one, &mut apart).await;
}

async fn assert_a_dropped_stream_is_resumed_apart(one: &mut Client, apart: &mut Client) {
    let session = stream_session(one, "resumed").await;
    let mut running = RunStream::open(one, start_message(&session, PORTRAIT)).await;
    running.send_blanks_until_guidance(&session).await;
    drop(running);
    let resumed = run_without_frames(one, start_message(&session, PORTRAIT)).await;
    assert_eq!(code(resumed), Code::AlreadyExists);
    let resumed = run_without_frames(apart, start_message(&session, PORTRAIT)).await.unwrap();
    assert_eq!(resumed.session_id, session.session_id);
}

async fn assert_the_same_bytes_pass_apart(one: &mut Client, apart: &mut Client) {
    let session = batch_session(one, "same-bytes").await;
    let frames = perform(&session).await;
    let honest = judge(one, &session, &frames).await;
    assert_eq!(honest.decision(), v1::Decision::Pass, "{}", describe_result(&honest));
    let again = one.evaluate(evaluate_request(&session, PORTRAIT, &frames)).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let again = judge(apart, &session, &frames).await;
    assert_eq!(again.decision(), v1::Decision::Pass, "{}", describe_result(&again));
    assert_eq!(again.session_id, session.session_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_keys_attempts_used_sessions_and_results() {
    let Some(replicas) = Replicas::start().await else { return };
    let [mut one, mut two] = replicas.clients().await;
    let session = stream_session(&mut one, "shared").await;
    let result = run_without_frames(&mut two, start_message(&session, PORTRAIT)).await.unwrap();
    assert_eq!(result.decision(), v1::Decision::Retry);
    for client in [&mut one, &mut two] {
        let again = run_without_frames(client, start_message(&session, PORTRAIT)).await;
        assert_eq!(code(again), Code::AlreadyExists);
        assert_eq!(result_of(client, &session).await.unwrap(), result);
    }
    assert_eq!(batch_session(&mut two, "shared").await.attempt, 2);
    assert_eq!(stream_session(&mut one, "shared").await.attempt, 3);
    let request = session_request("shared", PORTRAIT, v1::Assurance::Stream);
    let Refusal { code, message, .. } = refusal(two.create_session(request).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("its 3 sessions"), "{message}");
}

/// Asserts that nothing was decided and that the client was told to try again.
fn assert_unavailable<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), Code::Unavailable, "{what}: {status}");
    let retry = status.get_details_retry_info().unwrap().retry_delay;
    assert!(retry.is_some(), "{what}: {status}");
    assert_eq!(status.message(), "the store of used sessions is unavailable", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_no_session_is_created_run_or_decided() {
    let Some(mut replicas) = Replicas::start().await else { return };
    let [mut client, _] = replicas.clients().await;
    let ended = stream_session(&mut client, "ended").await;
    run_without_frames(&mut client, start_message(&ended, PORTRAIT)).await.unwrap();
    let streamed = stream_session(&mut client, "down").await;
    let recorded = batch_session(&mut client, "down").await;
    let under_way = stream_session(&mut client, "down").await;
    let mut running = RunStream::open(&mut client, start_message(&under_way, PORTRAIT)).await;
    running.send_blanks_until_guidance(&under_way).await;
    replicas.redis.kill();

    let created = session_request("down", PORTRAIT, v1::Assurance::Stream);
    assert_unavailable("create", client.create_session(created).await);
    assert_unavailable(
        "run",
        run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await,
    );
    let request = evaluate_request(&recorded, PORTRAIT, &blank_frames(2));
    assert_unavailable("evaluate", client.evaluate(request).await);
    assert_unavailable("get result", result_of(&mut client, &ended).await);
    assert_unavailable("end of a stream", running.finish().await);
    let (_, text) = http_get(replicas.apps[0].http_address(), "/metrics").await;
    assert!(!text.contains("outcome=\"pass\""), "{text}");

    replicas.redis.restart();
    let session =
        create_session(&mut client, session_request("up", PORTRAIT, v1::Assurance::Stream)).await;
    run_without_frames(&mut client, start_message(&session, PORTRAIT)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_person_does_not_pass_when_the_store_is_lost_before_the_frames_are_compared() {
    let Some(mut replicas) = Replicas::start().await else { return };
    let [mut client, _] = replicas.clients().await;
    let session = stream_session(&mut client, "lost").await;
    let mut running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.send_blanks_until_guidance(&session).await;
    replicas.redis.kill();
    // Once the guidance is heeded, the first neutral frame is judged and compared.
    let filming = || {
        let puppet = puppet(PORTRAIT);
        let actor = Actor::new(7, puppet.turn_yaws());
        film(&puppet, &actor.track(700, 10), 7)
    };
    let frames = tokio::task::spawn_blocking(filming).await.unwrap();
    running.send_frames(&session, 600, &frames).await;
    assert_unavailable("run", running.wait_for_result().await);
}
