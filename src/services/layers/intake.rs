//! Limits the bytes of a request before tonic buffers them. Each method has its own message limit,
//! and all messages that are still arriving share one budget of bytes. The messages of a stream
//! hold their bytes until they have been processed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::services::{SESSION_ENVELOPE_BYTES_MAX, status};

/// Bytes before each message of a gRPC stream: one flag byte and four bytes of length.
const FRAME_HEADER_BYTES: usize = 5;

/// Largest request of a method without images, such as health and reflection, in bytes.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a request besides its images: identifiers and field headers.
const ENVELOPE_BYTES_MAX: usize = 64 << 10;

/// The largest request of every method, in bytes. For a stream, the sum of all messages counts.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// Largest image file, in bytes.
    pub image_bytes_max: usize,
    /// Maximum number of live photographs in one `Verify`.
    pub live_photos_max: usize,
    /// Maximum size of all frames of one liveness session, in bytes.
    pub session_bytes_max: usize,
}

impl MessageLimits {
    /// Returns the largest message of any method, in bytes.
    pub fn largest(&self) -> usize {
        self.images(1 + self.live_photos_max).max(self.session())
    }

    /// Returns the limit of a session: the portrait, and all frames with their metadata.
    fn session(&self) -> usize {
        let session = self.image_bytes_max.saturating_add(self.session_bytes_max);
        session.saturating_add(SESSION_ENVELOPE_BYTES_MAX)
    }

    fn images(&self, count: usize) -> usize {
        self.image_bytes_max.saturating_mul(count).saturating_add(ENVELOPE_BYTES_MAX)
    }

    fn of(&self, path: &str) -> usize {
        match path {
            "/menshen.v1.FaceService/Verify" => self.images(1 + self.live_photos_max),
            "/menshen.v1.LivenessService/Run" | "/menshen.v1.LivenessService/Evaluate" => {
                self.session()
            }
            "/menshen.v1.FaceService/Compare" => self.images(2),
            "/menshen.v1.FaceService/Embed"
            | "/menshen.v1.FaceService/Detect"
            | "/menshen.v1.FaceService/CheckLiveness"
            | "/menshen.v1.LivenessService/CreateSession" => self.images(1),
            _ => SMALL_MESSAGE_BYTES_MAX,
        }
    }
}

/// Applies [`MessageLimits`] and the shared budget.
#[derive(Debug, Clone)]
pub struct IntakeLayer {
    limits: MessageLimits,
    budget: Arc<Semaphore>,
}

impl IntakeLayer {
    /// `bytes_max` is the budget of all messages that are arriving.
    pub fn new(limits: MessageLimits, bytes_max: usize) -> Self {
        let permits = bytes_max.min(Semaphore::MAX_PERMITS);
        Self { limits, budget: Arc::new(Semaphore::new(permits)) }
    }
}

impl<S> Layer<S> for IntakeLayer {
    type Service = IntakeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IntakeService { inner, layer: self.clone() }
    }
}

/// The service that [`IntakeLayer`] makes.
#[derive(Debug, Clone)]
pub struct IntakeService<S> {
    inner: S,
    layer: IntakeLayer,
}

impl<S> Service<Request<Body>> for IntakeService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = self.layer.limits.of(request.uri().path());
        let budget = Arc::clone(&self.layer.budget);
        let (mut parts, body) = request.into_parts();
        let body = IntakeBody::new(body, limit, budget);
        parts.extensions.insert(body.lease.clone());
        self.inner.call(Request::from_parts(parts, Body::new(body)))
    }
}

/// A request body that fails above its limit and leases bytes of the shared budget as they arrive.
struct IntakeBody<B> {
    inner: B,
    limit: usize,
    arrived: usize,
    budget: Arc<Semaphore>,
    lease: ByteLease,
}

