//! Unary gRPC calls over HTTP/2, with messages that are encoded before.
//!
//! The client of tonic costs three times as much a call: it queues every call for a task that owns
//! the connection, and starts a task for every request body. A generator must not be the limit of
//! what it measures. Sessions, which are few, use tonic's client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::LoadError;
use super::requests::EncodedRequest;

/// HTTP/2 receive windows. Answers are small, so they never wait for the generator.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Most streams that are opened before the server tells its limit.
const STREAMS_MAX_INITIAL: usize = 100;

/// Most streams that the generator reset and whose late frames it still expects.
const RESET_STREAMS_MAX: usize = 100_000;

/// Largest answer. Reports of many photographs are far smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A message starts with a byte that says that it is not compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;

/// How to connect, and what all calls have in common.
#[derive(Debug)]
pub(super) struct Target {
    /// Address as the user gave it, for messages.
    pub(super) address: String,
    /// `http://host:port`.
    pub(super) uri: Uri,
    pub(super) connect_timeout: Duration,
    /// Number of source addresses from 127.0.1.1 on; 0 leaves the choice to the kernel.
    pub(super) source_addresses: u8,
    /// Headers of every call.
    headers: HeaderMap,
}

/// One connection. It connects again for the next call if the server has closed it.
#[derive(Debug)]
pub(super) struct Connection {
    target: Arc<Target>,
    number: usize,
    sender: Mutex<SendRequest<Bytes>>,
    /// Held by the call that connects again.
    reconnecting: tokio::sync::Mutex<()>,
}

impl Target {
    /// # Errors
    /// The address is none.
    pub(super) fn new(
        address: &str,
        connect_timeout: Duration,
        source_addresses: u8,
        metadata: &MetadataMap,
        timeout: Duration,
    ) -> Result<Self, LoadError> {
        let refused = || LoadError::Address { address: address.to_owned() };
        let with_scheme =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let uri: Uri = with_scheme.parse().map_err(|_| refused())?;
        let is_plain = uri.scheme_str() == Some("http");
        if !is_plain || uri.host().is_none() || uri.port().is_none() {
            return Err(refused());
        }
        let mut headers = metadata.clone().into_headers();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let grpc_timeout = HeaderValue::try_from(grpc_timeout(timeout));
        headers.insert("grpc-timeout", grpc_timeout.expect("digits and a letter are ASCII"));
        Ok(Self { address: address.to_owned(), uri, connect_timeout, source_addresses, headers })
    }

    /// Opens a connection; `number` is its number in the run.
    async fn connect(&self, number: usize) -> Result<SendRequest<Bytes>, LoadError> {
        let failed = |reason: String| LoadError::Connect { address: self.address.clone(), reason };
        let connecting = tokio::time::timeout(self.connect_timeout, self.open(number)).await;
        let stream = match connecting {
            Ok(opened) => opened.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {:?}", self.connect_timeout))),
        };
        let builder = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            // As gRPC's clients: until the server tells its limit, no more streams are opened.
            .initial_max_send_streams(STREAMS_MAX_INITIAL)
            // A server under load answers many calls after their deadline. The defaults would take
            // that for an attack and close the connection.
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(None)
            .clone();
        let (sender, connection) =
            builder.handshake(stream).await.map_err(|error| failed(error.to_string()))?;
        // It ends with the connection; each call on it then ends with the error.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn open(&self, number: usize) -> std::io::Result<TcpStream> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.uri.port_u16().unwrap_or_default();
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for address in lookup_host((host, port)).await? {
            match self.open_address(address, number).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_address(&self, address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source_address(self.source_addresses, number) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(address).await
    }
}

const USER_AGENT: &str = concat!("menshen-load/", env!("CARGO_PKG_VERSION"));

/// Returns the value of `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> String {
    let millis = timeout.as_millis().max(1);
    if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", timeout.as_secs()) }
}

/// Returns the source address of a connection. Connections take turns over the addresses.
pub(super) fn source_address(addresses: u8, connection: usize) -> Option<IpAddr> {
    let turn = connection.checked_rem(usize::from(addresses))?;
    let last = u8::try_from(turn + 1).expect("a remainder of a u8 is below it");
    Some(Ipv4Addr::new(127, 0, 1, last).into())
}

impl Connection {
    pub(super) async fn open(target: Arc<Target>, number: usize) -> Result<Self, LoadError> {
        let sender = Mutex::new(target.connect(number).await?);
        Ok(Self { target, number, sender, reconnecting: tokio::sync::Mutex::default() })
    }

