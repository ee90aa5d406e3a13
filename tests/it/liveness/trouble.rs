//! A session that ends by the server's fault costs no attempt. A session that ends by the client's
//! fault does.

use std::os::unix::fs::PermissionsExt;

use menshen::app::App;
use menshen::proto::v1;
use menshen::trust::ReplayTarget;
use tempfile::TempDir;
use tonic::Code;

use super::sessions::{
    PORTRAIT, RunStream, batch_session, blank_frame, blank_frames, client_at, code,
    run_without_frames, stream_session,
};
use super::{created_unix_ms, evaluate_request, session_request, start_message, wire_frame};
use crate::redis_server::RedisServer;
use crate::support::config;

/// ACL rules of Redis: refuse to keep results and nothing else; keep everything again.
const NO_RESULTS: [&str; 5] = [
    "resetkeys",
    "~menshen:1:attempts:*",
    "~menshen:1:returned:*",
    "~menshen:1:claim:*",
    "~menshen:1:frame:*",
];
const ALL: [&str; 1] = ["allkeys"];

/// Starts a server with a store that can be made to fail; returns `None` without Redis.
async fn serve() -> Option<(App, RedisServer, TempDir)> {
    let store = RedisServer::start()?;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("keys");
    std::fs::write(&key_file, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = config();
    config.liveness.key_file = Some(key_file);
    config.liveness.replay = ReplayTarget::try_from(store.url()).unwrap();
    // Longer than any answer takes on a busy machine.
    config.liveness.replay_timeout_ms = 10_000;
    Some((App::start(config).await.unwrap(), store, folder))
}

async fn allow(store: &RedisServer, keys: &[&str]) {
    let client = redis::Client::open(store.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut rule = redis::cmd("ACL");
    rule.arg("SETUSER").arg("default").arg(keys).exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_result_cannot_be_kept_costs_no_attempt() {
    let Some((app, store, _folder)) = serve().await else { return };
    let mut client = client_at(app.grpc_address()).await;
    allow(&store, &NO_RESULTS).await;
    for _ in 0..4 {
        let streamed = stream_session(&mut client, "trouble").await;
        assert_eq!(streamed.attempt, 1);
        let ended = run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await;
        assert_eq!(code(ended), Code::Unavailable);
        let recorded = batch_session(&mut client, "trouble").await;
        assert_eq!(recorded.attempt, 1);
        let ended = client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await;
        assert_eq!(code(ended), Code::Unavailable);
    }
    allow(&store, &ALL).await;
    let streamed = stream_session(&mut client, "trouble").await;
    assert_eq!(streamed.attempt, 1);
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap();
    assert_eq!(batch_session(&mut client, "trouble").await.attempt, 2, "a result is an attempt");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_endless_trouble_is_given_back_ten_attempts() {
    let Some((app, store, _folder)) = serve().await else { return };
    let mut client = client_at(app.grpc_address()).await;
    allow(&store, &NO_RESULTS).await;
    for session in 1..=13 {
        let recorded = batch_session(&mut client, "endless").await;
        assert_eq!(recorded.attempt, if session <= 11 { 1 } else { session - 10 });
        let ended = client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await;
        assert_eq!(code(ended), Code::Unavailable);
    }
    let refused =
        client.create_session(session_request("endless", PORTRAIT, v1::Assurance::Batch)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_its_client_breaks_or_leaves_costs_an_attempt() {
    let mut client = super::client().await;
    let broken = stream_session(&mut client, "own-fault").await;
    let running = RunStream::open(&mut client, start_message(&broken, PORTRAIT)).await;
    let frame = wire_frame(&blank_frame(0), 0, created_unix_ms(&broken));
    running.send(v1::Frame { rotation_degrees: 45, ..frame }).await;
    assert_eq!(code(running.wait_for_result().await), Code::InvalidArgument);

    let left = stream_session(&mut client, "own-fault").await;
    assert_eq!(left.attempt, 2);
    let mut running = RunStream::open(&mut client, start_message(&left, PORTRAIT)).await;
    running.send_blanks_until_guidance(&left).await;
    drop(running);

    let recorded = batch_session(&mut client, "own-fault").await;
    assert_eq!(recorded.attempt, 3);
    let mut request = evaluate_request(&recorded, PORTRAIT, &blank_frames(2));
    // The request can be read, so the session is used up before the request is refused.
    request.frames[1].sequence = request.frames[0].sequence;
    assert_eq!(code(client.evaluate(request).await), Code::InvalidArgument);
    let refused =
        client.create_session(session_request("own-fault", PORTRAIT, v1::Assurance::Batch)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
}
