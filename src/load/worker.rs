//! Workers: threads that own connections, send the calls that the pacer hands them, and record how
//! they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, TimeoutExpired};
use tonic_health::pb::HealthCheckResponse;

use super::LoadError;
use super::calls::{CallKind, Outcome};
use super::grpc::{Connection, Target, source_address};
use super::recorder::{CallTimes, Record};
use super::requests::{EncodedRequest, Order};
use super::session::SessionOptions;
use crate::proto::v1;

/// A call that is due.
#[derive(Debug)]
pub(super) struct Due {
    /// When it is due; `None` for a closed loop, which sends when it can.
    pub(super) intended: Option<Instant>,
    pub(super) order: Order,
    /// False in the time of warming up.
    pub(super) is_recorded: bool,
    /// Its share of the memory of calls in flight.
    pub(super) in_flight: InFlightCall,
}

/// What the calls of a run have in common.
#[derive(Debug)]
pub(super) struct CallOptions {
    pub(super) target: Arc<Target>,
    pub(super) metadata: MetadataMap,
    pub(super) timeout: Duration,
    /// `None` without sessions.
    pub(super) session: Option<SessionOptions>,
}

/// The calls in flight, of all workers.
#[derive(Debug)]
pub(super) struct InFlight {
    calls: AtomicU64,
    calls_peak: AtomicU64,
    bytes: AtomicU64,
    bytes_max: u64,
}

/// Memory of a call in flight besides its message: its task, its stream and its answer.
const CALL_OVERHEAD_BYTES: u64 = 16 << 10;

/// Longest session. The server ends each one after 90 s at the latest.
const SESSION_TIME_MAX: Duration = Duration::from_secs(120);

/// A call's share of [`InFlight`], given back on drop.
#[derive(Debug)]
pub(super) struct InFlightCall {
    in_flight: Arc<InFlight>,
    bytes: u64,
}

impl InFlight {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicU64::new(0),
            calls_peak: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_max,
        })
    }

    /// Counts a call; `None` if its message does not fit into the memory that is left.
    pub(super) fn enter(self: &Arc<Self>, message_bytes: usize) -> Option<InFlightCall> {
        let call = self.enter_anyway(message_bytes);
        let is_within = self.bytes.load(Ordering::Relaxed) <= self.bytes_max;
        is_within.then_some(call)
    }

    /// Counts a call whose number is limited otherwise.
    pub(super) fn enter_anyway(self: &Arc<Self>, message_bytes: usize) -> InFlightCall {
        let bytes = message_bytes as u64 + CALL_OVERHEAD_BYTES;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.calls_peak.fetch_max(calls, Ordering::Relaxed);
        InFlightCall { in_flight: Arc::clone(self), bytes }
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the largest number of calls at one moment, warming up included.
    pub(super) fn calls_peak(&self) -> u64 {
        self.calls_peak.load(Ordering::Relaxed)
    }
}

impl Drop for InFlightCall {
    fn drop(&mut self) {
        self.in_flight.calls.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The connections of one worker. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pub(super) connections: Arc<[Connection]>,
    /// Of sessions, one beside each connection; empty without sessions.
    pub(super) channels: Arc<[Channel]>,
    pub(super) options: Arc<CallOptions>,
    pub(super) recorded: Arc<Mutex<Record>>,
}

/// Opens `count` connections; the first is number `first` of the run.
pub(super) async fn connect(
    options: &CallOptions,
    first: usize,
    count: usize,
) -> Result<(Arc<[Connection]>, Arc<[Channel]>), LoadError> {
    let (mut connections, mut channels) = (Vec::new(), Vec::new());
    for number in first..first + count {
        connections.push(Connection::open(Arc::clone(&options.target), number).await?);
        if options.session.is_some() {
            channels.push(connect_channel(&options.target, number).await?);
        }
    }
    Ok((connections.into(), channels.into()))
}

async fn connect_channel(target: &Target, number: usize) -> Result<Channel, LoadError> {
    let endpoint = Endpoint::from(target.uri.clone())
        .connect_timeout(target.connect_timeout)
        .local_address(source_address(target.source_addresses, number));
    endpoint.connect().await.map_err(|error| LoadError::Connect {
        address: target.address.clone(),
        reason: error.to_string(),
    })
}

impl Connections {
    /// Sends the calls of the queue until it is closed, then waits until all calls have ended.
    pub(super) async fn send_calls(self, mut queue: mpsc::UnboundedReceiver<Due>) {
        // Every task holds a clone. The receiver ends when the last clone is dropped.
        let (running, mut all_ended) = mpsc::channel::<()>(1);
        let mut number = 0;
        while let Some(due) = queue.recv().await {
            number += 1;
            let (connections, running) = (self.clone(), running.clone());
            tokio::spawn(async move {
                connections.call(number, due).await;
                drop(running);
            });
        }
        drop(running);
        let _ = all_ended.recv().await;
    }

