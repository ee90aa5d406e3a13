//! Enforces `grpc-timeout`: at its deadline a request is dropped and answers `DEADLINE_EXCEEDED`.
//! tonic's own timer would answer `CANCELLED`. It is set a moment later and polled after this
//! layer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::services::status;

/// When the caller stops waiting. An extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// Adds a `Deadline` to every request and ends the request there.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    /// Timeout of requests without `grpc-timeout`.
    pub timeout_default: Duration,
    /// Longer timeouts are shortened to this.
    pub timeout_max: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, layer: *self }
    }
}

/// The service that [`DeadlineLayer`] makes.
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    layer: DeadlineLayer,
}

type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for DeadlineService<S>
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
        let now = Instant::now();
        let timeout = match parse_timeout(request.headers()) {
            Ok(asked) => asked.unwrap_or(self.layer.timeout_default).min(self.layer.timeout_max),
            Err(MalformedTimeout) => {
                return Box::pin(async { Ok(status::malformed_timeout().into_http()) });
            }
        };
        let deadline = now + timeout;
        request.extensions_mut().insert(Deadline(deadline));
        let inner = self.inner.call(request);
        Box::pin(run_until(deadline, inner))
    }
}

/// Runs `inner` until `deadline`. An answer that is ready at the deadline still counts.
async fn run_until<E>(
    deadline: Instant,
    inner: impl Future<Output = Result<Response<Body>, E>>,
) -> Result<Response<Body>, E> {
    let mut inner = pin!(inner);
    let mut sleep = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = inner.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        // The clock decides, not this timer: the task may be woken by tonic's timer alone.
        if sleep.as_mut().poll(cx).is_ready() || Instant::now() >= deadline {
            return Poll::Ready(Ok(status::expired().into_http()));
        }
        Poll::Pending
    })
    .await
}

/// A `grpc-timeout` header that violates the gRPC specification.
#[derive(Debug, PartialEq, Eq)]
struct MalformedTimeout;

/// Parses `grpc-timeout` (gRPC over HTTP/2, "Timeout"). Returns `None` if the header is absent.
fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, MalformedTimeout> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = value.to_str().map_err(|_| MalformedTimeout)?;
    let (digits, unit) =
        text.split_at_checked(text.len().saturating_sub(1)).ok_or(MalformedTimeout)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain {
        return Err(MalformedTimeout);
    }
    let count: u64 = digits.parse().map_err(|_| MalformedTimeout)?;
    let duration = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(MalformedTimeout),
    };
    Ok(Some(duration))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const LAYER: DeadlineLayer = DeadlineLayer {
        timeout_default: Duration::from_secs(5),
        timeout_max: Duration::from_secs(60),
    };

    fn headers(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert("grpc-timeout", value);
        }
        headers
    }

    #[test]
    fn every_unit_is_read() {
        for (text, want) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("7n", Duration::from_nanos(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_timeout(&headers(text.as_bytes())), Ok(Some(want)), "{text}");
        }
        assert_eq!(parse_timeout(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn what_breaks_the_specification_is_malformed() {
        for text in ["", "S", "5", "5s", "-5S", "+5S", "1.5S", "123456789S", "5 S", "5SS"] {
            assert_eq!(parse_timeout(&headers(text.as_bytes())), Err(MalformedTimeout), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_a_timeout_or_an_error(
            value in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let _ = parse_timeout(&headers(&value));
        }
    }

    async fn call(header: Option<&str>, work: Duration) -> (Response<Body>, Duration) {
        let inner = tower::service_fn(move |request: Request<Body>| async move {
            assert!(request.extensions().get::<Deadline>().is_some());
            tokio::time::sleep(work).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let mut request = Request::new(Body::empty());
        if let Some(header) = header {
            request.headers_mut().insert("grpc-timeout", HeaderValue::from_str(header).unwrap());
        }
        let begun = Instant::now();
        let answer = LAYER.layer(inner).call(request).await.unwrap();
        (answer, begun.elapsed())
    }

    fn code(response: &Response<Body>) -> Option<&str> {
        response.headers().get("grpc-status").map(|value| value.to_str().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_past_its_deadline_answers_deadline_exceeded() {
        let (answer, took) = call(Some("100m"), Duration::from_secs(1)).await;
        assert_eq!(code(&answer), Some("4"));
        assert_eq!(took.as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_time_gets_its_answer() {
        let (answer, _) = call(Some("2S"), Duration::from_secs(1)).await;
        assert_eq!(code(&answer), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_timeout_gets_the_default_and_none_gets_more_than_the_most() {
        let (answer, took) = call(None, Duration::from_secs(100)).await;
        assert_eq!((code(&answer), took.as_secs()), (Some("4"), 5));
        let (answer, took) = call(Some("9H"), Duration::from_secs(100)).await;
        assert_eq!((code(&answer), took.as_secs()), (Some("4"), 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_timeout_is_refused() {
        let (answer, _) = call(Some("soon"), Duration::ZERO).await;
        assert_eq!(code(&answer), Some("3"));
    }
}
