//! Admits calls and ends them.

use std::sync::{Arc, OnceLock};

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert::{Caller, ResponseInfo};
use super::layers::Deadline;
use super::status;
use crate::image::ImageSettings;
use crate::pipeline::{Error, Pipeline};
use crate::proto::v1;
use crate::scheduler::{Ticket, Tickets};
use crate::telemetry::{Call, Outcome};

/// A cell that holds the pipeline once all models are live.
pub type PipelineCell = Arc<OnceLock<Arc<Pipeline>>>;

/// Admits calls. All services of one server share the gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Empty until all models are live.
    pub pipeline: PipelineCell,
    /// Grants the ticket of each call.
    pub tickets: Tickets,
    /// Limits on images.
    pub limits: ImageSettings,
}

pub(super) struct AdmittedCall {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) ticket: Arc<Ticket>,
    /// The caller's identifier, which the server only echoes, or the server's own if the caller
    /// sent none.
    pub(super) request_id: String,
    /// When the request message was complete: the start that [`Call::begin`] returns every time.
    begun: Instant,
}

impl AdmittedCall {
    pub(super) fn into_response_info(self) -> ResponseInfo {
        ResponseInfo {
            request_id: self.request_id,
            models: self.pipeline.reported_models(),
            total: self.begun.elapsed(),
        }
    }
}

/// Returns the [`Call`] that the call layer opened for this request.
pub(super) fn call_of<M>(request: &Request<M>) -> Arc<Call> {
    let call = request.extensions().get().cloned();
    call.expect("the call layer stands before every service")
}

/// The call, the deadline and the size of the message in bytes, read from a request whose message
/// is complete.
pub(super) struct RequestInfo {
    pub(super) call: Arc<Call>,
    pub(super) deadline: Instant,
    pub(super) bytes: usize,
}

impl RequestInfo {
    /// Reads them, and starts the time of the call.
    pub(super) fn of<M: Message>(request: &Request<M>) -> Self {
        let Deadline(deadline) =
            *request.extensions().get().expect("the deadline layer stands before every service");
        let call = call_of(request);
        call.begin();
        Self { call, deadline, bytes: request.get_ref().encoded_len() }
    }
}

impl Gateway {
    /// Admits a call.
    ///
    /// # Errors
    /// The models are not live yet, the caller requires another model, or all tickets are taken.
    pub(super) fn admit(&self, caller: Caller, info: RequestInfo) -> Result<AdmittedCall, Error> {
        let pipeline = self.pipeline.get().cloned().ok_or(Error::NotReady("models are loading"))?;
        if let Some(model) = &caller.model {
            pipeline.require_model(model)?;
        }
        let RequestInfo { call, deadline, bytes } = info;
        let ticket = self.tickets.admit(bytes, deadline, caller.store)?;
        call.attach_times(ticket.times());
        let request_id = match caller.request_id {
            id if id.is_empty() => call.id().to_string(),
            id => id,
        };
        Ok(AdmittedCall { pipeline, ticket: Arc::new(ticket), request_id, begun: call.begin() })
    }
}

/// Awaits the answer of a call, then ends the call.
pub(super) async fn serve<A>(
    call: Arc<Call>,
    answer: impl Future<Output = Result<A, Error>>,
    outcome: impl FnOnce(&A) -> Outcome,
) -> Result<Response<A>, Status> {
    end_call(&call, answer.await, outcome).map(Response::new)
}

/// Ends a call with the outcome of its answer, or with its error. Returns the answer, or the status
/// of the error.
pub(super) fn end_call<A>(
    call: &Call,
    answer: Result<A, Error>,
    outcome: impl FnOnce(&A) -> Outcome,
) -> Result<A, Status> {
    call.end(&match &answer {
        Ok(answer) => status::ending_of_answer(outcome(answer)),
        Err(error) => status::ending_of_error(error),
    });
    answer.map_err(|error| status::from_error(&error))
}

/// Returns the outcome under which the metrics count a decision.
pub(super) fn outcome_of(decision: v1::Decision) -> Outcome {
    match decision {
        v1::Decision::Pass => Outcome::Pass,
        v1::Decision::Fail => Outcome::Fail,
        v1::Decision::Review => Outcome::Review,
        v1::Decision::Retry => Outcome::Retry,
        v1::Decision::Unspecified => Outcome::Failed,
    }
}
