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
use super::door::{Admitted, Arrival, Door, call_of, conclude, decided, serve};
use super::events::EventStream;
use super::layers::{Held, Room};
use super::status::broken_stream;
use crate::liveness::Assurance;
use crate::pipeline::{Arrived, CameraFrame, Error, Kind, LiveSession, Pipeline, SessionStart};
use crate::proto::v1;
use crate::proto::v1::liveness_service_server::LivenessService;
use crate::proto::v1::run_response::Event as Told;
use crate::telemetry::{Call, Outcome};
use crate::trust::KeyedDigests;

/// How long a stream may wait for its first message.
const START_WAIT: Duration = Duration::from_secs(10);

/// From the first message to the result, at most: the session's own limit ends it before.
const SESSION_WAIT: Duration = Duration::from_secs(90);

/// How often time is let pass without a frame.
const TICK: Duration = Duration::from_millis(250);

/// Frames that have arrived and are not looked at yet; then the client is held back. At most 8 MiB
/// of frames that keep their rule; the intake bounds those that do not.
const FRAMES_WAITING_MAX: usize = 32;

/// With more frames waiting than this, the server is behind and leaves the oldest out. Movements
/// are timed by the frames' own clock, so that a second and a half of delay harms nobody.
const FRAMES_WAITING_USUAL: usize = 16;

/// Events on their way to a client.
const EVENTS_WAITING_MAX: usize = 64;

/// How long a client that does not read its events is waited for.
const EVENTS_WAIT: Duration = Duration::from_secs(10);

/// Serves `LivenessService`.
#[derive(Debug, Clone)]
pub struct LivenessServer {
    /// Lets calls in.
    pub door: Door,
    /// Every reason and every check's value go to the caller; else only those that teach an
    /// attacker nothing.
    pub tells_all: bool,
}

/// Where a stream's events go.
type Events = mpsc::Sender<Result<v1::RunResponse, Status>>;

/// A frame that waits, and the room its bytes take.
type Waiting = (Arrived, Room);

/// What a client streams.
struct Incoming {
    call: Arc<Call>,
    messages: Streaming<v1::RunRequest>,
    held: Held,
}

impl Incoming {
    fn of(mut request: Request<Streaming<v1::RunRequest>>) -> Self {
        let held = request.extensions_mut().remove().unwrap_or_default();
        Self { call: call_of(&request), messages: request.into_inner(), held }
    }

    async fn next(&mut self) -> Result<Option<(v1::RunRequest, Room)>, Error> {
        let message = self.messages.message().await.map_err(|status| broken_stream(&status))?;
        Ok(message.map(|message| {
            let room = self.held.part(message.encoded_len());
            (message, room)
        }))
    }
}

impl LivenessServer {
    async fn answer_create(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<v1::CreateSessionResponse, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::create_session(request.into_inner(), &self.door.limits)?;
        let call = self.door.admit(parsed.caller, arrival)?;
        let created = call.pipeline.create_session(parsed.order).await?;
        Ok(convert::created(call.request_id, &created, &call.pipeline.sessions))
    }

    async fn answer_evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<v1::LivenessResult, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::evaluate(request.into_inner(), &self.door.limits)?;
        let call = self.door.admit(parsed.caller, arrival)?;
        let (session, stake) = open(&call, parsed.start, Assurance::Batch).await?;
        stake.settle(self.show_all(call, session, parsed.frames).await).await
    }

    /// The frames of a recording, and its result.
    async fn show_all(
        &self,
        call: Admitted,
        mut session: LiveSession,
        frames: Vec<CameraFrame>,
    ) -> Result<v1::LivenessResult, Error> {
        for frame in frames {
            if !session.is_open() {
                break;
            }
            session.take(Arrived { frame, at: Instant::now() }, false).await?;
        }
        self.result(call, session).await
    }

    async fn answer_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<v1::LivenessResult, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::get_result(request.into_inner(), &self.door.limits)?;
        let store = Arc::clone(&parsed.caller.store);
        let call = self.door.admit(parsed.caller, arrival)?;
        let kept = call.pipeline.kept_result(parsed.session).await?;
        let result = v1::LivenessResult::decode(kept).map_err(Error::internal)?;
        // Another shop learns not even that there is one.
        if result.store_id == *store { Ok(result) } else { Err(Error::NoResult) }
    }

    /// The whole of a stream: start, frames, result.
    async fn answer_run(
        &self,
        mut frames: Incoming,
        events: &Events,
    ) -> Result<v1::LivenessResult, Error> {
        let (call, session, stake) = self.start(&mut frames).await?;
        stake.settle(self.show_live(call, session, frames, events).await).await
    }

    /// The frames of a stream as they come, and its result.
    async fn show_live(
        &self,
        call: Admitted,
        mut session: LiveSession,
        frames: Incoming,
        events: &Events,
    ) -> Result<v1::LivenessResult, Error> {
        let (arrived, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let reading = pin!(self.read(frames, arrived));
        {
            let mut judging = pin!(judge(&mut session, waiting, events));
            tokio::select! {
                biased;
                judged = &mut judging => judged?,
                read = reading => {
                    read?;
                    judging.await?;
                }
            }
        }
        self.result(call, session).await
    }

    async fn start(&self, frames: &mut Incoming) -> Result<(Admitted, LiveSession, Stake), Error> {
        let first = timeout(START_WAIT, frames.next()).await.map_err(|_| Error::Expired)??;
        // The portrait's room is free once it has been looked at.
        let (first, _room) =
            first.map_or_else(Default::default, |(first, room)| (first, Some(room)));
        let call = Arc::clone(&frames.call);
        let deadline = call.begin() + SESSION_WAIT;
        let arrival = Arrival { call, deadline, bytes: first.encoded_len() };
        let parsed = convert::start(first, &self.door.limits)?;
        let call = self.door.admit(parsed.caller, arrival)?;
        let (session, stake) = open(&call, parsed.start, Assurance::Stream).await?;
        Ok((call, session, stake))
    }

    /// Hands on frames with the time they arrived, until the client sends no more.
    async fn read(
        &self,
        mut frames: Incoming,
        arrived: mpsc::Sender<Waiting>,
    ) -> Result<(), Error> {
        while let Some((message, room)) = frames.next().await? {
            let at = Instant::now();
            let frame = convert::frame(message, &self.door.limits)?;
            if arrived.send((Arrived { frame, at }, room)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Ends a session; its result is kept before it is told.
    async fn result(
        &self,
        call: Admitted,
        session: LiveSession,
    ) -> Result<v1::LivenessResult, Error> {
        let pipeline = Arc::clone(&call.pipeline);
        let report = session.finish()?;
        let id = report.claims.session;
        let result = convert::liveness_result(call.about(), &report, self.tells_all);
        pipeline.keep_result(id, result.encode_to_vec()).await?;
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
        let (events, told) = mpsc::channel(EVENTS_WAITING_MAX);
        let (server, frames) = (self.clone(), Incoming::of(request));
        let call = Arc::clone(&frames.call);
        let span = call.span().clone();
        let serving = async move {
            let result = server.answer_run(frames, &events).await;
            let result = conclude(&call, result, |result| decided(result.decision()));
            let last = result
                .map(|result| v1::RunResponse { event: Some(Told::Result(Box::new(result))) });
            // A client that has left is not told; what is kept it can ask for.
            events.send_timeout(last, EVENTS_WAIT).await.map_err(|_| Error::Cancelled)
        };
        let task = tokio::spawn(serving.instrument(span));
        Ok(Response::new(EventStream::new(told, task)))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_evaluate(request), |result| decided(result.decision())).await
    }

    async fn get_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_result(request), |_| Outcome::Answered).await
    }
}

