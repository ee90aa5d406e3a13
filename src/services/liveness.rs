//! `menshen.v1.LivenessService`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::convert;
use super::events::EventStream;
use super::gateway::{AdmittedCall, Gateway, RequestInfo, call_of, end_call, outcome_of, serve};
use super::layers::{ByteLease, MessageLease};
use super::status::broken_stream;
use crate::liveness::Assurance;
use crate::pipeline::{CameraFrame, Error, ErrorKind, Pipeline, RunningSession, SessionStart};
use crate::proto::v1;
use crate::proto::v1::liveness_service_server::LivenessService;
use crate::proto::v1::run_response::Event as RunEvent;
use crate::telemetry::{Call, Outcome};
use crate::trust::KeyedDigests;

/// Timeout of a stream's first message.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout from the first message to the result. The session's own limit ends a session earlier.
const SESSION_TIMEOUT: Duration = Duration::from_secs(90);

/// Interval at which a session checks its time limits while no frame arrives.
const TICK: Duration = Duration::from_millis(250);

/// Frames in the queue between receiving and measuring. When the queue is full, the server stops
/// reading from the client. Frames within `frame_bytes_max` fill at most 8 MiB; the intake layer
/// bounds larger ones.
const FRAMES_QUEUED_MAX: usize = 32;

/// With more frames in the queue, the server is behind and skips the oldest. Movements are timed by
/// the capture times, so a delay of 16 frames, 1.6 s at 10 frames a second, does no harm.
const FRAMES_QUEUED_IN_TIME_MAX: usize = 16;

/// Maximum number of events that a session sent and the client has not read yet.
const EVENTS_QUEUED_MAX: usize = 64;

/// Timeout of sending one event while the queue is full, because the client does not read.
const EVENT_SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `LivenessService`.
#[derive(Debug, Clone)]
pub struct LivenessServer {
    /// Admits calls.
    pub gateway: Gateway,
    /// Whether callers get every reason and the value of every check. If not, reasons that would
    /// help an attacker are merged, and values are left out.
    pub tells_all: bool,
}

/// Sender of a stream's events.
type Events = mpsc::Sender<Result<v1::RunResponse, Status>>;

struct QueuedFrame {
    frame: CameraFrame,
    /// When the last byte arrived.
    received_at: Instant,
    /// The lease on the bytes of the frame. Held until the frame is processed.
    lease: MessageLease,
}

/// The request messages of a stream.
struct RequestStream {
    call: Arc<Call>,
    messages: Streaming<v1::RunRequest>,
    lease: ByteLease,
}

impl RequestStream {
    fn of(mut request: Request<Streaming<v1::RunRequest>>) -> Self {
        let lease = request.extensions_mut().remove().unwrap_or_default();
        Self { call: call_of(&request), messages: request.into_inner(), lease }
    }

    async fn next(&mut self) -> Result<Option<(v1::RunRequest, MessageLease)>, Error> {
        let message = self.messages.message().await.map_err(|status| broken_stream(&status))?;
        Ok(message.map(|message| {
            let lease = self.lease.split_off(message.encoded_len());
            (message, lease)
        }))
    }
}

impl LivenessServer {
    async fn answer_create(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<v1::CreateSessionResponse, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_create_session(request.into_inner(), &self.gateway.limits)?;
        let admitted = self.gateway.admit(parsed.caller, info)?;
        let created = admitted.pipeline.create_session(parsed.spec).await?;
        Ok(convert::create_session_response(
            admitted.request_id,
            &created,
            &admitted.pipeline.sessions,
        ))
    }

