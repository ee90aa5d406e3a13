//! Parses the requests of `LivenessService`.

use std::sync::Arc;

use super::fields::{Caller, Fields};
use crate::config::ImageSettings;
use crate::image::Rotation;
use crate::liveness::Assurance;
use crate::pipeline::{CameraFrame, Error, SessionOrder, SessionStart};
use crate::proto::v1;
use crate::trust::{Secret, SessionId};

/// Longest token: the claims of a session take a third of it.
const TOKEN_BYTES_MAX: usize = 4096;

/// SHA-256, in bytes.
const DIGEST_BYTES: usize = 32;

/// Most frames one request can carry; the rules of a session allow fewer.
const FRAMES_MAX: usize = 1024;

/// A `CreateSession` that keeps every rule.
#[derive(Debug)]
pub struct CreateSession {
    /// Who asks.
    pub caller: Caller,
    /// What is asked for.
    pub order: SessionOrder,
}

/// A `Start` that keeps every rule.
#[derive(Debug)]
pub struct Start {
    /// Who asks.
    pub caller: Caller,
    /// Token and portrait.
    pub start: SessionStart,
}

/// An `Evaluate` that keeps every rule.
#[derive(Debug)]
pub struct Evaluate {
    /// Who asks.
    pub caller: Caller,
    /// Token and portrait.
    pub start: SessionStart,
    /// The recording.
    pub frames: Vec<CameraFrame>,
}

/// A `GetResult` that keeps every rule.
#[derive(Debug)]
pub struct GetResult {
    /// Who asks.
    pub caller: Caller,
    /// Whose result.
    pub session: SessionId,
}

/// Parses `CreateSession`.
///
/// # Errors
/// Every violated field.
pub fn create_session(
    request: v1::CreateSessionRequest,
    limits: &ImageSettings,
) -> Result<CreateSession, Error> {
    let mut fields = Fields::new(limits);
    let caller = fields.caller(request.context);
    fields.id("device_id", &request.device_id);
    fields.id("transaction_id", &request.transaction_id);
    let portrait_sha256 = fields.digest("portrait_sha256", &request.portrait_sha256);
    let portrait_source = fields.portrait_source(request.portrait_source);
    fields.policy_fmr(request.policy_fmr);
    let assurance = fields.assurance(request.assurance);
    fields.finish(|| {
        let caller = caller?;
        let order = SessionOrder {
            store: Arc::clone(&caller.store),
            consent: caller.consent.clone(),
            device: request.device_id,
            transaction: request.transaction_id,
            portrait_sha256: portrait_sha256?,
            portrait_source: portrait_source?,
            policy_fmr: request.policy_fmr,
            assurance: assurance?,
        };
        Some(CreateSession { caller, order })
    })
}

/// Parses the first message of `Run`.
///
/// # Errors
/// Every violated field.
pub fn start(request: v1::RunRequest, limits: &ImageSettings) -> Result<Start, Error> {
    let Some(v1::run_request::Message::Start(start)) = request.message else {
        return Err(Error::invalid("start", "must be the first message"));
    };
    let v1::Start { context, token, device_id, portrait } = start;
    let mut fields = Fields::new(limits);
    let caller = fields.caller(context);
    let start = fields.start(caller.as_ref(), token, device_id, portrait);
    fields.finish(|| Some(Start { caller: caller?, start: start? }))
}

/// Parses a later message of `Run`.
///
/// # Errors
/// Every violated field.
pub fn frame(request: v1::RunRequest, limits: &ImageSettings) -> Result<CameraFrame, Error> {
    let Some(v1::run_request::Message::Frame(frame)) = request.message else {
        return Err(Error::invalid("frame", "must follow the start: a session starts once"));
    };
    let mut fields = Fields::new(limits);
    let frame = fields.frame("frame", frame);
    fields.finish(|| frame)
}

/// Parses `Evaluate`.
///
/// # Errors
/// Every violated field.
pub fn evaluate(request: v1::EvaluateRequest, limits: &ImageSettings) -> Result<Evaluate, Error> {
    let v1::EvaluateRequest { context, token, device_id, portrait, frames } = request;
    let mut fields = Fields::new(limits);
    let caller = fields.caller(context);
    let start = fields.start(caller.as_ref(), token, device_id, portrait);
    if frames.is_empty() || frames.len() > FRAMES_MAX {
        fields.violated("frames", format!("must be 1 to {FRAMES_MAX}, but are {}", frames.len()));
        return fields.finish(|| None);
    }
    let frames: Option<Vec<CameraFrame>> = frames
        .into_iter()
        .enumerate()
        .map(|(index, frame)| fields.frame(&format!("frames[{index}]"), frame))
        .collect();
    fields.finish(|| Some(Evaluate { caller: caller?, start: start?, frames: frames? }))
}

/// Parses `GetResult`.
///
/// # Errors
/// Every violated field.
pub fn get_result(
    request: v1::GetResultRequest,
    limits: &ImageSettings,
) -> Result<GetResult, Error> {
    let mut fields = Fields::new(limits);
    let caller = fields.caller(request.context);
    let session = SessionId::parse(&request.session_id);
    if session.is_none() {
        fields.violated("session_id", "must be 32 hexadecimal digits");
    }
    fields.finish(|| Some(GetResult { caller: caller?, session: session? }))
}

impl Fields<'_> {
    fn digest(&mut self, field: &str, bytes: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
        let digest = bytes.try_into().ok();
        if digest.is_none() {
            let rule = format!("must be a SHA-256: 32 bytes, but is {}", bytes.len());
            self.violated(field, rule);
        }
        digest
    }

    fn assurance(&mut self, assurance: i32) -> Option<Assurance> {
        match v1::Assurance::try_from(assurance) {
            Ok(v1::Assurance::Unspecified | v1::Assurance::Stream) => Some(Assurance::Stream),
            Ok(v1::Assurance::Batch) => Some(Assurance::Batch),
            Err(_) => {
                self.violated("assurance", "must be STREAM or BATCH");
                None
            }
        }
    }

    fn start(
        &mut self,
        caller: Option<&Caller>,
        token: String,
        device: String,
        portrait: Option<v1::Image>,
    ) -> Option<SessionStart> {
        let token = Secret::new(token);
        let bytes = token.expose().len();
        if bytes == 0 || bytes > TOKEN_BYTES_MAX {
            let rule = format!("must be 1 to {TOKEN_BYTES_MAX} bytes, but is {bytes}");
            self.violated("token", rule);
        }
        self.id("device_id", &device);
        let portrait = self.image("portrait", portrait)?;
        Some(SessionStart { store: Arc::clone(&caller?.store), device, token, portrait })
    }

    fn frame(&mut self, field: &str, frame: v1::Frame) -> Option<CameraFrame> {
        let v1::Frame { sequence, capture_unix_ms, image, mirrored, rotation_degrees } = frame;
        let file = self.image(&format!("{field}.image"), image);
        let captured_unix_ms = u64::try_from(capture_unix_ms).ok();
        if captured_unix_ms.is_none() {
            self.violated(format!("{field}.capture_unix_ms"), "must not be negative");
        }
        let rotation = Rotation::from_degrees(rotation_degrees);
        if rotation.is_none() {
            let rule = format!("must be 0, 90, 180 or 270, but is {rotation_degrees}");
            self.violated(format!("{field}.rotation_degrees"), rule);
        }
        Some(CameraFrame {
            field: field.to_owned(),
            sequence,
            captured_unix_ms: captured_unix_ms?,
            file: file?,
            mirrored,
            rotation: rotation?,
        })
    }
}
