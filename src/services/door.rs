//! What every call passes: it is admitted, answered and ended.

use std::sync::{Arc, OnceLock};

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert::{About, Caller};
use super::layers::Deadline;
use super::status;
use crate::image::ImageSettings;
use crate::pipeline::{Error, Pipeline};
use crate::proto::v1;
use crate::scheduler::{Ticket, Tickets};
use crate::telemetry::{Call, Outcome};

/// The pipeline, once every model is live; empty until then.
pub type Readiness = Arc<OnceLock<Arc<Pipeline>>>;

/// Lets calls in. The services of one server share it.
#[derive(Debug, Clone)]
pub struct Door {
    /// Filled when the models are live.
    pub readiness: Readiness,
    /// Leave to use the server.
    pub tickets: Tickets,
    /// Limits on pictures.
    pub limits: ImageSettings,
}

/// One admitted call.
pub(super) struct Admitted {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) ticket: Arc<Ticket>,
    /// The caller's identifier, which is echoed and not used; the server's where there is none.
    pub(super) request_id: String,
    begun: Instant,
}

impl Admitted {
    pub(super) fn about(self) -> About {
        About {
            request_id: self.request_id,
            models: self.pipeline.live_models(),
            total: self.begun.elapsed(),
        }
    }
}

/// The call that a request was opened as.
pub(super) fn call_of<M>(request: &Request<M>) -> Arc<Call> {
    let call = request.extensions().get().cloned();
    call.expect("the call layer stands before every service")
}

/// What a request is: which call, until when, and how large its message is.
pub(super) struct Arrival {
    pub(super) call: Arc<Call>,
    pub(super) deadline: Instant,
    pub(super) bytes: usize,
}

impl Arrival {
    pub(super) fn of<M: Message>(request: &Request<M>) -> Self {
        let Deadline(deadline) =
            *request.extensions().get().expect("the deadline layer stands before every service");
        let call = call_of(request);
        call.begin();
        Self { call, deadline, bytes: request.get_ref().encoded_len() }
    }
}

impl Door {
    pub(super) fn admit(&self, caller: Caller, arrival: Arrival) -> Result<Admitted, Error> {
        let pipeline =
            self.readiness.get().cloned().ok_or(Error::NotReady("models are loading"))?;
        if let Some(model) = &caller.model {
            pipeline.require_model(model)?;
        }
        let Arrival { call, deadline, bytes } = arrival;
        let ticket = self.tickets.admit(bytes, deadline, caller.store)?;
        call.attach_times(ticket.times());
        let request_id = match caller.request_id {
            id if id.is_empty() => call.id().to_string(),
            id => id,
        };
        Ok(Admitted { pipeline, ticket: Arc::new(ticket), request_id, begun: call.begin() })
    }
}

/// Answers a call, and ends it.
pub(super) async fn serve<A>(
    call: Arc<Call>,
    answer: impl Future<Output = Result<A, Error>>,
    outcome: impl FnOnce(&A) -> Outcome,
) -> Result<Response<A>, Status> {
    conclude(&call, answer.await, outcome).map(Response::new)
}

/// Ends a call by its answer.
pub(super) fn conclude<A>(
    call: &Call,
    answer: Result<A, Error>,
    outcome: impl FnOnce(&A) -> Outcome,
) -> Result<A, Status> {
    call.end(&match &answer {
        Ok(answer) => status::answered(outcome(answer)),
        Err(error) => status::failed(error),
    });
    answer.map_err(|error| status::from_error(&error))
}

/// How a decision is counted.
pub(super) fn decided(decision: v1::Decision) -> Outcome {
    match decision {
        v1::Decision::Pass => Outcome::Pass,
        v1::Decision::Fail => Outcome::Fail,
        v1::Decision::Review => Outcome::Review,
        v1::Decision::Retry => Outcome::Retry,
        v1::Decision::Unspecified => Outcome::Failed,
    }
}