    async fn answer_evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<v1::LivenessResult, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_evaluate(request.into_inner(), &self.gateway.limits)?;
        let admitted = self.gateway.admit(parsed.caller, info)?;
        let OpenSession { admitted, session, refund } =
            open_session(admitted, parsed.start, Assurance::Batch).await?;
        refund.settle(self.process_recording(admitted, session, parsed.frames).await).await
    }

    /// Processes the frames of a recording and returns the result.
    async fn process_recording(
        &self,
        admitted: AdmittedCall,
        mut session: RunningSession,
        frames: Vec<CameraFrame>,
    ) -> Result<v1::LivenessResult, Error> {
        for frame in frames {
            if !session.is_open() {
                break;
            }
            session.process_frame(frame, Instant::now(), false).await?;
        }
        self.finish_session(admitted, session).await
    }

    async fn answer_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<v1::LivenessResult, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_get_result(request.into_inner(), &self.gateway.limits)?;
        let store = Arc::clone(&parsed.caller.store);
        let admitted = self.gateway.admit(parsed.caller, info)?;
        let saved = admitted.pipeline.load_result(parsed.session).await?;
        let result = v1::LivenessResult::decode(saved).map_err(Error::internal)?;
        // Another shop gets the same error as for a session without a result.
        if result.store_id == *store { Ok(result) } else { Err(Error::NoResult) }
    }

    /// Answers a whole stream: start, frames, result.
    async fn answer_run(
        &self,
        mut frames: RequestStream,
        events: &Events,
    ) -> Result<v1::LivenessResult, Error> {
        let OpenSession { admitted, session, refund } = self.start_run(&mut frames).await?;
        refund.settle(self.process_stream(admitted, session, frames, events).await).await
    }

    /// Processes the frames of a stream as they arrive and returns the result.
    async fn process_stream(
        &self,
        admitted: AdmittedCall,
        mut session: RunningSession,
        frames: RequestStream,
        events: &Events,
    ) -> Result<v1::LivenessResult, Error> {
        let (queue, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let receiving = pin!(self.receive_frames(frames, queue));
        {
            let mut processing = pin!(process_frames(&mut session, queued, events));
            tokio::select! {
                biased;
                processed = &mut processing => processed?,
                received = receiving => {
                    received?;
                    processing.await?;
                }
            }
        }
        self.finish_session(admitted, session).await
    }

    async fn start_run(&self, frames: &mut RequestStream) -> Result<OpenSession, Error> {
        let first = timeout(START_TIMEOUT, frames.next()).await.map_err(|_| Error::Expired)??;
        // `_lease` is dropped when this function returns: the portrait has then been examined.
        let (message, _lease) = match first {
            Some((message, lease)) => (message, Some(lease)),
            None => (v1::RunRequest::default(), None),
        };
        let deadline = frames.call.begin() + SESSION_TIMEOUT;
        let bytes = message.encoded_len();
        let info = RequestInfo { call: Arc::clone(&frames.call), deadline, bytes };
        let parsed = convert::parse_start(message, &self.gateway.limits)?;
        let admitted = self.gateway.admit(parsed.caller, info)?;
        open_session(admitted, parsed.start, Assurance::Stream).await
    }

    /// Receives frames and queues them with their arrival times, until the client sends no more.
    async fn receive_frames(
        &self,
        mut frames: RequestStream,
        queue: mpsc::Sender<QueuedFrame>,
    ) -> Result<(), Error> {
        while let Some((message, lease)) = frames.next().await? {
            let received_at = Instant::now();
            let frame = convert::parse_frame(message, &self.gateway.limits)?;
            if queue.send(QueuedFrame { frame, received_at, lease }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Ends a session. The result is saved before the client gets it.
    async fn finish_session(
        &self,
        admitted: AdmittedCall,
        session: RunningSession,
    ) -> Result<v1::LivenessResult, Error> {
        let pipeline = Arc::clone(&admitted.pipeline);
        let report = session.finish()?;
        let id = report.claims.session;
        let result =
            convert::liveness_result(admitted.into_response_info(), &report, self.tells_all);
        pipeline.save_result(id, result.encode_to_vec()).await?;
        Ok(result)
    }
}

#[tonic::async_trait]
impl LivenessService for LivenessServer {
    type RunStream = EventStream<v1::RunResponse>;

    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<Response<v1::CreateSessionResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_create(request), |_| Outcome::Answered).await
    }

    async fn run(
        &self,
        request: Request<Streaming<v1::RunRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let (events, queued) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (server, frames) = (self.clone(), RequestStream::of(request));
        let call = Arc::clone(&frames.call);
        let span = call.span().clone();
        let serving = async move {
            let result = server.answer_run(frames, &events).await;
            let result = end_call(&call, result, |result| outcome_of(result.decision()));
            let last = result
                .map(|result| v1::RunResponse { event: Some(RunEvent::Result(Box::new(result))) });
            // A client that has left cannot receive the result, but can ask for the saved one.
            events.send_timeout(last, EVENT_SEND_TIMEOUT).await.map_err(|_| Error::Cancelled)
        };
        let task = tokio::spawn(serving.instrument(span));
        Ok(Response::new(EventStream::new(queued, task)))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_evaluate(request), |result| outcome_of(result.decision())).await
    }

    async fn get_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_result(request), |_| Outcome::Answered).await
    }
}

/// The attempt that a session costs its transaction, refunded if the server was at fault.
struct AttemptRefund {
    pipeline: Arc<Pipeline>,
    /// Digest of the transaction. `None` if the token cannot be opened: no session can be run.
    transaction: Option<KeyedDigests>,
    assurance: Assurance,
}