    /// Makes a call and returns the encoded answer.
    ///
    /// # Errors
    /// The status of the call; UNAVAILABLE if the connection is lost.
    pub(super) async fn call(
        &self,
        path: &'static str,
        message: EncodedRequest,
    ) -> Result<Bytes, Status> {
        let sender = match self.current().ready().await {
            Ok(sender) => sender,
            Err(_) => self.reconnect().await?,
        };
        let answer = self.send(sender, path, message).map_err(|error| unavailable(&error))?;
        read_answer(answer).await
    }

    fn current(&self) -> SendRequest<Bytes> {
        self.sender.lock().clone()
    }

    /// Connects again, unless another call has done so meanwhile.
    async fn reconnect(&self) -> Result<SendRequest<Bytes>, Status> {
        let _alone = self.reconnecting.lock().await;
        if let Ok(sender) = self.current().ready().await {
            return Ok(sender);
        }
        let sender = self.target.connect(self.number).await;
        let sender = sender.map_err(|error| Status::unavailable(error.to_string()))?;
        *self.sender.lock() = sender.clone();
        sender.ready().await.map_err(|error| unavailable(&error))
    }

    fn send(
        &self,
        mut sender: SendRequest<Bytes>,
        path: &'static str,
        message: EncodedRequest,
    ) -> Result<ResponseFuture, h2::Error> {
        let mut uri = self.target.uri.clone().into_parts();
        uri.path_and_query = Some(PathAndQuery::from_static(path));
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(uri).expect("a target has a scheme and an authority");
        *request.headers_mut() = self.target.headers.clone();
        let (answer, mut body) = sender.send_request(request, false)?;
        let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(message.bytes()).expect("a request is far below 4 GiB"));
        // The connection keeps what the windows do not take yet. No part is copied.
        body.send_data(prefix.freeze(), message.bytes() == 0)?;
        let mut left = message.bytes();
        for part in message.parts.into_iter().filter(|part| !part.is_empty()) {
            left -= part.len();
            body.send_data(part, left == 0)?;
        }
        Ok(answer)
    }
}

fn unavailable(error: &h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Reads an answer to its trailers.
async fn read_answer(answer: ResponseFuture) -> Result<Bytes, Status> {
    let (head, mut body) = answer.await.map_err(|error| from_h2(&error))?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Status::unknown(format!("HTTP status {}", head.status)));
    }
    if body.is_end_stream() {
        check_status(&head.headers)?;
    }
    let mut message = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| from_h2(&error))?;
        // The window of the connection is given back as the chunk is read.
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
        if message.len() > ANSWER_BYTES_MAX {
            return Err(Status::out_of_range("the answer is too large"));
        }
    }
    let trailers = body.trailers().await.map_err(|error| from_h2(&error))?;
    check_status(&trailers.unwrap_or_default())?;
    if message.len() < PREFIX_BYTES || message[0] != 0 {
        return Err(Status::internal("the answer holds no message"));
    }
    Ok(message.freeze().slice(PREFIX_BYTES..))
}

/// A server that ends a stream or a connection by itself refuses the call.
fn from_h2(error: &h2::Error) -> Status {
    match error.reason() {
        Some(h2::Reason::CANCEL) => Status::cancelled(error.to_string()),
        Some(h2::Reason::ENHANCE_YOUR_CALM) if error.is_remote() => {
            Status::resource_exhausted(error.to_string())
        }
        _ => unavailable(error),
    }
}

fn check_status(trailers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(trailers) {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unknown("the answer has no grpc-status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_over_the_source_addresses() {
        let addresses: Vec<_> = (0..3).map(|connection| source_address(2, connection)).collect();
        let want = [1, 2, 1].map(|last| Some(IpAddr::from(Ipv4Addr::new(127, 0, 1, last))));
        assert_eq!(addresses, want);
        assert_eq!(source_address(0, 3), None);
    }

    #[test]
    fn a_timeout_has_at_most_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_millis(1500)), "1500m");
        assert_eq!(grpc_timeout(Duration::from_micros(1)), "1m");
        assert_eq!(grpc_timeout(Duration::from_secs(7 * 24 * 3600)), "604800S");
    }

    #[test]
    fn an_address_without_a_port_or_with_another_scheme_is_refused() {
        let target = |address: &str| {
            let second = Duration::from_secs(1);
            Target::new(address, second, 0, &MetadataMap::new(), second)
        };
        for address in ["127.0.0.1", "http://", "https://127.0.0.1:1", "unix:/a", "a b:1", ""] {
            let error = target(address).expect_err(address);
            assert!(matches!(error, LoadError::Address { .. }), "{address}: {error}");
        }
        assert_eq!(target("localhost:50051").unwrap().uri, "http://localhost:50051/");
    }
}
