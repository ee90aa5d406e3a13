//! What operators and callers learn about a call: its id, its line in the log, its place in the
//! metrics, and when a refused caller may come back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use menshen::app::App;
use menshen::proto::v1;
use menshen::proto::v1::liveness_service_client::LivenessServiceClient;
use menshen::proto::v1::run_request::Message as Sent;
use menshen::telemetry::{LogFormat, LogSettings, subscriber};
use prost::Message;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::raw;
use crate::support::{
    channel, config, connect, context, embed_request, fixture, http_get, image, metric,
    shared_server, verify_request, wait_for_metrics,
};

const REQUEST_ID: &str = "menshen-request-id";

async fn grpc() -> SocketAddr {
    tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap()
}

/// The lines that this process has logged.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    /// Captures the lines of all servers of this process in the format of a deployment, with
    /// everything that Menshen itself may log.
    fn capture() -> &'static Self {
        static LINES: OnceLock<LogLines> = OnceLock::new();
        LINES.get_or_init(|| {
            let lines = Self::default();
            let filter = "menshen=trace,info".to_owned();
            let settings = LogSettings { format: LogFormat::Json, filter, ..Default::default() };
            let writer = {
                let lines = lines.clone();
                move || lines.clone()
            };
            let subscriber = subscriber(&settings, writer).unwrap();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            lines
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn all(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the lines in the span of a call.
    fn of_call(&self, id: &str) -> Vec<Value> {
        self.all().into_iter().filter(|line| line["span"]["request_id"] == id).collect()
    }

    /// Returns the line of a call, and asserts that the call has only one.
    fn only_line_of(&self, id: &str) -> Value {
        let mut lines = self.of_call(id);
        assert_eq!(lines.len(), 1, "{id}: {lines:#?}");
        lines.remove(0)
    }
}

/// Returns the id in the trailers of an answer.
fn call_id(trailers: &HeaderMap) -> String {
    let id = trailers.get(REQUEST_ID).expect("the trailers name the call").to_str().unwrap();
    let parsed = uuid::Uuid::parse_str(id).unwrap();
    assert_eq!(parsed.get_version_num(), 4, "{id}");
    id.to_owned()
}

fn call_id_of(status: &Status) -> String {
    call_id(&status.metadata().clone().into_headers())
}

fn detect(name: &str) -> v1::DetectRequest {
    let source = v1::ImageSource::LivePhoto.into();
    v1::DetectRequest { context: context(), image: image(fixture(name)), source }
}

#[tokio::test]
async fn every_answer_names_its_call_in_its_trailers() {
    let address = grpc().await;
    let message = detect("person_b_1.jpg").encode_to_vec();
    let answer = raw::send(address, "Detect", &message, None).await;
    assert_eq!(answer.status().code(), Code::Ok);
    assert!(answer.headers.get(REQUEST_ID).is_none(), "{:?}", answer.headers);
    let mut ids = vec![call_id(&answer.trailers.unwrap())];
    let huge = vec![0xff; 20 << 20];
    for (what, method, message, timeout, code) in [
        ("no fields", "Detect", &[][..], None, Code::InvalidArgument),
        ("no time", "Detect", &message, Some("0m"), Code::DeadlineExceeded),
        ("no timeout", "Detect", &message, Some("soon"), Code::InvalidArgument),
        ("too large", "Detect", &huge, None, Code::InvalidArgument),
        ("no message", "Detect", &[0xff; 8], None, Code::Internal),
        ("no method", "Recognise", &message, None, Code::Unimplemented),
    ] {
        let answer = raw::send(address, method, message, timeout).await;
        assert_eq!(answer.status().code(), code, "{what}: {}", answer.status());
        ids.push(call_id(answer.status_headers()));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "every call has an id of its own");
}

#[tokio::test]
async fn a_stream_names_its_call_at_its_end() {
    let mut client = LivenessServiceClient::new(channel(grpc().await).await);
    let frame = v1::RunRequest { message: Some(Sent::Frame(v1::Frame::default())) };
    let mut refused = client.run(tokio_stream::iter([frame])).await.unwrap();
    assert!(refused.metadata().get(REQUEST_ID).is_none(), "{:?}", refused.metadata());
    let status = refused.get_mut().message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    call_id_of(&status);

    let request = v1::CreateSessionRequest {
        context: context(),
        device_id: "tablet-1".into(),
        transaction_id: "operations".into(),
        portrait_sha256: Vec::new(),
        portrait: image(fixture("person_b_1.jpg")),
        portrait_source: v1::ImageSource::IdFile.into(),
        policy_fmr: None,
        assurance: v1::Assurance::Stream.into(),
    };
    let session = client.create_session(request).await.unwrap().into_inner();
    let start = v1::Start {
        context: context(),
        token: session.token,
        device_id: "tablet-1".into(),
        portrait: image(fixture("person_b_1.jpg")),
    };
    let start = v1::RunRequest { message: Some(Sent::Start(start)) };
    let mut events = client.run(tokio_stream::iter([start])).await.unwrap().into_inner();
    while events.message().await.unwrap().is_some() {}
    call_id(&events.trailers().await.unwrap().unwrap().into_headers());
}

#[tokio::test]
async fn a_refusal_names_the_same_retry_delay_in_its_details_and_its_trailer() {
    let mut config = config();
    config.server.bytes_max = 1000;
    // The models are not loaded, so the server refuses every call that it has room for.
    let app = App::bind(config).await.unwrap();
    let mut client = connect(app.grpc_address()).await;
    for (bytes, code, delay_ms) in
        [(2000, Code::ResourceExhausted, 100), (500, Code::Unavailable, 1000)]
    {
        let request = embed_request(vec![0xff; bytes], v1::ImageSource::IdFile);
        let status = client.embed(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        let info = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(info, Some(Duration::from_millis(delay_ms)));
        let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback.to_str().unwrap(), delay_ms.to_string());
        call_id_of(&status);
    }
    let malformed = client.embed(v1::EmbedRequest::default()).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert!(malformed.metadata().get("grpc-retry-pushback-ms").is_none());
    app.stop().await;
}

#[tokio::test]
async fn the_callers_id_is_echoed_or_without_one_the_servers() {
    let mut client = connect(grpc().await).await;
    for (sent, is_echoed) in [("callers-own", true), ("", false)] {
        let mut request = detect("person_b_1.jpg");
        request.context.as_mut().unwrap().request_id = sent.to_owned();
        let answer = client.detect(request).await.unwrap();
        let server_id = call_id(&answer.metadata().clone().into_headers());
        assert_ne!(server_id, sent);
        let echoed = answer.into_inner().request_id;
        assert_eq!(echoed, if is_echoed { sent.to_owned() } else { server_id });
    }
}

#[tokio::test]
async fn a_call_gives_one_line_whichever_way_it_ends() {
    let lines = LogLines::capture();
    let address = grpc().await;
    let message = detect("person_b_1.jpg").encode_to_vec();
    for (message, timeout, level, code, outcome) in [
        (&message[..], None, "INFO", "OK", "answered"),
        (&[], None, "INFO", "INVALID_ARGUMENT", "invalid"),
        (&[0xff; 8], None, "INFO", "INTERNAL", "invalid"),
        (&message, Some("0m"), "WARN", "DEADLINE_EXCEEDED", "expired"),
    ] {
        let answer = raw::send(address, "Detect", message, timeout).await;
        let line = lines.only_line_of(&call_id(answer.status_headers()));
        assert_eq!(line["message"], "call ended");
        assert_eq!(line["level"], level, "{line:#}");
        assert_eq!(line["code"], code, "{line:#}");
        let span = line["span"].as_object().unwrap();
        assert_eq!(span["method"], "detect");
        assert_eq!(span["outcome"], outcome);
        assert!(span["total_ms"].is_f64(), "{line:#}");
        // A call that ran out of time may have finished its first stages.
        let stages = ["decode_ms", "queue_ms", "detect_ms", "align_ms"];
        if code == "OK" {
            for stage in stages {
                assert!(span[stage].as_f64().unwrap() > 0.0, "{stage} in {line:#}");
            }
        }
        let others = ["name", "method", "request_id", "outcome", "total_ms"];
        for field in span.keys() {
            let is_listed = [&others[..], &stages].concat().contains(&field.as_str());
            assert!(is_listed, "{field} in {line:#}");
        }
    }
}

#[tokio::test]
async fn a_call_whose_caller_leaves_gives_its_line_too() {
    let lines = LogLines::capture();
    // No other test cancels a call of this method.
    let app = App::bind(config()).await.unwrap();
    let stream = tokio::net::TcpStream::connect(app.grpc_address()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let url = format!("http://{}/menshen.v1.FaceService/CheckLiveness", app.grpc_address());
    let request = http::Request::post(url).header("content-type", "application/grpc").body(());
    let (_answer, _body) = client.send_request(request.unwrap(), false).unwrap();
    wait_for_metrics(app.http_address(), |text| metric(text, "menshen_requests_in_flight") == 1.0)
        .await;
    connection.abort();
    wait_for_metrics(app.http_address(), |text| metric(text, "menshen_requests_in_flight") == 0.0)
        .await;
    let (_, text) = http_get(app.http_address(), "/metrics").await;
    let left = "menshen_requests_total{method=\"check_liveness\",outcome=\"cancelled\"}";
    assert_eq!(metric(&text, left), 1.0, "{text}");
    let is_ours = |line: &&Value| {
        line["span"]["method"] == "check_liveness" && line["span"]["outcome"] == "cancelled"
    };
    // The gauge falls just before the line is written.
    let line = loop {
        if let Some(line) = lines.all().iter().find(is_ours) {
            break line.clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&line["code"], &line["level"]), (&"CANCELLED".into(), &"INFO".into()));
    app.stop().await;
}

#[tokio::test]
async fn answers_can_be_left_out_of_the_log_and_errors_cannot() {
    let lines = LogLines::capture();
    let mut config = config();
    config.log.calls_sampled = 0.0;
    let app = App::start(config).await.unwrap();
    let address = app.grpc_address();
    let message = detect("person_b_1.jpg").encode_to_vec();
    let answered = raw::send(address, "Detect", &message, None).await;
    assert_eq!(answered.status().code(), Code::Ok);
    assert_eq!(lines.of_call(&call_id(answered.status_headers())), Vec::<Value>::new());
    for (message, timeout) in [(&[][..], None), (&message, Some("0m")), (&[0xff; 8], None)] {
        let refused = raw::send(address, "Detect", message, timeout).await;
        assert_ne!(refused.status().code(), Code::Ok);
        lines.only_line_of(&call_id(refused.status_headers()));
    }
    app.stop().await;
}

#[tokio::test]
async fn nothing_a_caller_sent_is_logged() {
    const CANARY: &str = "canary-4711";
    let lines = LogLines::capture();
    let address = grpc().await;
    let mut faces = connect(address).await;
    let mut sessions = LivenessServiceClient::new(channel(address).await);
    let context = |model: &str| {
        Some(v1::RequestContext {
            request_id: CANARY.into(),
            store_id: CANARY.into(),
            consent_reference: CANARY.into(),
            model: model.into(),
        })
    };
    let mut ids = Vec::new();
    let ok = v1::DetectRequest { context: context(""), ..detect("person_b_1.jpg") };
    let answer = faces.detect(ok.clone()).await.unwrap();
    ids.push(call_id(&answer.metadata().clone().into_headers()));
    let unknown_model = v1::DetectRequest { context: context(CANARY), ..ok.clone() };
    let no_picture = v1::DetectRequest { image: image(CANARY.into()), ..ok.clone() };
    let no_id = v1::DetectRequest { context: context(&format!("{CANARY} !")), ..ok };
    for request in [unknown_model, no_picture, no_id] {
        ids.push(call_id_of(&faces.detect(request).await.unwrap_err()));
    }
    let policy_fmr = Some(1.471_147_11);
    let fmr =
        v1::VerifyRequest { policy_fmr, ..verify_request("person_b_1.jpg", &["person_b_2.jpg"]) };
    let fmr = v1::VerifyRequest { context: context(""), ..fmr };
    ids.push(call_id_of(&faces.verify(fmr).await.unwrap_err()));
    let recording = v1::EvaluateRequest {
        context: context(""),
        token: CANARY.into(),
        device_id: CANARY.into(),
        portrait: image(fixture("person_b_1.jpg")),
        frames: vec![v1::Frame { sequence: 0, image: image(CANARY.into()), ..Default::default() }],
    };
    ids.push(call_id_of(&sessions.evaluate(recording).await.unwrap_err()));
    let request = v1::GetResultRequest { context: context(""), session_id: CANARY.into() };
    ids.push(call_id_of(&sessions.get_result(request).await.unwrap_err()));

    for id in ids {
        lines.only_line_of(&id);
    }
    let text = lines.text();
    for sent in [CANARY, "1.47114711"] {
        let line = text.lines().find(|line| line.contains(sent));
        assert_eq!(line, None, "{sent} was logged");
    }
}

#[tokio::test]
async fn the_metrics_say_which_build_runs_and_spell_their_labels_in_one_way() {
    let address = grpc().await;
    let message = detect("person_b_1.jpg").encode_to_vec();
    raw::call(address, "Detect", &message, None).await;
    raw::call(address, "Detect", &message, Some("0m")).await;
    let (_, text) = http_get(shared_server().http, "/metrics").await;
    let features = if cfg!(feature = "cuda") { "cuda" } else { "none" };
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("menshen_build_info{{version=\"{version}\",features=\"{features}\"}} 1\n");
    assert!(text.contains(&build), "{text}");
    for outcome in ["answered", "expired"] {
        let line = format!("menshen_requests_total{{method=\"detect\",outcome=\"{outcome}\"}}");
        assert!(metric(&text, &line) >= 1.0, "{line} in\n{text}");
    }
    let is_snake =
        |value: &str| value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    // The values of these labels come from elsewhere: versions, models, devices, and bounds of
    // buckets.
    let is_given = |label: &str| matches!(label, "version" | "model" | "device" | "le");
    let mut checked = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else { continue };
        for label in labels.rsplit_once('}').unwrap().0.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            assert!(is_given(name) || is_snake(value) && !value.is_empty(), "{line}");
            checked += usize::from(!is_given(name));
        }
    }
    assert!(checked > 20, "{checked} labels were checked in\n{text}");
}