/// The attempt that a session costs its transaction.
struct Stake {
    pipeline: Arc<Pipeline>,
    /// `None` where the session cannot be run anyway.
    transaction: Option<KeyedDigests>,
    assurance: Assurance,
}

/// Starts a session.
async fn open(
    call: &Admitted,
    start: SessionStart,
    assurance: Assurance,
) -> Result<(LiveSession, Stake), Error> {
    let pipeline = Arc::clone(&call.pipeline);
    let transaction = pipeline.transaction_of(&start.token);
    let stake = Stake { pipeline, transaction, assurance };
    match call.pipeline.start_session(start, assurance, &call.ticket).await {
        Ok(session) => Ok((session, stake)),
        // Of the start, this comes from the claim: whether the session was used is unknown, and one
        // that still can be run must not have been given back.
        Err(error @ Error::Store(_)) => Err(error),
        Err(error) => stake.settle(Err(error)).await,
    }
}

impl Stake {
    /// Hands on how a session ended, and gives the attempt back where that was our fault.
    async fn settle<A>(self, ended: Result<A, Error>) -> Result<A, Error> {
        let is_ours = ended.as_ref().is_err_and(|error| is_our_fault(error, self.assurance));
        if let Some(transaction) = self.transaction.filter(|_| is_ours) {
            self.pipeline.give_back(&transaction).await;
        }
        ended
    }
}

/// Whether a session ended by what its client cannot bring about at will. It chooses how long a
/// recording may take, and the bytes that leave no room may be its own. A server that is behind it
/// can bring about with some effort: [`Pipeline::give_back`] bounds what that gains.
fn is_our_fault(error: &Error, assurance: Assurance) -> bool {
    match error.kind() {
        Kind::NotReady | Kind::StoreDown | Kind::Behind | Kind::Internal => true,
        Kind::Expired => assurance == Assurance::Stream,
        Kind::Invalid
        | Kind::Denied
        | Kind::NotFound
        | Kind::Precondition
        | Kind::Used
        | Kind::Overloaded
        | Kind::Cancelled => false,
    }
}

/// Takes frame by frame until nothing more is wanted, or nothing more comes.
async fn judge(
    session: &mut LiveSession,
    mut waiting: mpsc::Receiver<Waiting>,
    events: &Events,
) -> Result<(), Error> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut thinned = 0;
    while session.is_open() {
        let happened = tokio::select! {
            biased;
            arrived = waiting.recv() => match arrived {
                Some((arrived, _room)) => {
                    session.take(arrived, waiting.len() > FRAMES_WAITING_USUAL).await?
                }
                None => break,
            },
            _ = ticks.tick() => session.time_out(),
        };
        for event in happened {
            tell(events, convert::told(event, session)).await?;
        }
        if session.thinned() > thinned {
            thinned = session.thinned();
            tell(events, Some(convert::thinned(thinned))).await?;
        }
    }
    Ok(())
}

/// A client that is gone, or takes no events, is no fault of the server.
async fn tell(events: &Events, told: Option<Told>) -> Result<(), Error> {
    let Some(told) = told else { return Ok(()) };
    let response = v1::RunResponse { event: Some(told) };
    events.send_timeout(Ok(response), EVENTS_WAIT).await.map_err(|_| Error::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::ReplayError;

    #[test]
    fn only_what_a_client_cannot_bring_about_at_will_is_our_fault() {
        for (error, [of_stream, of_recording]) in [
            (Error::NotReady("a device is out of service"), [true, true]),
            (Error::Store(ReplayError::TimedOut { timeout_ms: 1 }), [true, true]),
            (Error::Behind { late: 6, all: 20 }, [true, true]),
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
