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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// A `Frame` whose every field may be anything.
    fn any_frame() -> impl Strategy<Value = v1::Frame> {
        let image = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        let degrees = prop_oneof![Just(90), any::<u32>()];
        (any::<u32>(), any::<i64>(), image, any::<bool>(), degrees).prop_map(
            |(sequence, capture_unix_ms, image, mirrored, rotation_degrees)| v1::Frame {
                sequence,
                capture_unix_ms,
                image: image.map(|data| v1::Image { data }),
                mirrored,
                rotation_degrees,
            },
        )
    }

    /// Bytes of a start and of a recording, for others to break.
    fn whole(token: String, frames: Vec<v1::Frame>) -> [Vec<u8>; 2] {
        let context = v1::RequestContext {
            store_id: "shop-1".to_owned(),
            consent_reference: "consent/1".to_owned(),
            ..v1::RequestContext::default()
        };
        let start = v1::Start {
            context: Some(context),
            token,
            device_id: "camera-1".to_owned(),
            portrait: Some(v1::Image { data: vec![1, 2, 3] }),
        };
        let recording = v1::EvaluateRequest {
            context: start.context.clone(),
            token: start.token.clone(),
            device_id: start.device_id.clone(),
            portrait: start.portrait.clone(),
            frames,
        };
        let message = Some(v1::run_request::Message::Start(start));
        [v1::RunRequest { message }.encode_to_vec(), recording.encode_to_vec()]
    }

    /// Reads `bytes` as every message of the service; what is taken keeps the rules.
    fn read_as_everything(bytes: &[u8]) {
        let limits = ImageSettings { bytes_max: 32, ..ImageSettings::default() };
        if let Ok(request) = v1::RunRequest::decode(bytes) {
            if let Ok(frame) = frame(request.clone(), &limits) {
                assert!(fits(&frame), "{frame:?}");
            }
            if let Ok(Start { start, .. }) = start(request, &limits) {
                assert!((1..=TOKEN_BYTES_MAX).contains(&start.token.expose().len()));
            }
        }
        if let Ok(request) = v1::EvaluateRequest::decode(bytes)
            && let Ok(Evaluate { frames, .. }) = evaluate(request, &limits)
        {
            assert!((1..=FRAMES_MAX).contains(&frames.len()) && frames.iter().all(fits));
        }
        if let Ok(request) = v1::CreateSessionRequest::decode(bytes)
            && let Ok(CreateSession { order, .. }) = create_session(request, &limits)
        {
            assert!(order.policy_fmr.is_none_or(|fmr| fmr > 0.0 && fmr < 1.0));
        }
        if let Ok(request) = v1::GetResultRequest::decode(bytes) {
            let id = request.session_id.clone();
            assert!(get_result(request, &limits).is_err() || id.len() == 32);
        }
    }

    fn fits(frame: &CameraFrame) -> bool {
        (1..=32).contains(&frame.file.expose().len())
            && i64::try_from(frame.captured_unix_ms).is_ok()
    }

    #[test]
    fn a_start_and_a_recording_that_keep_the_rules_are_taken() {
        let image = Some(v1::Image { data: vec![1] });
        let frame = v1::Frame { image, rotation_degrees: 270, ..v1::Frame::default() };
        let [run, recording] = whole("token".to_owned(), vec![frame]);
        let limits = ImageSettings::default();
        start(v1::RunRequest::decode(&run[..]).unwrap(), &limits).unwrap();
        let recording = v1::EvaluateRequest::decode(&recording[..]).unwrap();
        assert_eq!(evaluate(recording, &limits).unwrap().frames.len(), 1);
    }

    proptest! {
        // Smoke fuzzing without libFuzzer, which needs a nightly compiler: enough to reach every
        // field, and done in a second.
        #![proptest_config(ProptestConfig::with_cases(16_384))]

        #[test]
        fn any_bytes_are_read_by_the_rules_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            read_as_everything(&bytes);
        }

        #[test]
        fn any_metadata_of_a_frame_is_read_by_the_rules_or_refused(frame in any_frame()) {
            let message = Some(v1::run_request::Message::Frame(frame));
            read_as_everything(&v1::RunRequest { message }.encode_to_vec());
        }

        #[test]
        fn whole_messages_with_broken_bytes_are_read_by_the_rules_or_refused(
            token in ".{0,40}",
            frames in prop::collection::vec(any_frame(), 0..5),
            breaks in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            for mut bytes in whole(token, frames) {
                read_as_everything(&bytes);
                for (at, byte) in &breaks {
                    let at = at.index(bytes.len());
                    bytes[at] ^= byte;
                }
                read_as_everything(&bytes);
                read_as_everything(&bytes[..end.index(bytes.len())]);
            }
        }
    }
}