/// The bytes of the shared budget that a request holds. An extension of the request, from which a
/// stream splits off the bytes of its messages.
#[derive(Debug, Clone, Default)]
pub struct ByteLease(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

/// Bytes of one message in the shared budget, given back on drop.
#[derive(Debug)]
#[must_use]
pub struct MessageLease(
    #[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
);

impl ByteLease {
    fn add(&self, permit: OwnedSemaphorePermit) {
        match &mut *self.0.lock() {
            Some(lease) => lease.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// Splits off the bytes of one message. Hold the lease as long as the message.
    pub fn split_off(&self, bytes: usize) -> MessageLease {
        let mut lease = self.0.lock();
        MessageLease(lease.as_mut().and_then(|lease| lease.split(bytes.min(lease.num_permits()))))
    }
}

impl<B> IntakeBody<B> {
    fn new(inner: B, limit: usize, budget: Arc<Semaphore>) -> Self {
        Self { inner, limit, arrived: 0, budget, lease: ByteLease::default() }
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Status> {
        self.arrived = self.arrived.saturating_add(bytes);
        if self.arrived > self.limit.saturating_add(FRAME_HEADER_BYTES) {
            return Err(status::message_too_large(self.limit));
        }
        let count = u32::try_from(bytes).map_err(|_| status::message_too_large(self.limit))?;
        let permit = Arc::clone(&self.budget)
            .try_acquire_many_owned(count)
            .map_err(|_| status::intake_full())?;
        self.lease.add(permit);
        Ok(())
    }
}

impl<B> HttpBody for IntakeBody<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let bytes = frame.data_ref().map_or(0, Buf::remaining);
        Poll::Ready(Some(self.reserve(bytes).map(|()| frame)))
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

    struct Chunks(Vec<usize>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop().map(|size| Ok(Frame::data(Bytes::from(vec![0; size])))))
        }
    }

    async fn read(body: &mut IntakeBody<Chunks>) -> Result<usize, Status> {
        let mut total = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
        {
            total += frame?.data_ref().map_or(0, Buf::remaining);
        }
        Ok(total)
    }

    #[tokio::test]
    async fn a_message_at_its_limit_passes_and_one_byte_more_is_refused() {
        let budget = Arc::new(Semaphore::new(1000));
        let mut body = IntakeBody::new(Chunks(vec![50, 55]), 100, Arc::clone(&budget));
        assert_eq!(read(&mut body).await.unwrap(), 105);
        let mut body = IntakeBody::new(Chunks(vec![51, 55]), 100, budget);
        let refused = read(&mut body).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("100"), "{}", refused.message());
    }

    #[tokio::test]
    async fn arriving_messages_share_one_budget_and_give_it_back_when_dropped() {
        let budget = Arc::new(Semaphore::new(100));
        let mut first = IntakeBody::new(Chunks(vec![80]), 100, Arc::clone(&budget));
        read(&mut first).await.unwrap();
        let mut second = IntakeBody::new(Chunks(vec![80]), 100, Arc::clone(&budget));
        let refused = read(&mut second).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop((first, second));
        assert_eq!(budget.available_permits(), 100);
    }

    #[tokio::test]
    async fn a_message_of_a_stream_gives_its_bytes_back_before_the_stream_ends() {
        let budget = Arc::new(Semaphore::new(100));
        let mut stream = IntakeBody::new(Chunks(vec![30, 50]), 100, Arc::clone(&budget));
        read(&mut stream).await.unwrap();
        let (first, second) = (stream.lease.split_off(50), stream.lease.split_off(1000));
        assert_eq!(budget.available_permits(), 20);
        drop(first);
        assert_eq!(budget.available_permits(), 70);
        drop(stream);
        assert_eq!(budget.available_permits(), 70, "somebody still holds the second message");
        drop(second);
        assert_eq!(budget.available_permits(), 100);
    }

    #[test]
    fn every_method_of_the_api_has_its_own_limit() {
        let limits = MessageLimits {
            image_bytes_max: 1 << 20,
            live_photos_max: 8,
            session_bytes_max: 10 << 20,
        };
        let of = |method: &str| limits.of(&format!("/menshen.v1.FaceService/{method}"));
        assert_eq!(of("Verify"), (9 << 20) + ENVELOPE_BYTES_MAX);
        assert_eq!(of("Compare"), (2 << 20) + ENVELOPE_BYTES_MAX);
        for method in ["Embed", "Detect", "CheckLiveness"] {
            assert_eq!(of(method), (1 << 20) + ENVELOPE_BYTES_MAX);
        }
        let created = limits.of("/menshen.v1.LivenessService/CreateSession");
        assert_eq!(created, (1 << 20) + ENVELOPE_BYTES_MAX);
        for method in ["Run", "Evaluate"] {
            let limit = limits.of(&format!("/menshen.v1.LivenessService/{method}"));
            assert_eq!(limit, (11 << 20) + SESSION_ENVELOPE_BYTES_MAX);
        }
        assert_eq!(limits.of("/grpc.health.v1.Health/Check"), SMALL_MESSAGE_BYTES_MAX);
    }
}
