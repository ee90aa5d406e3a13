//! The server under test, its clients, and its pictures.

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
use menshen_puppet::{Picture, Point};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

pub type Client = FaceServiceClient<Channel>;

/// Returns the settings of a test server: the repository's models and free loopback ports.
pub fn config() -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.server.listen = loopback;
    config.server.http_listen = loopback;
    // A call of a test may wait for other tests on a busy machine, so no deadline is short.
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

/// Runs the binary as a user at a terminal does.
pub fn run_menshen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(arguments)
        .output()
        .unwrap()
}

/// Returns a program's output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a photograph of the fixtures, decoded, with its face mesh.
pub fn portrait(name: &str) -> (Picture, Vec<Point>) {
    let image = image::decode(&fixture(name), &ImageSettings::default()).unwrap();
    let picture = Picture::new(image.width(), image.height(), image.pixels().to_vec());
    let (stem, _) = name.rsplit_once('.').unwrap();
    let points = serde_json::from_slice(&fixture(&format!("{stem}.mesh.json"))).unwrap();
    (picture, points)
}

/// Copies the contents of a folder.
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

/// Returns whether this run tests case `index` of a long table. A run tests a quarter of the cases;
/// `TEST_PART=2/5` selects the second of five parts, `TEST_PART=1/1` all cases.
pub fn is_in_part(index: usize) -> bool {
    let part = std::env::var("TEST_PART").unwrap_or_else(|_| "1/4".to_owned());
    let (part, parts) = part.split_once('/').expect("TEST_PART is a part of parts, such as 2/5");
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    assert!((1..=parts).contains(&part), "TEST_PART is {part}/{parts}");
    index % parts == part - 1
}

/// The server that most tests share. It lives in a runtime of its own as long as the process.
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

/// Counts panics on threads that run no test, which are those of the server.
fn install_panic_counter() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !std::thread::current().name().is_some_and(|name| name.contains("::")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        print(panic);
    }));
}

/// Returns the number of panics of the shared server so far.
pub fn panic_count() -> usize {
    PANICS.load(Ordering::SeqCst)
}

/// Returns a client of the shared server.
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

/// Returns a `Verify` request with fixtures, by file name.
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

/// Reads a path of the HTTP port and returns status code and body.
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

/// Reads the metrics until `holds` is true. Callers wait for events that are certain to come.
pub async fn wait_for_metrics(http: SocketAddr, holds: impl Fn(&str) -> bool) {
    loop {
        let (_, text) = http_get(http, "/metrics").await;
        if holds(&text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the value of a metric by its printed name and labels; 0 if the metric is missing.
pub fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter_map(|rest| rest.strip_prefix(' '))
        .map(|value| value.trim().parse::<f64>().unwrap())
        .sum()
}

/// Returns a PNG of `width × height` RGB pixels.
pub fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (u32::try_from(width).unwrap(), u32::try_from(height).unwrap());
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}
