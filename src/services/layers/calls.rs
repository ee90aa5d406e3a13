//! Opens a [`Call`] for every request of the API: an identifier drawn by the server, a span, one
//! line in the log and one count in the metrics, however the call ends. This layer is the
//! outermost, so that calls refused by other layers have an identifier too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::pipeline::ErrorKind;
use crate::services::status;
use crate::telemetry::{Call, Calls, Method};

/// Trailer with the server's identifier of a call.
pub const REQUEST_ID: &str = "menshen-request-id";

/// Opens a [`Call`] for every request of the API.
#[derive(Debug, Clone)]
pub struct CallLayer(pub Calls);

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallService { inner, calls: self.0.clone() }
    }
}

/// The service that [`CallLayer`] makes.
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
    calls: Calls,
}

type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Health and reflection are called all the time: an identifier and a log line for each
        // would be noise.
        let Some(method) = method(request.uri().path()) else {
            return Box::pin(self.inner.call(request));
        };
        let open = OpenCall(self.calls.open(method));
        request.extensions_mut().insert(Arc::clone(&open.0));
        let span = open.0.span().clone();
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(async move { answer.await.map(|answer| open.finish(answer)) }.instrument(span))
    }
}

/// Returns the API method of a path, or `None` for a path outside of the API.
fn method(path: &str) -> Option<Method> {
    let name = path.strip_prefix("/menshen.v1.")?;
    Some(match name {
        "FaceService/Verify" => Method::Verify,
        "FaceService/Compare" => Method::Compare,
        "FaceService/Embed" => Method::Embed,
        "FaceService/Detect" => Method::Detect,
        "FaceService/CheckLiveness" => Method::CheckLiveness,
        "LivenessService/CreateSession" => Method::CreateSession,
        "LivenessService/Run" => Method::Run,
        "LivenessService/Evaluate" => Method::Evaluate,
        "LivenessService/GetResult" => Method::GetResult,
        _ => Method::Unknown,
    })
}

/// A call until its answer is sent. Dropping it ends the call as cancelled, or as a fault if the
/// thread is panicking, unless the call has ended before: only the first end counts.
struct OpenCall(Arc<Call>);

impl OpenCall {
    /// Makes sure that the call ends with its answer and that the answer carries the call's
    /// identifier: in the trailers, or in the headers of an answer that has headers only.
    fn finish(self, answer: Response<Body>) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        let has_ended = self.end(&mut parts.headers);
        let body = if has_ended { body } else { Body::new(CallBody { inner: body, open: self }) };
        Response::from_parts(parts, body)
    }

    /// If `headers` hold a status, ends the call with the status, adds the call's identifier and
    /// returns true. Otherwise returns false.
    fn end(&self, headers: &mut HeaderMap) -> bool {
        let Some(ending) = status::ending_in_headers(headers) else { return false };
        self.0.end(&ending);
        let id = HeaderValue::try_from(self.0.id().to_string());
        headers.insert(
            HeaderName::from_static(REQUEST_ID),
            id.expect("a UUID is letters, digits and hyphens"),
        );
        true
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let kind =
            if std::thread::panicking() { ErrorKind::Internal } else { ErrorKind::Cancelled };
        self.0.end(&status::ending_of_kind(kind));
    }
}

/// The messages and trailers of an answer.
struct CallBody {
    inner: Body,
    open: OpenCall,
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let call = Arc::clone(&self.open.0);
        let mut polled = call.span().in_scope(|| Pin::new(&mut self.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            self.open.end(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts `CheckLiveness` to `check_liveness`.
    fn snake(name: &str) -> String {
        let mut snake = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        snake
    }

    #[test]
    fn every_method_of_the_api_is_known_by_its_name() {
        let faces = ["Verify", "Compare", "Embed", "Detect", "CheckLiveness"];
        let sessions = ["CreateSession", "Run", "Evaluate", "GetResult"];
        for (service, names) in [("FaceService", &faces[..]), ("LivenessService", &sessions)] {
            for name in names {
                let method = method(&format!("/menshen.v1.{service}/{name}")).unwrap();
                assert_eq!(method.name(), snake(name));
            }
        }
    }

    #[test]
    fn a_path_of_the_api_without_a_method_is_unknown_and_other_paths_are_no_calls() {
        assert_eq!(method("/menshen.v1.FaceService/Recognise"), Some(Method::Unknown));
        assert_eq!(method("/menshen.v1.LivenessService/Verify"), Some(Method::Unknown));
        assert_eq!(method("/grpc.health.v1.Health/Check"), None);
        assert_eq!(method("/"), None);
    }
}
