//! The API of sessions: what is created, who may run a session, and what is refused.

use std::net::SocketAddr;

use menshen::app::App;
use menshen::proto::v1;
use menshen::proto::v1::run_request::Message;
use menshen::proto::v1::run_response::Event;
use menshen_puppet::FilmedFrame;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{
    Client, create_session, created_unix_ms, evaluate_request, liveness_client, run_request,
    session_request, start_message, wire_frame,
};
use crate::support::{
    SharedServer, channel, config, context, fixture, http_get, image, metric, png, reason_codes,
    shared_server, wait_for_metrics,
};

pub const PORTRAIT: &str = "person_b_1.jpg";

/// Another portrait of the same person.
const OTHER: &str = "person_b_2.jpg";

/// Returns a client of the server that all tests of the binary share. That server has the default
/// settings.
async fn client() -> Client {
    let SharedServer { grpc, .. } = tokio::task::spawn_blocking(shared_server).await.unwrap();
    client_at(*grpc).await
}

pub async fn client_at(address: SocketAddr) -> Client {
    liveness_client(channel(address).await)
}

pub async fn stream_session(client: &mut Client, transaction: &str) -> v1::CreateSessionResponse {
    create_session(client, session_request(transaction, PORTRAIT, v1::Assurance::Stream)).await
}

pub async fn batch_session(client: &mut Client, transaction: &str) -> v1::CreateSessionResponse {
    create_session(client, session_request(transaction, PORTRAIT, v1::Assurance::Batch)).await
}

/// Returns a frame without a face. Each index gives another frame.
pub fn blank_frame(index: u8) -> FilmedFrame {
    FilmedFrame {
        at_ms: u64::from(index) * 100,
        jpeg: png(480, 640, &vec![10 + index; 480 * 640 * 3]),
    }
}

pub fn blank_frames(count: u8) -> Vec<FilmedFrame> {
    (0..count).map(blank_frame).collect()
}

fn photo_frame(index: u8, name: &str) -> FilmedFrame {
    FilmedFrame { at_ms: u64::from(index) * 100, jpeg: fixture(name) }
}

/// A refused call.
pub struct Refusal {
    pub code: Code,
    /// Fields that the refusal names.
    pub fields: Vec<String>,
    pub message: String,
}

pub fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Refusal {
    let status = answer.unwrap_err();
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    let fields = violations.unwrap_or_default().into_iter().map(|one| one.field).collect();
    Refusal { code: status.code(), fields, message: status.message().to_owned() }
}

pub fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    refusal(answer).code
}

/// Asserts that one wrong field is named, and that the message contains `limit`.
fn assert_names<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str, limit: &str) {
    let Refusal { code, fields, message } = refusal(answer);
    assert_eq!((code, fields), (Code::InvalidArgument, vec![field.to_owned()]), "{message}");
    assert!(message.contains(limit), "{limit} in {message}");
}

/// A stream under way.
pub struct RunStream {
    frames: mpsc::Sender<v1::RunRequest>,
    events: Streaming<v1::RunResponse>,
}

