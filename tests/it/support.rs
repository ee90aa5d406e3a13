//! The server under test and the pictures it is shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use menshen::app::App;
use menshen::config::Config;
use menshen::image::{self, ImageSettings};
use menshen::proto::v1;
use menshen::proto::v1::face_service_client::FaceServiceClient;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::puppet::{Picture, Point};

pub type Client = FaceServiceClient<Channel>;

/// Settings of a test server: the repository's models, free loopback ports.
pub fn config() -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.server.listen = loopback;
    config.server.http_listen = loopback;
    // Tests wait for each other on a busy machine, not for a deadline.
    config.server.timeout_default_ms = 600_000;
    config.server.timeout_max_ms = 600_000;
    config.models.dir = repository().join("models");
    config
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = repository().join("tests/fixtures/faces").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs the binary as a person at a terminal does.
pub fn run_menshen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(arguments)
        .output()
        .unwrap()
}

/// What a program has printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A photograph among the fixtures, decoded, and its face mesh.
pub fn portrait(name: &str) -> (Picture, Vec<Point>) {
    let image = image::decode(&fixture(name), &ImageSettings::default()).unwrap();
    let picture = Picture::new(image.width(), image.height(), image.pixels().to_vec());
    let (stem, _) = name.rsplit_once('.').unwrap();
    let points = serde_json::from_slice(&fixture(&format!("{stem}.mesh.json"))).unwrap();
    (picture, points)
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Whether this run tests row `index` of a long table: a third of the rows, or with `TEST_PART=2/5`
/// the second of five parts, with `TEST_PART=1/1` all of them.
pub fn is_in_part(index: usize) -> bool {
    let part = std::env::var("TEST_PART").unwrap_or_else(|_| "1/3".to_owned());
    let (part, parts) = part.split_once('/').expect("TEST_PART is a part of parts, such as 2/5");
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    assert!((1..=parts).contains(&part), "TEST_PART is {part}/{parts}");
    index % parts == part - 1
}

/// The server most tests share; it lives in a runtime of its own as long as the process.
pub struct SharedServer {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    _app: App,
    _runtime: Runtime,
}

pub fn shared_server() -> &'static SharedServer {
    static SHARED: OnceLock<SharedServer> = OnceLock::new();
    SHARED.get_or_init(|| {
        install_panic_counter();
        let runtime = Runtime::new().unwrap();
        let app = runtime.block_on(App::start(config())).unwrap();
        let (grpc, http) = (app.grpc_address(), app.http_address());
        SharedServer { grpc, http, _app: app, _runtime: runtime }
    })
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics on threads that run no test: those of the server.
fn install_panic_counter() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !std::thread::current().name().is_some_and(|name| name.contains("::")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        print(panic);
    }));
}

/// Panics of the shared server so far.
pub fn panic_count() -> usize {
    PANICS.load(Ordering::SeqCst)
}

/// A client of the shared server.
pub async fn client() -> Client {
    let address = tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap();
    connect(address).await
}

pub async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub async fn connect(address: SocketAddr) -> Client {
    FaceServiceClient::new(channel(address).await)
}

pub fn context() -> Option<v1::RequestContext> {
    Some(v1::RequestContext {
        request_id: "test-1".into(),
        store_id: "shop-1".into(),
        consent_reference: "consent-1".into(),
        model: String::new(),
    })
}

pub fn image(data: Vec<u8>) -> Option<v1::Image> {
    Some(v1::Image { data })
}

/// A `Verify` of fixtures by file name.
pub fn verify_request(portrait: &str, live: &[&str]) -> v1::VerifyRequest {
    v1::VerifyRequest {
        context: context(),
        portrait: image(fixture(portrait)),
        portrait_source: v1::ImageSource::IdFile.into(),
        live_photos: live.iter().map(|name| v1::Image { data: fixture(name) }).collect(),
        policy_fmr: None,
    }
}

pub fn embed_request(data: Vec<u8>, source: v1::ImageSource) -> v1::EmbedRequest {
    v1::EmbedRequest { context: context(), image: image(data), source: source.into() }
}

pub fn reason_codes(reasons: &[v1::Reason]) -> Vec<v1::ReasonCode> {
    reasons.iter().map(v1::Reason::code).collect()
}

/// Reads one path of the HTTP port: status code and body.
pub async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

/// Reads the metrics until `holds`; the event is certain to come, only its moment is not.
pub async fn wait_for_metrics(http: SocketAddr, holds: impl Fn(&str) -> bool) {
    loop {
        let (_, text) = http_get(http, "/metrics").await;
        if holds(&text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The value of one metric line, by its name and labels as printed; 0 when it is not there.
pub fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter_map(|rest| rest.strip_prefix(' '))
        .map(|value| value.trim().parse::<f64>().unwrap())
        .sum()
}

/// A PNG of `width × height` RGB pixels.
pub fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (u32::try_from(width).unwrap(), u32::try_from(height).unwrap());
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}
