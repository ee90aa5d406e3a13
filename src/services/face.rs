//! `menshen.v1.FaceService`.

use tonic::{Request, Response, Status};

use super::convert;
use super::gateway::{Gateway, RequestInfo, call_of, outcome_of, serve};
use crate::pipeline::Error;
use crate::proto::v1;
use crate::proto::v1::face_service_server::FaceService;
use crate::telemetry::Outcome;

/// Serves `FaceService`.
#[derive(Debug, Clone)]
pub struct FaceServer(pub Gateway);

impl FaceServer {
    async fn answer_verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<v1::VerifyResponse, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_verify(request.into_inner(), &self.0.limits)?;
        let admitted = self.0.admit(parsed.caller, info)?;
        let verification = admitted
            .pipeline
            .verify(parsed.portrait, parsed.live, parsed.policy_fmr, &admitted.ticket)
            .await?;
        Ok(convert::verify_response(admitted.into_response_info(), &verification))
    }

    async fn answer_compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<v1::CompareResponse, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_compare(request.into_inner(), &self.0.limits)?;
        let admitted = self.0.admit(parsed.caller, info)?;
        let comparison = admitted.pipeline.compare(parsed.a, parsed.b, &admitted.ticket).await?;
        Ok(convert::compare_response(admitted.into_response_info(), &comparison))
    }

    async fn answer_embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<v1::EmbedResponse, Error> {
        let info = RequestInfo::of(&request);
        let v1::EmbedRequest { context, image, source } = request.into_inner();
        let parsed = convert::parse_photo(context, image, source, &self.0.limits)?;
        let admitted = self.0.admit(parsed.caller, info)?;
        let photo = admitted.pipeline.embed(parsed.photo, &admitted.ticket).await?;
        Ok(convert::embed_response(admitted.into_response_info(), &photo))
    }

    async fn answer_detect(
        &self,
        request: Request<v1::DetectRequest>,
    ) -> Result<v1::DetectResponse, Error> {
        let info = RequestInfo::of(&request);
        let v1::DetectRequest { context, image, source } = request.into_inner();
        let parsed = convert::parse_photo(context, image, source, &self.0.limits)?;
        let admitted = self.0.admit(parsed.caller, info)?;
        let photo = admitted.pipeline.detect(parsed.photo, &admitted.ticket).await?;
        Ok(convert::detect_response(admitted.into_response_info(), &photo))
    }

    async fn answer_check_liveness(
        &self,
        request: Request<v1::CheckLivenessRequest>,
    ) -> Result<v1::CheckLivenessResponse, Error> {
        let info = RequestInfo::of(&request);
        let parsed = convert::parse_check_liveness(request.into_inner(), &self.0.limits)?;
        let admitted = self.0.admit(parsed.caller, info)?;
        let check = admitted.pipeline.check_liveness(parsed.photo, &admitted.ticket).await?;
        Ok(convert::check_liveness_response(admitted.into_response_info(), &check))
    }
}

#[tonic::async_trait]
impl FaceService for FaceServer {
    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_verify(request), |answer| outcome_of(answer.decision())).await
    }

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<v1::CompareResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_compare(request), |_| Outcome::Answered).await
    }

    async fn embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<Response<v1::EmbedResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_embed(request), |_| Outcome::Answered).await
    }

    async fn detect(
        &self,
        request: Request<v1::DetectRequest>,
    ) -> Result<Response<v1::DetectResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_detect(request), |_| Outcome::Answered).await
    }

    async fn check_liveness(
        &self,
        request: Request<v1::CheckLivenessRequest>,
    ) -> Result<Response<v1::CheckLivenessResponse>, Status> {
        let call = call_of(&request);
        serve(call, self.answer_check_liveness(request), |answer| outcome_of(answer.decision()))
            .await
    }
}