/// A started session, and the call that runs it.
struct OpenSession {
    admitted: AdmittedCall,
    session: RunningSession,
    refund: AttemptRefund,
}

/// Starts a session. If the start fails by the server's fault, refunds the attempt.
async fn open_session(
    admitted: AdmittedCall,
    start: SessionStart,
    assurance: Assurance,
) -> Result<OpenSession, Error> {
    let pipeline = Arc::clone(&admitted.pipeline);
    let transaction = pipeline.transaction_of(&start.token);
    let refund = AttemptRefund { pipeline, transaction, assurance };
    let started = admitted.pipeline.start_session(start, assurance, &admitted.ticket).await;
    match started {
        Ok(session) => Ok(OpenSession { admitted, session, refund }),
        // At the start, only `ReplayStore::claim` gives this error. Whether the session is claimed
        // is then unknown. A session that can still be run must not get its attempt back.
        Err(error @ Error::ReplayStore(_)) => Err(error),
        Err(error) => refund.settle(Err(error)).await,
    }
}

impl AttemptRefund {
    /// Returns `ended` unchanged. Refunds the attempt if the session failed by the server's fault.
    async fn settle<A>(self, ended: Result<A, Error>) -> Result<A, Error> {
        let is_ours = ended.as_ref().is_err_and(|error| is_our_fault(error, self.assurance));
        if let Some(transaction) = self.transaction.filter(|_| is_ours) {
            self.pipeline.refund_attempt(&transaction).await;
        }
        ended
    }
}

/// Returns whether the server was at fault: the client could not have caused the error at will.
///
/// The client sets the deadline of `Evaluate`, so an expired recording is not our fault. The bytes
/// that fill the intake may be the client's own. A client can, with some effort, cause the server
/// to fall behind; the limit of [`Pipeline::refund_attempt`] bounds the gain.
fn is_our_fault(error: &Error, assurance: Assurance) -> bool {
    match error.kind() {
        ErrorKind::NotReady
        | ErrorKind::ReplayStoreDown
        | ErrorKind::Behind
        | ErrorKind::Internal => true,
        ErrorKind::Expired => assurance == Assurance::Stream,
        ErrorKind::Invalid
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Precondition
        | ErrorKind::AlreadyUsed
        | ErrorKind::Overloaded
        | ErrorKind::Cancelled => false,
    }
}

/// Processes queued frames until the session ends or the client sends no more.
async fn process_frames(
    session: &mut RunningSession,
    mut queued: mpsc::Receiver<QueuedFrame>,
    events: &Events,
) -> Result<(), Error> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left_out = 0;
    while session.is_open() {
        let happened = tokio::select! {
            biased;
            next = queued.recv() => match next {
                Some(QueuedFrame { frame, received_at, lease: _lease }) => {
                    let is_behind = queued.len() > FRAMES_QUEUED_IN_TIME_MAX;
                    session.process_frame(frame, received_at, is_behind).await?
                }
                None => break,
            },
            _ = ticks.tick() => session.check_time_limits(),
        };
        for event in happened {
            send_event(events, convert::run_event(event, session)).await?;
        }
        if session.frames_left_out() > left_out {
            left_out = session.frames_left_out();
            send_event(events, Some(convert::thinned_event(left_out))).await?;
        }
    }
    Ok(())
}

/// Sends an event, if there is one. A client that has left or does not read is not the server's
/// fault.
async fn send_event(events: &Events, event: Option<RunEvent>) -> Result<(), Error> {
    if event.is_none() {
        return Ok(());
    }
    let response = v1::RunResponse { event };
    events.send_timeout(Ok(response), EVENT_SEND_TIMEOUT).await.map_err(|_| Error::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::ReplayError;

    #[test]
    fn only_what_a_client_cannot_bring_about_at_will_is_our_fault() {
        for (error, [of_stream, of_recording]) in [
            (Error::NotReady("a device is out of service"), [true, true]),
            (Error::ReplayStore(ReplayError::TimedOut { timeout_ms: 1 }), [true, true]),
            (Error::Behind { skipped: 6, all: 20 }, [true, true]),
            (Error::internal(std::fmt::Error), [true, true]),
            (Error::Expired, [true, false]),
            (Error::IntakeFull, [false, false]),
            (Error::Cancelled, [false, false]),
            (Error::BrokenStream(String::new()), [false, false]),
            (Error::invalid("frame", "must follow the start"), [false, false]),
            (Error::SessionUsed, [false, false]),
        ] {
            assert_eq!(is_our_fault(&error, Assurance::Stream), of_stream, "{error}");
            assert_eq!(is_our_fault(&error, Assurance::Batch), of_recording, "{error}");
        }
    }
}
