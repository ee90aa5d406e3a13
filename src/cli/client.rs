//! Parts shared by the commands that call a server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use tonic::transport::{Channel, Endpoint};

use crate::app::App;
use crate::config::Config;
use crate::proto::v1;
use crate::proto::v1::face_service_client::FaceServiceClient;
use crate::services::REQUEST_ID;

pub(super) type FaceClient = FaceServiceClient<Channel>;

/// Largest answer that a client reads. Reports of many photographs are far smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Timeout of a call to a server in this process. It is long because the demonstration sends all
/// pairs at once and a slow machine needs minutes for them; the user can interrupt the command.
const TIMEOUT_MS: u64 = 600_000;

/// Connects to a server and returns a client of `FaceService`.
pub(super) async fn connect_face_client(server: &str) -> anyhow::Result<FaceClient> {
    let channel = connect(server).await?;
    Ok(FaceServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// Options of the commands that send a request with a portrait.
#[derive(Debug, clap::Args)]
pub(super) struct RequestOptions {
    /// Address of the server's gRPC listener.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    pub(super) server: String,
    /// Portrait of the identity document (JPEG or PNG).
    #[arg(long, value_name = "FILE")]
    pub(super) portrait: PathBuf,
    /// Origin of the portrait: an image file, or the chip of the document.
    #[arg(long, value_enum, default_value_t = PortraitSource::IdFile)]
    portrait_source: PortraitSource,
    /// Id of the shop that sends the request: opaque, without personal data.
    #[arg(long, default_value = "command-line")]
    store: String,
    /// Reference to the customer's consent: opaque, without personal data.
    #[arg(long, default_value = "command-line")]
    consent: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PortraitSource {
    IdFile,
    IdChip,
}

impl RequestOptions {
    pub(super) fn context(&self) -> v1::RequestContext {
        request_context(&self.store, &self.consent)
    }

    /// Returns the portrait's source as the number of the API's enum.
    pub(super) fn portrait_source(&self) -> i32 {
        match self.portrait_source {
            PortraitSource::IdFile => v1::ImageSource::IdFile.into(),
            PortraitSource::IdChip => v1::ImageSource::IdChip.into(),
        }
    }
}

/// Connects to a server by its address, such as `http://127.0.0.1:50051`.
pub(super) async fn connect(server: &str) -> anyhow::Result<Channel> {
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    Endpoint::from_shared(url)
        .with_context(|| format!("{server} is not a server address"))?
        .connect()
        .await
        .with_context(|| format!("no server answers at {server}"))
}

/// Starts a server in this process on free loopback ports. Returns the server once its models are
/// live, and a client of it.
pub(super) async fn start_in_process(mut config: Config) -> anyhow::Result<(App, FaceClient)> {
    listen_on_free_ports(&mut config);
    config.server.timeout_default_ms = TIMEOUT_MS;
    config.server.timeout_max_ms = TIMEOUT_MS;
    let spinner = super::spinner("loading the models and checking their goldens");
    let app = App::start(config).await;
    spinner.finish_and_clear();
    let app = app?;
    let client = connect_face_client(&app.grpc_address().to_string()).await?;
    Ok((app, client))
}

/// Sets both listeners to free ports of the loopback address.
pub(super) fn listen_on_free_ports(config: &mut Config) {
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.listen = loopback;
    config.server.http_listen = loopback;
}

/// Reads the file of a picture.
pub(super) fn read_image(path: &Path) -> anyhow::Result<v1::Image> {
    let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(v1::Image { data })
}

/// Returns the context of a request from the command line.
pub(super) fn request_context(store: &str, consent: &str) -> v1::RequestContext {
    v1::RequestContext {
        request_id: String::new(),
        store_id: store.to_owned(),
        consent_reference: consent.to_owned(),
        model: String::new(),
    }
}

/// Waits for a server's answer and shows a spinner meanwhile.
pub(super) async fn wait_for_answer<A>(
    call: impl Future<Output = Result<tonic::Response<A>, tonic::Status>>,
) -> anyhow::Result<A> {
    let spinner = super::spinner("waiting for the answer");
    let answer = call.await;
    spinner.finish_and_clear();
    answer.map(tonic::Response::into_inner).map_err(|status| call_error(&status))
}

/// Returns the error of a refused call: the server's code and message, and the id of the call in
/// the server's log.
pub(super) fn call_error(status: &tonic::Status) -> anyhow::Error {
    let id = status.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let call = id.map_or_else(String::new, |id| format!(" (request {id})"));
    anyhow::anyhow!("the server answered {:?}: {}{call}", status.code(), status.message())
}

/// Returns an enum's name in the API without its prefix: `PASS` for `DECISION_PASS`.
pub(super) fn enum_name<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Returns a reason as one line: code, subject, message, and value against limit.
pub(super) fn reason_line(reason: &v1::Reason) -> String {
    let code = enum_name(reason.code().as_str_name(), "REASON_CODE_");
    let subject = match reason.subject.as_str() {
        "" => String::new(),
        subject => format!(" {subject}:"),
    };
    let numbers = match (reason.value, reason.limit) {
        (Some(value), Some(limit)) => format!(" ({value:.3}, limit {limit:.3})"),
        _ => String::new(),
    };
    format!("{code}{subject} {}{numbers}", reason.message)
}
