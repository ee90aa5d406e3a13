//! `menshen.v1.FaceService`.

use std::sync::{Arc, OnceLock};

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert::{self, About, Caller};
use super::layers::Deadline;
use super::status;
use crate::config::ImageSettings;
use crate::pipeline::{Error, Pipeline};
use crate::proto::v1;
use crate::proto::v1::face_service_server::FaceService;
use crate::scheduler::{Ticket, Tickets};
use crate::telemetry::{self, Method, Metrics, Outcome};

/// The pipeline, once every model is live; empty until then.
pub type Readiness = Arc<OnceLock<Arc<Pipeline>>>;

/// Serves `FaceService`.
#[derive(Debug, Clone)]
pub struct FaceServer {
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
struct Admitted {
    pipeline: Arc<Pipeline>,
    ticket: Arc<Ticket>,
    request_id: String,
    begun: Instant,
}

impl Admitted {
    fn about(self) -> About {
        About {
            request_id: self.request_id,
            models: self.pipeline.live_models(),
            total: self.begun.elapsed(),
        }
    }
}

/// When a request came, when it ends, and how large its message is.
struct Arrival {
    begun: Instant,
    deadline: Instant,
    bytes: usize,
}

impl Arrival {
    fn of<M: Message>(request: &Request<M>) -> Self {
        let Deadline(deadline) =
            *request.extensions().get().expect("the deadline layer stands before every service");
        Self { begun: Instant::now(), deadline, bytes: request.get_ref().encoded_len() }
    }
}

impl FaceServer {
    fn admit(&self, caller: Caller, arrival: Arrival) -> Result<Admitted, Error> {
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

    async fn answer_verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<v1::VerifyResponse, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::verify(request.into_inner(), &self.limits)?;
        let call = self.admit(parsed.caller, arrival)?;
        let verification = call
            .pipeline
            .verify(parsed.portrait, parsed.live, parsed.policy_fmr, &call.ticket)
            .await?;
        Ok(convert::verify_response(call.about(), &verification))
    }

    async fn answer_compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<v1::CompareResponse, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::compare(request.into_inner(), &self.limits)?;
        let call = self.admit(parsed.caller, arrival)?;
        let comparison = call.pipeline.compare(parsed.a, parsed.b, &call.ticket).await?;
        Ok(convert::compare_response(call.about(), &comparison))
    }

    async fn answer_embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<v1::EmbedResponse, Error> {
        let arrival = Arrival::of(&request);
        let v1::EmbedRequest { context, image, source } = request.into_inner();
        let parsed = convert::photo(context, image, source, &self.limits)?;
        let call = self.admit(parsed.caller, arrival)?;
        let photo = call.pipeline.embed(parsed.photo, &call.ticket).await?;
        Ok(convert::embed_response(call.about(), &photo))
    }

    async fn answer_detect(
        &self,
        request: Request<v1::DetectRequest>,
    ) -> Result<v1::DetectResponse, Error> {
        let arrival = Arrival::of(&request);
        let v1::DetectRequest { context, image, source } = request.into_inner();
        let parsed = convert::photo(context, image, source, &self.limits)?;
        let call = self.admit(parsed.caller, arrival)?;
        let photo = call.pipeline.detect(parsed.photo, &call.ticket).await?;
        Ok(convert::detect_response(call.about(), &photo))
    }

    async fn answer_liveness(
        &self,
        request: Request<v1::CheckLivenessRequest>,
    ) -> Result<v1::CheckLivenessResponse, Error> {
        let arrival = Arrival::of(&request);
        let parsed = convert::liveness(request.into_inner(), &self.limits)?;
        let call = self.admit(parsed.caller, arrival)?;
        let check = call.pipeline.check_liveness(parsed.photo, &call.ticket).await?;
        Ok(convert::liveness_response(call.about(), &check))
    }

    /// Counts, times and logs a call, whichever way it ends.
    async fn serve<A>(
        &self,
        method: Method,
        answer: impl Future<Output = Result<A, Error>>,
        outcome: impl FnOnce(&A) -> Outcome,
    ) -> Result<Response<A>, Status> {
        let call = self.metrics.begin(method);
        match answer.await {
            Ok(answer) => {
                call.end(outcome(&answer));
                Ok(Response::new(answer))
            }
            Err(error) => {
                if let Error::Internal(source) = &error {
                    let causes = telemetry::causes(&**source);
                    tracing::error!(?method, causes, "request failed");
                }
                call.end(status::outcome(&error));
                Err(status::from_error(&error))
            }
        }
    }
}

#[tonic::async_trait]
impl FaceService for FaceServer {
    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let answer = self.answer_verify(request);
        self.serve(Method::Verify, answer, |answer| decided(answer.decision())).await
    }

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<v1::CompareResponse>, Status> {
        let answer = self.answer_compare(request);
        self.serve(Method::Compare, answer, |_| Outcome::Answered).await
    }

    async fn embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<Response<v1::EmbedResponse>, Status> {
        let answer = self.answer_embed(request);
        self.serve(Method::Embed, answer, |_| Outcome::Answered).await
    }

    async fn detect(
        &self,
        request: Request<v1::DetectRequest>,
    ) -> Result<Response<v1::DetectResponse>, Status> {
        let answer = self.answer_detect(request);
        self.serve(Method::Detect, answer, |_| Outcome::Answered).await
    }

    async fn check_liveness(
        &self,
        request: Request<v1::CheckLivenessRequest>,
    ) -> Result<Response<v1::CheckLivenessResponse>, Status> {
        let answer = self.answer_liveness(request);
        self.serve(Method::CheckLiveness, answer, |answer| decided(answer.decision())).await
    }
}

fn decided(decision: v1::Decision) -> Outcome {
    match decision {
        v1::Decision::Pass => Outcome::Pass,
        v1::Decision::Fail => Outcome::Fail,
        v1::Decision::Review => Outcome::Review,
        v1::Decision::Retry => Outcome::Retry,
        v1::Decision::Unspecified => Outcome::Failed,
    }
}