    /// Makes one call and records it. Calls take turns over the connections by their `number`.
    pub(super) async fn call(&self, number: usize, due: Due) {
        let Due { intended, order, is_recorded, in_flight: _in_flight } = due;
        let Order { kind, store, request } = order;
        let session = self.options.session.as_ref().filter(|_| kind == CallKind::Session);
        let sent = Instant::now();
        let intended = intended.unwrap_or(sent);
        if is_recorded {
            self.recorded.lock().add_sent(kind, sent.saturating_duration_since(intended));
        }
        let (outcome, from) = match session {
            Some(session) => {
                // On the heap: it is many times as large as a unary call.
                let channel = self.channels[number % self.channels.len()].clone();
                let visit = Box::pin(self.run_session(session, channel, store, is_recorded));
                match tokio::time::timeout_at((sent + SESSION_TIME_MAX).into(), visit).await {
                    Ok(Ok(end)) => (Outcome::Decided(end.decision), end.decided_by),
                    Ok(Err(status)) => (Outcome::Status(status_code(&status)), intended),
                    Err(_) => (Outcome::Status(Code::DeadlineExceeded), intended),
                }
            }
            None => (self.unary(number, kind, request, intended).await, intended),
        };
        let times = CallTimes { sent, from, ended: Instant::now() };
        if is_recorded {
            self.recorded.lock().add(kind, outcome, &times);
        }
    }

    async fn unary(
        &self,
        number: usize,
        kind: CallKind,
        request: EncodedRequest,
        intended: Instant,
    ) -> Outcome {
        let deadline = intended + self.options.timeout;
        if deadline <= Instant::now() {
            return Outcome::Status(Code::DeadlineExceeded);
        }
        let connection = &self.connections[number % self.connections.len()];
        let answer = connection.call(kind.path(), request);
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => read_answer(kind, answer),
            Ok(Err(status)) => Outcome::Status(status_code(&status)),
            Err(_) => Outcome::Status(Code::DeadlineExceeded),
        }
    }

    /// Returns a request with the metadata of the run.
    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.options.metadata.clone();
        request
    }
}

/// Returns the outcome of an answered call. An answer that is no message of the API is a fault.
fn read_answer(kind: CallKind, answer: Bytes) -> Outcome {
    let outcome = match kind {
        CallKind::Verify => {
            v1::VerifyResponse::decode(answer).map(|a| Outcome::Decided(a.decision()))
        }
        CallKind::CheckLiveness => {
            v1::CheckLivenessResponse::decode(answer).map(|a| Outcome::Decided(a.decision()))
        }
        CallKind::Compare => v1::CompareResponse::decode(answer).map(|_| Outcome::Answered),
        CallKind::Embed => v1::EmbedResponse::decode(answer).map(|_| Outcome::Answered),
        CallKind::Detect => v1::DetectResponse::decode(answer).map(|_| Outcome::Answered),
        CallKind::Health | CallKind::Session => {
            HealthCheckResponse::decode(answer).map(|_| Outcome::Answered)
        }
    };
    outcome.unwrap_or(Outcome::Status(Code::Internal))
}

/// Returns the code of a status. tonic's client reports a passed deadline as CANCELLED, with a
/// message of its own.
pub(super) fn status_code(status: &Status) -> Code {
    let is_timer = status.message() == TimeoutExpired(()).to_string();
    if status.code() == Code::Cancelled && is_timer {
        return Code::DeadlineExceeded;
    }
    status.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_the_memory_are_refused_and_leave_no_trace() {
        let in_flight = InFlight::new(2 * CALL_OVERHEAD_BYTES + 100);
        let first = in_flight.enter(100).unwrap();
        let second = in_flight.enter(0).unwrap();
        assert!(in_flight.enter(0).is_none());
        assert_eq!(in_flight.calls(), 2);
        drop(second);
        assert!(in_flight.enter(1).is_none());
        drop(first);
        assert!(in_flight.enter(1).is_some());
        assert_eq!((in_flight.calls(), in_flight.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
