//! gRPC by hand over HTTP/2: requests that no well-behaved client sends, without a client's own
//! timer.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use tonic::Status;

/// An answer as it came over HTTP/2, without its message.
pub struct Answer {
    pub headers: HeaderMap,
    /// `None` if the answer has headers only.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> Status {
        status(self.status_headers()).unwrap()
    }

    /// Returns the headers with the status: the trailers, or the headers of an answer without
    /// trailers.
    pub fn status_headers(&self) -> &HeaderMap {
        self.trailers.as_ref().unwrap_or(&self.headers)
    }
}

/// Sends `message` to `method` of `FaceService` and returns the status of the answer.
pub async fn call(
    address: SocketAddr,
    method: &str,
    message: &[u8],
    timeout: Option<&str>,
) -> Status {
    send(address, method, message, timeout).await.status()
}

/// Sends `message` to `method` of `FaceService`.
pub async fn send(
    address: SocketAddr,
    method: &str,
    message: &[u8],
    timeout: Option<&str>,
) -> Answer {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}/menshen.v1.FaceService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    // The server may answer before it has read the whole message.
    let _ = body.send_data(Bytes::from(framed), true);
    let (head, mut body) = answer.await.unwrap().into_parts();
    let headers = head.headers;
    if status(&headers).is_some() {
        return Answer { headers, trailers: None };
    }
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    Answer { headers, trailers: body.trailers().await.unwrap() }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}
