//! What every call passes: it is counted, admitted and answered.

use std::sync::{Arc, OnceLock};

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert::{About, Caller};
use super::layers::Deadline;
use super::status;
use crate::config::ImageSettings;
use crate::pipeline::{Error, Pipeline};
use crate::proto::v1;
use crate::scheduler::{Ticket, Tickets};
use crate::telemetry::{self, CallGuard, Method, Metrics, Outcome};

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
    /// Counts and times every call.
    pub metrics: Metrics,
}

/// One admitted call.
pub(super) struct Admitted {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) ticket: Arc<Ticket>,
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

/// When a request came, when it ends, and how large its message is.
pub(super) struct Arrival {
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) bytes: usize,
}

impl Arrival {
    pub(super) fn of<M: Message>(request: &Request<M>) -> Self {
        let Deadline(deadline) =
            *request.extensions().get().expect("the deadline layer stands before every service");
        Self { begun: Instant::now(), deadline, bytes: request.get_ref().encoded_len() }
    }
}

impl Door {
    pub(super) fn admit(&self, caller: Caller, arrival: Arrival) -> Result<Admitted, Error> {
        let pipeline =
            self.readiness.get().cloned().ok_or(Error::NotReady("models are loading"))?;
        if let Some(model) = &caller.model {
            pipeline.require_model(model)?;
        }
        let Arrival { begun, deadline, bytes } = arrival;
        let ticket = self.tickets.admit(bytes, deadline, caller.store)?;
        let request_id = match caller.request_id {
            id if id.is_empty() => uuid::Uuid::new_v4().to_string(),
            id => id,
        };
        Ok(Admitted { pipeline, ticket: Arc::new(ticket), request_id, begun })
    }

    /// Counts, times and logs a call, whichever way it ends.
    pub(super) async fn serve<A>(
        &self,
        method: Method,
        answer: impl Future<Output = Result<A, Error>>,
        outcome: impl FnOnce(&A) -> Outcome,
    ) -> Result<Response<A>, Status> {
        let call = self.metrics.begin(method);
        conclude(call, answer.await, outcome).map(Response::new)
    }
}

/// Counts and logs how a call ended.
pub(super) fn conclude<A>(
    call: CallGuard<'_>,
    answer: Result<A, Error>,
    outcome: impl FnOnce(&A) -> Outcome,
) -> Result<A, Status> {
    match answer {
        Ok(answer) => {
            call.end(outcome(&answer));
            Ok(answer)
        }
        Err(error) => {
            match &error {
                Error::Internal(source) => {
                    let causes = telemetry::causes(&**source);
                    tracing::error!(causes, "request failed");
                }
                Error::Store(source) => {
                    let causes = telemetry::causes(source);
                    tracing::error!(causes, "the store of used sessions is unavailable");
                }
                _ => {}
            }
            call.end(status::outcome(error.kind()));
            Err(status::from_error(&error))
        }
    }
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