impl RunStream {
    pub async fn open(client: &mut Client, first: v1::RunRequest) -> Self {
        let (frames, outgoing) = mpsc::channel(16);
        frames.send(first).await.unwrap();
        let events = client.run(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { frames, events }
    }

    /// Sends a frame; a session that has ended ignores it.
    pub async fn send(&self, frame: v1::Frame) {
        let _ = self.frames.send(run_request(Message::Frame(frame))).await;
    }

    /// Sends filmed frames, captured from `after_ms` of the session on.
    pub async fn send_frames(
        &self,
        session: &v1::CreateSessionResponse,
        after_ms: u16,
        frames: &[FilmedFrame],
    ) {
        let begun = created_unix_ms(session) + i64::from(after_ms);
        for (sequence, frame) in (u32::from(after_ms)..).zip(frames) {
            self.send(wire_frame(frame, sequence, begun)).await;
        }
    }

    /// Sends frames without a face until the server asks for one. From then on the session is under
    /// way.
    pub async fn send_blanks_until_guidance(&mut self, session: &v1::CreateSessionResponse) {
        self.send_frames(session, 0, &blank_frames(6)).await;
        let Some(Event::Guidance(guidance)) = self.events.message().await.unwrap().unwrap().event
        else {
            panic!("not guidance");
        };
        assert_eq!(guidance.code(), v1::GuidanceCode::ShowFace);
    }

    /// Ends the client's side of the stream and returns the result.
    pub async fn finish(self) -> Result<v1::LivenessResult, Status> {
        drop(self.frames);
        read_result(self.events).await
    }

    /// Returns the result of a stream whose client would send more.
    pub async fn wait_for_result(self) -> Result<v1::LivenessResult, Status> {
        read_result(self.events).await
    }
}

async fn read_result(mut events: Streaming<v1::RunResponse>) -> Result<v1::LivenessResult, Status> {
    while let Some(event) = events.message().await? {
        if let Some(Event::Result(result)) = event.event {
            assert_eq!(events.message().await?, None, "nothing follows the result");
            return Ok(*result);
        }
    }
    panic!("a stream ends with its result");
}

/// Runs a session that sends no frames.
pub async fn run_without_frames(
    client: &mut Client,
    first: v1::RunRequest,
) -> Result<v1::LivenessResult, Status> {
    RunStream::open(client, first).await.finish().await
}

/// Returns a changed start of a session.
fn start_with(
    session: &v1::CreateSessionResponse,
    change: impl FnOnce(&mut v1::Start),
) -> v1::RunRequest {
    let Some(Message::Start(mut begun)) = start_message(session, PORTRAIT).message else {
        panic!("it is a start");
    };
    change(&mut begun);
    run_request(Message::Start(begun))
}

pub async fn result_of(
    client: &mut Client,
    session: &v1::CreateSessionResponse,
) -> Result<v1::LivenessResult, Status> {
    let request =
        v1::GetResultRequest { context: context(), session_id: session.session_id.clone() };
    client.get_result(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_session_tells_its_rules_and_only_a_recording_its_actions() {
    let mut client = client().await;
    let streamed = stream_session(&mut client, "create").await;
    assert!(streamed.token.starts_with("v4.local.") && streamed.actions.is_empty());
    assert_eq!(streamed.request_id, "test-1");
    assert_eq!(streamed.session_id.len(), 32);
    let prompt = streamed.prompt.unwrap();
    assert_eq!((prompt.step, prompt.action()), (0, v1::Action::Unspecified));
    assert_eq!(prompt.message, "look straight into the camera");
    let rules = streamed.rules.unwrap();
    assert_eq!((rules.frame_bytes_max, rules.session_bytes_max), (256 << 10, 32 << 20));
    assert_eq!((rules.session_ms_max, rules.frames_per_second_min), (45_000, 7.5));

    let recorded = batch_session(&mut client, "create").await;
    assert_ne!((&recorded.session_id, &recorded.token), (&streamed.session_id, &streamed.token));
    let actions: Vec<v1::Action> = recorded.actions().collect();
    let is_turn = |action| matches!(action, v1::Action::TurnLeft | v1::Action::TurnRight);
    assert!(actions.iter().any(|action| is_turn(*action)), "{actions:?}");
    assert!(actions.contains(&v1::Action::Blink), "{actions:?}");
    assert!(actions.len() == 3 && actions.windows(2).all(|two| two[0] != two[1]), "{actions:?}");
}

#[tokio::test]
async fn every_wrong_field_of_a_session_request_is_named_at_once() {
    let request = v1::CreateSessionRequest {
        device_id: "tablet 1".into(),
        transaction_id: String::new(),
        portrait_sha256: vec![0; 31],
        portrait_source: v1::ImageSource::LivePhoto.into(),
        policy_fmr: Some(1.0),
        assurance: 9,
        ..session_request("any", PORTRAIT, v1::Assurance::Stream)
    };
    let Refusal { code, fields, .. } = refusal(client().await.create_session(request).await);
    assert_eq!(code, Code::InvalidArgument);
    let all = "device_id transaction_id portrait_sha256 portrait_source policy_fmr assurance";
    assert_eq!(fields.join(" "), all);
}

/// Returns a request that contains the portrait's file.
fn session_request_with_file(transaction: &str, file: Vec<u8>) -> v1::CreateSessionRequest {
    v1::CreateSessionRequest {
        portrait_sha256: vec![],
        portrait: image(file),
        ..session_request(transaction, PORTRAIT, v1::Assurance::Stream)
    }
}

#[tokio::test]
async fn a_session_that_was_created_from_a_portrait_runs_with_that_very_file() {
    let mut client = client().await;
    let session =
        create_session(&mut client, session_request_with_file("file", fixture(PORTRAIT))).await;
    let other = start_with(&session, |start| start.portrait = image(fixture(OTHER)));
    let Refusal { code, message, .. } = refusal(run_without_frames(&mut client, other).await);
    assert_eq!(code, Code::PermissionDenied, "{message}");
    let result = run_without_frames(&mut client, start_message(&session, PORTRAIT)).await.unwrap();
    assert_eq!(result.portrait_sha256, hex_sha256(&fixture(PORTRAIT)));
}

fn hex_sha256(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_session_request_names_its_portrait_in_one_way_and_by_a_file_that_could_be_a_picture() {
    let mut client = client().await;
    let both = v1::CreateSessionRequest {
        portrait_sha256: vec![0; 32],
        ..session_request_with_file("portrait", fixture(PORTRAIT))
    };
    assert_names(client.create_session(both).await, "portrait", "portrait_sha256");
    let neither = v1::CreateSessionRequest {
        portrait: None,
        ..session_request_with_file("portrait", vec![])
    };
    assert_names(client.create_session(neither).await, "portrait", "portrait_sha256");
    let most = config().image.bytes_max;
    for (file, rule) in [
        (vec![], "required"),
        (b"GIF89a".to_vec(), "the gif format"),
        (b"no picture".to_vec(), "neither a jpeg nor a png"),
        (vec![0xFF; most + 1], &most.to_string()),
    ] {
        let refused = client.create_session(session_request_with_file("portrait", file)).await;
        assert_names(refused, "portrait.data", rule);
    }
    // A refused request costs no attempt.
    assert_eq!(
        create_session(&mut client, session_request_with_file("portrait", fixture(PORTRAIT)))
            .await
            .attempt,
        1
    );
}

#[tokio::test]
async fn a_deployment_says_how_many_bytes_a_session_may_send() {
    let mut config = config();
    (config.image.bytes_max, config.liveness.session_bytes_max) = (100_000, 1 << 20);
    let app = App::start(config).await.unwrap();
    let mut client = client_at(app.grpc_address()).await;
    let session = batch_session(&mut client, "bytes").await;
    assert_eq!(session.rules.unwrap().session_bytes_max, 1 << 20);
    // 16 frames of 90 kB exceed the session's limit and the limit of the whole message.
    let large =
        |index: u8| FilmedFrame { at_ms: u64::from(index) * 100, jpeg: vec![index; 90_000] };
    let frames: Vec<FilmedFrame> = (0..16).map(large).collect();
    let Refusal { code, message, .. } =
        refusal(client.evaluate(evaluate_request(&session, PORTRAIT, &frames)).await);
    // `Evaluate` has the largest messages of all methods, so tonic's own limit answers.
    assert_eq!(code, Code::OutOfRange, "{message}");
    assert!(message.contains("1345184"), "{message}");
    app.stop().await;
}

#[tokio::test]
async fn a_policy_that_the_calibration_cannot_support_is_refused_and_costs_no_attempt() {
    let mut client = client().await;
    let request = session_request("policy", PORTRAIT, v1::Assurance::Stream);
    let strict = v1::CreateSessionRequest { policy_fmr: Some(1e-12), ..request.clone() };
    for _ in 0..4 {
        assert_names(
            client.create_session(strict.clone()).await,
            "policy_fmr",
            "the calibration supports",
        );
    }
    assert_eq!(create_session(&mut client, request).await.attempt, 1);
}

#[tokio::test]
async fn each_transaction_has_its_own_few_attempts() {
    let mut client = client().await;
    for attempt in 1..=3 {
        // Every session counts as an attempt, whichever way its frames will come.
        let session = match attempt {
            2 => batch_session(&mut client, "tried").await,
            _ => stream_session(&mut client, "tried").await,
        };
        assert_eq!((session.attempt, session.attempts_max), (attempt, 3));
    }
    let request = session_request("tried", PORTRAIT, v1::Assurance::Stream);
    for _ in 0..2 {
        let Refusal { code, message, .. } = refusal(client.create_session(request.clone()).await);
        assert_eq!(code, Code::FailedPrecondition);
        assert_eq!(message, "the transaction has used all of its 3 sessions");
    }
    assert_eq!(stream_session(&mut client, "not-tried").await.attempt, 1);
}

#[tokio::test]
async fn an_expired_session_is_not_run() {
    let mut config = config();
    // Shorter than the settings allow: the session has expired when it begins.
    config.liveness.session_ttl_ms = 0;
    let app = App::start(config).await.unwrap();
    let mut client = client_at(app.grpc_address()).await;
    let streamed = stream_session(&mut client, "late").await;
    let Refusal { code, message, .. } =
        refusal(run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await);
    assert_eq!((code, &*message), (Code::FailedPrecondition, "the session has expired"));
    let recorded = batch_session(&mut client, "late").await;
    let answer = client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await;
    assert_eq!(code_and_message(answer), (code, message));
    app.stop().await;

    // The same calls succeed where sessions live longer.
    let mut patient = self::client().await;
    let (streamed, recorded) = (
        stream_session(&mut patient, "in-time").await,
        batch_session(&mut patient, "in-time").await,
    );
    run_without_frames(&mut patient, start_message(&streamed, PORTRAIT)).await.unwrap();
    patient.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await.unwrap();
}

fn code_and_message<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let Refusal { code, message, .. } = refusal(answer);
    (code, message)
}

#[tokio::test]
async fn a_session_is_for_one_store_device_and_portrait_and_a_refused_start_does_not_use_it() {
    let mut client = client().await;
    type ChangeStart = fn(&mut v1::Start);
    // Changes the session request so that it fits the changed start.
    type BindSession = fn(&mut v1::CreateSessionRequest);
    let foreign: [(&str, ChangeStart, BindSession); 3] = [
        (
            "store",
            |start| start.context.as_mut().unwrap().store_id = "shop-2".into(),
            |request| request.context.as_mut().unwrap().store_id = "shop-2".into(),
        ),
        (
            "device",
            |start| start.device_id = "tablet-2".into(),
            |request| request.device_id = "tablet-2".into(),
        ),
        (
            "portrait",
            |start| start.portrait = image(fixture(OTHER)),
            |request| request.portrait_sha256 = Sha256::digest(fixture(OTHER)).to_vec(),
        ),
    ];
    let streamed = stream_session(&mut client, "bound").await;
    let recorded = batch_session(&mut client, "bound").await;
    for (what, change, bind) in foreign {
        let Refusal { code, message, .. } =
            refusal(run_without_frames(&mut client, start_with(&streamed, change)).await);
        assert_eq!(code, Code::PermissionDenied, "{message}");
        assert_eq!(message, format!("the session is bound to another {what}"));
        let Some(Message::Start(theirs)) = start_with(&recorded, change).message else {
            panic!("it is a start");
        };
        let v1::Start { context, token, device_id, portrait } = theirs;
        let frames = evaluate_request(&recorded, PORTRAIT, &blank_frames(2)).frames;
        let request = v1::EvaluateRequest { context, token, device_id, portrait, frames };
        assert_eq!(code_and_message(client.evaluate(request).await), (code, message));

        let transaction = format!("bound-{what}");
        let mut bound = session_request(&transaction, PORTRAIT, v1::Assurance::Stream);
        bind(&mut bound);
        let theirs = create_session(&mut client, bound).await;
        run_without_frames(&mut client, start_with(&theirs, change)).await.expect(what);
    }
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap();
    client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await.unwrap();
}

#[tokio::test]
async fn a_portrait_is_swapped_neither_after_the_start_nor_before_it() {
    let mut client = client().await;
    let session = stream_session(&mut client, "swapped").await;
    let running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.frames.send(start_message(&session, OTHER)).await.unwrap();
    assert_names(running.wait_for_result().await, "frame", "must follow the start");

    let session = stream_session(&mut client, "swapped").await;
    let Refusal { code, message, .. } =
        refusal(run_without_frames(&mut client, start_message(&session, OTHER)).await);
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(message, "the session is bound to another portrait");

    // The same start fits a session that was created for it.
    let request = session_request("swapped", OTHER, v1::Assurance::Stream);
    let session = create_session(&mut client, request).await;
    let result = run_without_frames(&mut client, start_message(&session, OTHER)).await.unwrap();
    assert_eq!(result.portrait_sha256, hex_sha256(&fixture(OTHER)));
}

/// Returns the token with the first character of a class, searched from `from` on, replaced by a
/// character of another class.
fn with_character_replaced(
    token: &str,
    from: usize,
    is_of_class: impl Fn(char) -> bool,
    with: &str,
) -> String {
    let at = from + token[from..].find(is_of_class).expect("tokens hold every class of characters");
    format!("{}{with}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn a_token_that_was_changed_anywhere_is_refused_and_the_session_stays_usable() {
    let mut client = client().await;
    let session = stream_session(&mut client, "tampered").await;
    let token = &session.token;
    let (body, footer) = ("v4.local.".len(), token.rfind('.').unwrap() + 1);
    let changed_tokens = [
        with_character_replaced(token, body, |c| c.is_ascii_lowercase(), "A"),
        with_character_replaced(token, body, |c| c.is_ascii_uppercase(), "7"),
        with_character_replaced(token, body, |c| c.is_ascii_digit(), "-"),
        with_character_replaced(token, body, |c| "-_".contains(c), "z"),
        with_character_replaced(token, body + 300, |c| c.is_ascii_lowercase(), "="),
        with_character_replaced(token, body + 300, |c| c.is_ascii_lowercase(), "é"),
        with_character_replaced(token, footer, |c| c.is_ascii_lowercase(), "A"),
        with_character_replaced(token, footer, |c| c.is_ascii_uppercase(), "b"),
        with_character_replaced(token, 0, |c| c == '4', "3"),
        with_character_replaced(token, 0, |c| c == '.', ":"),
        token[..footer - 1].to_owned(),
        token[..token.len() - 1].to_owned(),
        format!("{token}A"),
        format!("{token} "),
        token.to_uppercase(),
        "v4.local.".to_owned(),
        "no token".to_owned(),
    ];
    for tampered in changed_tokens {
        let first = start_with(&session, |s| s.token.clone_from(&tampered));
        assert_names(run_without_frames(&mut client, first).await, "token", "token");
    }
    run_without_frames(&mut client, start_message(&session, PORTRAIT)).await.unwrap();
}

#[tokio::test]
async fn a_token_of_another_server_is_refused() {
    let (mut here, mut there) = (client().await, super::client().await);
    let session = stream_session(&mut there, "elsewhere").await;
    assert_names(
        run_without_frames(&mut here, start_message(&session, PORTRAIT)).await,
        "token",
        "unknown key",
    );
    run_without_frames(&mut there, start_message(&session, PORTRAIT)).await.unwrap();
}

#[tokio::test]
async fn a_session_is_judged_by_the_call_it_was_created_for() {
    let mut client = client().await;
    let (streamed, recorded) =
        (stream_session(&mut client, "call").await, batch_session(&mut client, "call").await);
    let run = run_without_frames(&mut client, start_message(&recorded, PORTRAIT)).await;
    let wanted = "the session was created for Evaluate".to_owned();
    assert_eq!(code_and_message(run), (Code::FailedPrecondition, wanted));
    let evaluated = client.evaluate(evaluate_request(&streamed, PORTRAIT, &blank_frames(2))).await;
    let wanted = "the session was created for Run".to_owned();
    assert_eq!(code_and_message(evaluated), (Code::FailedPrecondition, wanted));
    // The refused calls did not use the sessions up.
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap();
    client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(2))).await.unwrap();
}

#[tokio::test]
async fn a_session_serves_once() {
    let mut client = client().await;
    let streamed = stream_session(&mut client, "once").await;
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap();
    let again = run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await;
    let wanted = "the session was used before: create another one".to_owned();
    assert_eq!(code_and_message(again), (Code::AlreadyExists, wanted));

    let recorded = batch_session(&mut client, "once").await;
    let request = evaluate_request(&recorded, PORTRAIT, &blank_frames(2));
    let race = (0..8).map(|_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.evaluate(request).await }
    });
    let (judged, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(race).await.into_iter().partition(Result::is_ok);
    assert_eq!((judged.len(), refused.len()), (1, 7));
    assert!(refused.into_iter().all(|answer| code(answer) == Code::AlreadyExists));
}

#[tokio::test]
async fn a_stream_that_was_dropped_is_not_resumed() {
    let mut client = client().await;
    let session = stream_session(&mut client, "dropped").await;
    let mut running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.send_blanks_until_guidance(&session).await;
    drop(running);
    let resumed = run_without_frames(&mut client, start_message(&session, PORTRAIT)).await;
    assert_eq!(code(resumed), Code::AlreadyExists);
}

#[tokio::test]
async fn a_stream_is_one_start_and_then_frames() {
    let mut client = client().await;
    let session = stream_session(&mut client, "order").await;
    let frame = wire_frame(&blank_frame(0), 0, created_unix_ms(&session));
    for first in [v1::RunRequest::default(), run_request(Message::Frame(frame))] {
        assert_names(
            run_without_frames(&mut client, first).await,
            "start",
            "must be the first message",
        );
    }
    let nothing = client.run(tokio_stream::empty()).await.unwrap().into_inner();
    assert_names(read_result(nothing).await, "start", "must be the first message");

    let running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.frames.send(start_message(&session, PORTRAIT)).await.unwrap();
    assert_names(running.wait_for_result().await, "frame", "must follow the start");
}

#[tokio::test]
async fn a_frame_that_breaks_a_rule_is_named_with_its_limit() {
    let mut client = client().await;
    type Change = fn(&mut v1::Frame);
    let broken: [(&str, &str, Change); 7] = [
        (".image.data", "", |f| f.image = image(b"no picture".to_vec())),
        (".image.data", "", |f| f.image.as_mut().unwrap().data.truncate(100)),
        (".image.data", "is required", |f| f.image = None),
        ("", "frame of 262145 bytes, at most 262144", |f| {
            f.image.as_mut().unwrap().data.resize((256 << 10) + 1, 0);
        }),
        (".rotation_degrees", "must be 0, 90, 180 or 270, but is 45", |f| f.rotation_degrees = 45),
        (".capture_unix_ms", "must not be negative", |f| f.capture_unix_ms = -1),
        ("", "frame 0 does not follow frame 0", |f| f.sequence = 0),
    ];
    for (index, (field, limit, break_it)) in broken.into_iter().enumerate() {
        let transaction = format!("broken-{index}");
        let streamed = stream_session(&mut client, &transaction).await;
        let running = RunStream::open(&mut client, start_message(&streamed, PORTRAIT)).await;
        let mut frames = evaluate_request(&streamed, PORTRAIT, &blank_frames(2)).frames;
        break_it(&mut frames[1]);
        for frame in frames {
            running.send(frame).await;
        }
        assert_names(running.wait_for_result().await, &format!("frame{field}"), limit);

        let recorded = batch_session(&mut client, &transaction).await;
        let mut request = evaluate_request(&recorded, PORTRAIT, &blank_frames(2));
        break_it(&mut request.frames[1]);
        assert_names(client.evaluate(request).await, &format!("frames[1]{field}"), limit);
    }
}

#[tokio::test]
async fn a_recording_from_before_its_session_is_refused() {
    let mut client = client().await;
    let session = batch_session(&mut client, "earlier").await;
    let mut request = evaluate_request(&session, PORTRAIT, &blank_frames(2));
    request.frames[0].capture_unix_ms -= 60_000;
    let answer = client.evaluate(request).await;
    assert_names(answer, "frames[0].capture_unix_ms", "is before the session was created");
}

#[tokio::test]
async fn a_client_that_stops_early_is_asked_to_try_again() {
    let mut client = client().await;
    let session = stream_session(&mut client, "early").await;
    let running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.send_frames(&session, 0, &blank_frames(3)).await;
    let result = running.finish().await.unwrap();
    assert_eq!(result.decision(), v1::Decision::Retry);
    assert_eq!(reason_codes(&result.reasons)[0], v1::ReasonCode::SessionExpired);
    assert_eq!((result.assurance(), result.steps_done), (v1::Assurance::Stream, 0));
    assert_eq!((result.frames_received, result.frames_judged), (3, 0));
    assert_eq!((result.matched_frame, result.similarity), (None, None));
    assert_eq!(result.session_id, session.session_id);
    assert_eq!(result.portrait_sha256, hex_sha256(&fixture(PORTRAIT)));
}

#[tokio::test]
async fn a_client_that_stops_early_is_told_which_guidance_it_ignored() {
    let mut client = client().await;
    let streamed = stream_session(&mut client, "unheeded").await;
    let mut running = RunStream::open(&mut client, start_message(&streamed, PORTRAIT)).await;
    running.send_blanks_until_guidance(&streamed).await;
    let streamed = running.finish().await.unwrap();
    let recorded = batch_session(&mut client, "unheeded").await;
    let evaluated =
        client.evaluate(evaluate_request(&recorded, PORTRAIT, &blank_frames(6))).await.unwrap();
    for result in [streamed, evaluated.into_inner()] {
        assert_eq!(result.decision(), v1::Decision::Retry);
        let expected = [v1::ReasonCode::SessionExpired, v1::ReasonCode::FaceNotFound];
        assert_eq!(reason_codes(&result.reasons)[..2], expected);
    }
}

#[tokio::test]
async fn a_result_is_told_again_to_its_store_alone_and_not_before_the_end() {
    let mut client = client().await;
    let session = stream_session(&mut client, "result").await;
    let missing = "the session has no result".to_owned();
    let wanted = (Code::NotFound, missing);
    assert_eq!(code_and_message(result_of(&mut client, &session).await), wanted);
    let mut running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    running.send_blanks_until_guidance(&session).await;
    assert_eq!(code_and_message(result_of(&mut client, &session).await), wanted);
    let result = running.finish().await.unwrap();
    for _ in 0..2 {
        let again = result_of(&mut client, &session).await.unwrap();
        assert_eq!(again.encode_to_vec(), result.encode_to_vec());
    }
    let mut stranger = context().unwrap();
    stranger.store_id = "shop-2".into();
    let session_id = session.session_id.clone();
    let theirs = v1::GetResultRequest { context: Some(stranger), session_id };
    assert_eq!(code_and_message(client.get_result(theirs).await), wanted);
    for session_id in ["", "0123", &"g".repeat(32), &format!("{}00", session.session_id)] {
        let session_id = session_id.to_owned();
        let request = v1::GetResultRequest { context: context(), session_id };
        assert_names(client.get_result(request).await, "session_id", "32 hexadecimal digits");
    }
}

/// Returns a recording with the same bytes twice, which no camera produces.
fn repeated_frames(session: &v1::CreateSessionResponse) -> v1::EvaluateRequest {
    let frames = [photo_frame(0, "person_b_2.jpg"), photo_frame(1, "person_b_2.jpg")];
    evaluate_request(session, PORTRAIT, &frames)
}

#[tokio::test]
async fn callers_learn_what_gave_an_attack_away_only_where_the_operator_said_so() {
    let (mut silent, mut open) = (client().await, super::client().await);
    let session = batch_session(&mut silent, "attack").await;
    let result = silent.evaluate(repeated_frames(&session)).await.unwrap().into_inner();
    assert_eq!(result.decision(), v1::Decision::Fail);
    assert_eq!(reason_codes(&result.reasons)[0], v1::ReasonCode::LivenessFailed, "{result:?}");
    let reasons = reason_codes(&result.reasons);
    assert!(!reasons.contains(&v1::ReasonCode::DuplicateFrames), "{reasons:?}");
    assert!(result.reasons.iter().all(|reason| (reason.value, reason.limit) == (None, None)));
    assert!(result.checks.is_empty());
    assert_eq!((result.similarity, result.score100), (None, None));

    let session = batch_session(&mut open, "attack").await;
    let result = open.evaluate(repeated_frames(&session)).await.unwrap().into_inner();
    assert_eq!(result.decision(), v1::Decision::Fail);
    assert_eq!(reason_codes(&result.reasons)[0], v1::ReasonCode::DuplicateFrames);
    assert!(!result.checks.is_empty());
}

#[tokio::test]
async fn a_portrait_without_a_face_is_to_be_taken_again() {
    let mut client = client().await;
    let portrait = png(200, 300, &[120; 200 * 300 * 3]);
    let faceless = |assurance| v1::CreateSessionRequest {
        portrait_sha256: Sha256::digest(&portrait).to_vec(),
        ..session_request("faceless", PORTRAIT, assurance)
    };
    let recorded = create_session(&mut client, faceless(v1::Assurance::Batch)).await;
    let frames = [photo_frame(0, "person_b_1.jpg"), photo_frame(1, "person_b_2.jpg")];
    let request = v1::EvaluateRequest {
        portrait: image(portrait.clone()),
        ..evaluate_request(&recorded, PORTRAIT, &frames)
    };
    let evaluated = client.evaluate(request).await.unwrap().into_inner();
    let streamed = create_session(&mut client, faceless(v1::Assurance::Stream)).await;
    let first = start_with(&streamed, |start| start.portrait = image(portrait.clone()));
    // The client learns the result without sending a frame.
    let ran = RunStream::open(&mut client, first).await.wait_for_result().await.unwrap();
    for result in [evaluated, ran] {
        assert_eq!(result.decision(), v1::Decision::Retry);
        assert_eq!(reason_codes(&result.reasons), [v1::ReasonCode::FaceNotFound]);
        assert_eq!(result.reasons[0].subject, "portrait");
        assert_eq!(result.frames_received, 0);
    }
}

#[tokio::test]
async fn a_portrait_that_is_no_picture_is_refused() {
    let mut client = client().await;
    let portrait = b"no picture".to_vec();
    let request = v1::CreateSessionRequest {
        portrait_sha256: Sha256::digest(&portrait).to_vec(),
        ..session_request("unreadable", PORTRAIT, v1::Assurance::Stream)
    };
    let session = create_session(&mut client, request).await;
    let first = start_with(&session, |start| start.portrait = image(portrait));
    assert_names(run_without_frames(&mut client, first).await, "portrait.data", "");
}

#[tokio::test]
async fn nothing_is_served_before_the_models_are_live() {
    let app = App::bind(config()).await.unwrap();
    let mut client = client_at(app.grpc_address()).await;
    let session = v1::CreateSessionResponse {
        token: "v4.local.any".into(),
        session_id: "0".repeat(32),
        expires_unix_ms: 120_000,
        ..Default::default()
    };
    let request = session_request("soon", PORTRAIT, v1::Assurance::Stream);
    for refused in [
        client.create_session(request).await.map(drop),
        run_without_frames(&mut client, start_message(&session, PORTRAIT)).await.map(drop),
        client.evaluate(evaluate_request(&session, PORTRAIT, &blank_frames(1))).await.map(drop),
        result_of(&mut client, &session).await.map(drop),
    ] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
    app.stop().await;
}

#[tokio::test]
async fn a_stream_that_finds_no_room_for_its_bytes_is_told_to_try_again() {
    let mut config = config();
    // The limit has room for the portrait and never for a larger message.
    config.server.bytes_max = 180_000;
    let app = App::start(config).await.unwrap();
    let mut client = client_at(app.grpc_address()).await;
    let session = stream_session(&mut client, "room").await;
    let running = RunStream::open(&mut client, start_message(&session, PORTRAIT)).await;
    let large = FilmedFrame { at_ms: 0, jpeg: vec![0; 200_000] };
    running.send(wire_frame(&large, 0, created_unix_ms(&session))).await;
    let status = running.wait_for_result().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let overloaded = "menshen_requests_total{method=\"run\",outcome=\"overloaded\"}";
    assert_eq!(metric(&http_get(app.http_address(), "/metrics").await.1, overloaded), 1.0);
    app.stop().await;
}

#[tokio::test]
async fn sessions_are_counted_by_how_they_ended() {
    let app = App::start(config()).await.unwrap();
    let mut client = client_at(app.grpc_address()).await;
    let (streamed, recorded) =
        (stream_session(&mut client, "count").await, batch_session(&mut client, "count").await);
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap();
    run_without_frames(&mut client, start_message(&streamed, PORTRAIT)).await.unwrap_err();
    client.evaluate(repeated_frames(&recorded)).await.unwrap();
    client.evaluate(repeated_frames(&recorded)).await.unwrap_err();
    result_of(&mut client, &recorded).await.unwrap();
    let (_, text) = http_get(app.http_address(), "/metrics").await;
    for (method, outcome, count) in [
        ("create_session", "answered", 2.0),
        ("run", "retry", 1.0),
        ("run", "invalid", 1.0),
        ("evaluate", "fail", 1.0),
        ("evaluate", "invalid", 1.0),
        ("get_result", "answered", 1.0),
    ] {
        let line = format!("menshen_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}}");
        assert_eq!(metric(&text, &line), count, "{line}\n{text}");
    }
    assert_eq!(metric(&text, "menshen_requests_in_flight"), 0.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_its_stream_or_loses_its_connection_frees_its_place() {
    let mut config = config();
    config.server.requests_max = 1;
    let app = App::start(config).await.unwrap();
    let (grpc, http) = (app.grpc_address(), app.http_address());
    let mut client = client_at(grpc).await;
    for (left, loses_its_connection) in [(1.0, false), (2.0, true)] {
        let streamed = stream_session(&mut client, "left").await;
        // The customer's connection: it is cut when this runtime ends.
        let customer_runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let opened = customer_runtime.spawn(async move {
            let mut customer = client_at(grpc).await;
            let mut running =
                RunStream::open(&mut customer, start_message(&streamed, PORTRAIT)).await;
            running.send_blanks_until_guidance(&streamed).await;
            running
        });
        let running = opened.await.unwrap();
        let (_, text) = http_get(http, "/metrics").await;
        assert_eq!(metric(&text, "menshen_tickets"), 1.0, "{text}");
        let refused =
            client.create_session(session_request("other", PORTRAIT, v1::Assurance::Batch)).await;
        assert_eq!(code(refused), Code::ResourceExhausted, "the only place is taken");
        if !loses_its_connection {
            drop(running);
            wait_for_metrics(http, |text| metric(text, "menshen_tickets") == 0.0).await;
        }
        customer_runtime.shutdown_background();
        wait_for_metrics(http, |text| {
            metric(text, "menshen_tickets") == 0.0
                && metric(text, "menshen_requests_in_flight") == 0.0
        })
        .await;
        let (_, text) = http_get(http, "/metrics").await;
        // Chance decides whether the server learns first of the end of the frames or of the whole
        // call.
        let ended = ["cancelled", "retry"].map(|outcome| {
            let line = format!("menshen_requests_total{{method=\"run\",outcome=\"{outcome}\"}}");
            metric(&text, &line)
        });
        assert_eq!(ended.iter().sum::<f64>(), left, "{text}");
    }
    app.stop().await;
}
