//! `menshen.v1.LivenessService`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::door::{Admitted, Arrival, Door, conclude, decided};
use super::events::EventStream;
use super::status::broken_stream;
use crate::liveness::Assurance;
use crate::pipeline::{Arrived, Error, LiveSession};
use crate::proto::v1;
use crate::proto::v1::liveness_service_server::LivenessService;
use crate::proto::v1::run_response::Event as Told;
use crate::telemetry::{Method, Outcome};

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
        let started = call.pipeline.start_session(parsed.start, Assurance::Batch, &call.ticket);
        let mut session = started.await?;
        for frame in parsed.frames {
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
        mut frames: Streaming<v1::RunRequest>,
        events: &Events,
    ) -> Result<v1::LivenessResult, Error> {
        let (call, mut session) = self.start(&mut frames).await?;
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

    async fn start(
        &self,
        frames: &mut Streaming<v1::RunRequest>,
    ) -> Result<(Admitted, LiveSession), Error> {
        let first = timeout(START_WAIT, frames.message()).await.map_err(|_| Error::Expired)?;
        let first = first.map_err(|status| broken_stream(&status))?.unwrap_or_default();
        let begun = Instant::now();
        let arrival = Arrival { begun, deadline: begun + SESSION_WAIT, bytes: first.encoded_len() };
        let parsed = convert::start(first, &self.door.limits)?;
        let call = self.door.admit(parsed.caller, arrival)?;
        let session =
            call.pipeline.start_session(parsed.start, Assurance::Stream, &call.ticket).await?;
        Ok((call, session))
    }

    /// Hands on frames with the time they arrived, until the client sends no more.
    async fn read(
        &self,
        mut frames: Streaming<v1::RunRequest>,
        arrived: mpsc::Sender<Arrived>,
    ) -> Result<(), Error> {
        while let Some(message) = frames.message().await.map_err(|status| broken_stream(&status))? {
            let at = Instant::now();
            let frame = convert::frame(message, &self.door.limits)?;
            if arrived.send(Arrived { frame, at }).await.is_err() {
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
        let answer = self.answer_create(request);
        self.door.serve(Method::CreateSession, answer, |_| Outcome::Answered).await
    }

    async fn run(
        &self,
        request: Request<Streaming<v1::RunRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let (events, told) = mpsc::channel(EVENTS_WAITING_MAX);
        let (server, frames) = (self.clone(), request.into_inner());
        let task = tokio::spawn(async move {
            let call = server.door.metrics.begin(Method::Run);
            let result = server.answer_run(frames, &events).await;
            let result = conclude(call, result, |result| decided(result.decision()));
            let last = result
                .map(|result| v1::RunResponse { event: Some(Told::Result(Box::new(result))) });
            // A client that has left is not told; what is kept it can ask for.
            let _ = events.send_timeout(last, EVENTS_WAIT).await;
        });
        Ok(Response::new(EventStream::new(told, task)))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let answer = self.answer_evaluate(request);
        self.door.serve(Method::Evaluate, answer, |result| decided(result.decision())).await
    }

    async fn get_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<Response<v1::LivenessResult>, Status> {
        let answer = self.answer_result(request);
        self.door.serve(Method::GetResult, answer, |_| Outcome::Answered).await
    }
}

/// Takes frame by frame until nothing more is wanted, or nothing more comes.
async fn judge(
    session: &mut LiveSession,
    mut waiting: mpsc::Receiver<Arrived>,
    events: &Events,
) -> Result<(), Error> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut thinned = 0;
    while session.is_open() {
        let happened = tokio::select! {
            biased;
            arrived = waiting.recv() => match arrived {
                Some(arrived) => {
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
    events.send_timeout(Ok(response), EVENTS_WAIT).await.map_err(|_| Error::Gone)
}
