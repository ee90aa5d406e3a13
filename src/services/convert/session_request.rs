//! Parses the requests of `LivenessService`.

use std::sync::Arc;
use std::time::Duration;

use super::fields::{Caller, FieldReader};
use crate::image::{ImageSettings, Orientation, Rotation, check_format};
use crate::liveness::{Assurance, FrameMeta};
use crate::pipeline::{CameraFrame, Error, SessionPortrait, SessionSpec, SessionStart};
use crate::proto::v1;
use crate::trust::{Digest, Secret, SessionId, TOKEN_BYTES_MAX};

/// Length of a SHA-256 in bytes.
const DIGEST_BYTES: usize = 32;

/// Maximum number of frames in one `Evaluate`. The session's own limit is lower and ends the
/// session with a reason; this one bounds the work of parsing.
const FRAMES_MAX: usize = 2048;

/// A valid `CreateSession`.
#[derive(Debug)]
pub struct ParsedCreateSession {
    pub caller: Caller,
    pub spec: SessionSpec,
}

/// A valid `Start`.
#[derive(Debug)]
pub struct ParsedStart {
    pub caller: Caller,
    /// Token and portrait.
    pub start: SessionStart,
}

/// A valid `Evaluate`.
#[derive(Debug)]
pub struct ParsedEvaluate {
    pub caller: Caller,
    /// Token and portrait.
    pub start: SessionStart,
    /// The frames of the recording.
    pub frames: Vec<CameraFrame>,
}

/// A valid `GetResult`.
#[derive(Debug)]
pub struct ParsedGetResult {
    pub caller: Caller,
    /// The session whose result is requested.
    pub session: SessionId,
}

/// Parses `CreateSession`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_create_session(
    request: v1::CreateSessionRequest,
    limits: &ImageSettings,
) -> Result<ParsedCreateSession, Error> {
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(request.context);
    fields.check_id("device_id", &request.device_id);
    fields.check_id("transaction_id", &request.transaction_id);
    let portrait = fields.portrait(&request.portrait_sha256, request.portrait);
    let portrait_source = fields.portrait_source(request.portrait_source);
    fields.check_policy_fmr(request.policy_fmr);
    let assurance = fields.assurance(request.assurance);
    fields.finish(|| {
        let caller = caller?;
        let spec = SessionSpec {
            store: Arc::clone(&caller.store),
            consent: caller.consent.clone(),
            device: request.device_id,
            transaction: request.transaction_id,
            portrait: portrait?,
            portrait_source: portrait_source?,
            policy_fmr: request.policy_fmr,
            assurance: assurance?,
        };
        Some(ParsedCreateSession { caller, spec })
    })
}

/// Parses the first message of `Run`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_start(request: v1::RunRequest, limits: &ImageSettings) -> Result<ParsedStart, Error> {
    let Some(v1::run_request::Message::Start(start)) = request.message else {
        return Err(Error::invalid("start", "must be the first message"));
    };
    let v1::Start { context, token, device_id, portrait } = start;
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(context);
    let start = fields.start(caller.as_ref(), token, device_id, portrait);
    fields.finish(|| Some(ParsedStart { caller: caller?, start: start? }))
}

/// Parses a later message of `Run`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_frame(request: v1::RunRequest, limits: &ImageSettings) -> Result<CameraFrame, Error> {
    let Some(v1::run_request::Message::Frame(frame)) = request.message else {
        return Err(Error::invalid("frame", "must follow the start: a session starts once"));
    };
    let mut fields = FieldReader::new(limits);
    let frame = fields.frame("frame", frame);
    fields.finish(|| frame)
}

/// Parses `Evaluate`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_evaluate(
    request: v1::EvaluateRequest,
    limits: &ImageSettings,
) -> Result<ParsedEvaluate, Error> {
    let v1::EvaluateRequest { context, token, device_id, portrait, frames } = request;
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(context);
    let start = fields.start(caller.as_ref(), token, device_id, portrait);
    if frames.is_empty() || frames.len() > FRAMES_MAX {
        fields.add_violation(
            "frames",
            format!("must be 1 to {FRAMES_MAX}, but are {}", frames.len()),
        );
        return fields.finish(|| None);
    }
    let frames: Option<Vec<CameraFrame>> = frames
        .into_iter()
        .enumerate()
        .map(|(index, frame)| fields.frame(&format!("frames[{index}]"), frame))
        .collect();
    fields.finish(|| Some(ParsedEvaluate { caller: caller?, start: start?, frames: frames? }))
}

/// Parses `GetResult`.
///
/// # Errors
/// [`Error::Invalid`] with every violated field.
pub fn parse_get_result(
    request: v1::GetResultRequest,
    limits: &ImageSettings,
) -> Result<ParsedGetResult, Error> {
    let mut fields = FieldReader::new(limits);
    let caller = fields.caller(request.context);
    let session = SessionId::parse(&request.session_id);
    if session.is_none() {
        fields.add_violation("session_id", "must be 32 hexadecimal digits");
    }
    fields.finish(|| Some(ParsedGetResult { caller: caller?, session: session? }))
}

impl FieldReader<'_> {
    /// Reads a portrait, given by its digest or as a file.
    fn portrait(&mut self, sha256: &[u8], file: Option<v1::Image>) -> Option<SessionPortrait> {
        match (sha256, file) {
            ([], None) => {
                self.add_violation(
                    "portrait",
                    "is required: the file here, or its portrait_sha256",
                );
                None
            }
            ([], Some(file)) => {
                let file = self.image("portrait", Some(file))?;
                if let Err(error) = check_format(file.expose()) {
                    self.add_violation("portrait.data", error.to_string());
                }
                Some(SessionPortrait::File(file))
            }
            (_, None) => self.digest("portrait_sha256", sha256).map(SessionPortrait::Digest),
            (_, Some(_)) => {
                self.add_violation("portrait", "must be empty when portrait_sha256 is set");
                None
            }
        }
    }

    fn digest(&mut self, field: &str, bytes: &[u8]) -> Option<Digest> {
        let digest: Option<[u8; DIGEST_BYTES]> = bytes.try_into().ok();
        if digest.is_none() {
            let rule = format!("must be a SHA-256: 32 bytes, but is {}", bytes.len());
            self.add_violation(field, rule);
        }
        digest.map(Digest::from)
    }

    fn assurance(&mut self, assurance: i32) -> Option<Assurance> {
        match v1::Assurance::try_from(assurance) {
            Ok(v1::Assurance::Unspecified | v1::Assurance::Stream) => Some(Assurance::Stream),
            Ok(v1::Assurance::Batch) => Some(Assurance::Batch),
            Err(_) => {
                self.add_violation("assurance", "must be STREAM or BATCH");
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
            self.add_violation("token", rule);
        }
        self.check_id("device_id", &device);
        let portrait = self.image("portrait", portrait)?;
        Some(SessionStart { store: Arc::clone(&caller?.store), device, token, portrait })
    }

    fn frame(&mut self, field: &str, frame: v1::Frame) -> Option<CameraFrame> {
        let v1::Frame { sequence, capture_unix_ms, image, mirrored, rotation_degrees } = frame;
        let file = self.image(&format!("{field}.image"), image);
        let captured = u64::try_from(capture_unix_ms).ok().map(Duration::from_millis);
        if captured.is_none() {
            self.add_violation(format!("{field}.capture_unix_ms"), "must not be negative");
        }
        let rotation = Rotation::from_degrees(rotation_degrees);
        if rotation.is_none() {
            let rule = format!("must be 0, 90, 180 or 270, but is {rotation_degrees}");
            self.add_violation(format!("{field}.rotation_degrees"), rule);
        }
        let orient = if mirrored { Orientation::turned_and_mirrored } else { Orientation::turned };
        let file = file?;
        let meta = FrameMeta {
            sequence,
            captured: captured?,
            bytes: file.expose().len(),
            orientation: orient(rotation?),
        };
        Some(CameraFrame { meta, field: field.to_owned(), file })
    }
}

#[cfg(test)]
mod any_bytes;
#[cfg(any(test, fuzzing))]
pub mod law;

#[cfg(test)]
mod tests {
    use super::*;

    /// The field of a rule, and a change that breaks the rule.
    type Case<R> = (&'static str, fn(&mut R));

    fn limits() -> ImageSettings {
        ImageSettings { bytes_max: 4, ..Default::default() }
    }

    fn context() -> Option<v1::RequestContext> {
        Some(v1::RequestContext {
            request_id: "r-1".into(),
            store_id: "shop-1".into(),
            consent_reference: "consent/1".into(),
            model: String::new(),
        })
    }

    fn image() -> Option<v1::Image> {
        Some(v1::Image { data: vec![1, 2, 3] })
    }

    fn valid_create_session() -> v1::CreateSessionRequest {
        v1::CreateSessionRequest {
            context: context(),
            device_id: "tablet-1".into(),
            transaction_id: "42".into(),
            portrait_sha256: vec![7; 32],
            portrait: None,
            portrait_source: v1::ImageSource::IdChip.into(),
            policy_fmr: Some(1e-3),
            assurance: v1::Assurance::Batch.into(),
        }
    }

    /// The first bytes of a JPEG.
    const JPEG: &[u8] = &[0xFF, 0xD8, 0xFF];

    fn set_portrait_file(request: &mut v1::CreateSessionRequest, data: Vec<u8>) {
        request.portrait_sha256.clear();
        request.portrait = Some(v1::Image { data });
    }

    fn valid_frame() -> v1::Frame {
        v1::Frame {
            sequence: 1,
            capture_unix_ms: 1000,
            image: image(),
            mirrored: true,
            rotation_degrees: 270,
        }
    }

    fn valid_evaluate() -> v1::EvaluateRequest {
        v1::EvaluateRequest {
            context: context(),
            token: "v4.local.x".into(),
            device_id: "tablet-1".into(),
            portrait: image(),
            frames: vec![valid_frame(), valid_frame()],
        }
    }

    fn valid_start() -> v1::Start {
        let v1::EvaluateRequest { context, token, device_id, portrait, .. } = valid_evaluate();
        v1::Start { context, token, device_id, portrait }
    }

    fn start_message(start: v1::Start) -> v1::RunRequest {
        v1::RunRequest { message: Some(v1::run_request::Message::Start(start)) }
    }

    fn frame_message(frame: v1::Frame) -> v1::RunRequest {
        v1::RunRequest { message: Some(v1::run_request::Message::Frame(frame)) }
    }

    fn violated<T: std::fmt::Debug>(parsed: Result<T, Error>) -> Vec<String> {
        match parsed.unwrap_err() {
            Error::Invalid(violations) => violations.into_iter().map(|v| v.field).collect(),
            other => panic!("not a violation: {other}"),
        }
    }

    /// Breaks one rule after the other and checks that its field is reported.
    fn each_names_its_field<R, T: std::fmt::Debug>(
        valid: fn() -> R,
        parse: fn(R) -> Result<T, Error>,
        cases: &[Case<R>],
    ) {
        parse(valid()).unwrap();
        for (index, (field, break_it)) in cases.iter().enumerate() {
            let mut request = valid();
            break_it(&mut request);
            assert_eq!(violated(parse(request)), [*field], "case {index}");
        }
    }

    #[test]
    fn a_valid_create_session_is_parsed() {
        let ParsedCreateSession { caller, spec } =
            parse_create_session(valid_create_session(), &limits()).unwrap();
        assert_eq!((&*caller.store, &*spec.store), ("shop-1", "shop-1"));
        assert_eq!((&*spec.device, &*spec.transaction), ("tablet-1", "42"));
        let SessionPortrait::Digest(digest) = spec.portrait else { panic!("not a digest") };
        assert_eq!((digest, &*spec.consent), (Digest::from([7; 32]), "consent/1"));
        assert_eq!(spec.portrait_source, crate::face::ImageSource::IdChip);
        assert_eq!((spec.policy_fmr, spec.assurance), (Some(1e-3), Assurance::Batch));
    }

    #[test]
    fn a_portrait_may_come_as_its_file() {
        let mut request = valid_create_session();
        set_portrait_file(&mut request, JPEG.to_vec());
        let parsed = parse_create_session(request, &limits()).unwrap();
        let SessionPortrait::File(file) = parsed.spec.portrait else { panic!("not a file") };
        assert_eq!(file.expose(), JPEG);
    }

    #[test]
    fn a_session_without_an_assurance_is_a_stream() {
        let request = v1::CreateSessionRequest { assurance: 0, ..valid_create_session() };
        let parsed = parse_create_session(request, &limits()).unwrap();
        assert_eq!(parsed.spec.assurance, Assurance::Stream);
    }

    #[test]
    fn every_violated_field_is_named_at_once() {
        let limits = limits();
        let request = v1::CreateSessionRequest { assurance: 9, ..Default::default() };
        let fields = violated(parse_create_session(request, &limits));
        let want = "context device_id transaction_id portrait portrait_source assurance";
        assert_eq!(fields.join(" "), want);
        let fields = violated(parse_evaluate(v1::EvaluateRequest::default(), &limits));
        assert_eq!(fields.join(" "), "context token device_id portrait.data frames");
        let fields = violated(parse_start(start_message(v1::Start::default()), &limits));
        assert_eq!(fields.join(" "), "context token device_id portrait.data");
        let nothing = v1::Frame { capture_unix_ms: -1, rotation_degrees: 1, ..Default::default() };
        let fields = violated(parse_frame(frame_message(nothing), &limits));
        let want = "frame.image.data frame.capture_unix_ms frame.rotation_degrees";
        assert_eq!(fields.join(" "), want);
        let fields = violated(parse_get_result(v1::GetResultRequest::default(), &limits));
        assert_eq!(fields.join(" "), "context session_id");
    }

    #[test]
    fn each_rule_of_create_session_names_its_field() {
        let cases: [Case<v1::CreateSessionRequest>; 21] = [
            ("context.store_id", |r| r.context.as_mut().unwrap().store_id.clear()),
            ("context.consent_reference", |r| {
                r.context.as_mut().unwrap().consent_reference = "a b".into();
            }),
            ("device_id", |r| r.device_id.clear()),
            ("device_id", |r| r.device_id = "x".repeat(129)),
            ("device_id", |r| r.device_id = "tablet 1".into()),
            ("transaction_id", |r| r.transaction_id.clear()),
            ("transaction_id", |r| r.transaction_id = "4\n2".into()),
            ("portrait", |r| r.portrait_sha256.clear()),
            ("portrait", |r| r.portrait = image()),
            ("portrait.data", |r| set_portrait_file(r, vec![])),
            ("portrait.data", |r| set_portrait_file(r, [JPEG, &[0, 0]].concat())),
            ("portrait.data", |r| set_portrait_file(r, b"BM..".to_vec())),
            ("portrait_sha256", |r| r.portrait_sha256.truncate(31)),
            ("portrait_sha256", |r| r.portrait_sha256.push(0)),
            ("portrait_source", |r| r.portrait_source = v1::ImageSource::LivePhoto.into()),
            ("portrait_source", |r| r.portrait_source = 9),
            ("policy_fmr", |r| r.policy_fmr = Some(0.0)),
            ("policy_fmr", |r| r.policy_fmr = Some(1.0)),
            ("policy_fmr", |r| r.policy_fmr = Some(f64::NAN)),
            ("assurance", |r| r.assurance = 3),
            ("assurance", |r| r.assurance = -1),
        ];
        each_names_its_field(
            valid_create_session,
            |request| parse_create_session(request, &limits()),
            &cases,
        );
    }

    #[test]
    fn each_rule_of_a_start_names_its_field() {
        let cases: [Case<v1::Start>; 8] = [
            ("context", |r| r.context = None),
            ("context.model", |r| r.context.as_mut().unwrap().model = "\n".into()),
            ("token", |r| r.token.clear()),
            ("token", |r| r.token = "x".repeat(TOKEN_BYTES_MAX + 1)),
            ("device_id", |r| r.device_id.clear()),
            ("portrait.data", |r| r.portrait = None),
            ("portrait.data", |r| r.portrait = Some(v1::Image::default())),
            ("portrait.data", |r| r.portrait.as_mut().unwrap().data = vec![0; 5]),
        ];
        each_names_its_field(
            valid_start,
            |start| parse_start(start_message(start), &limits()),
            &cases,
        );
    }

    #[test]
    fn each_rule_of_a_frame_names_its_field() {
        let cases: [Case<v1::Frame>; 5] = [
            ("frame.image.data", |r| r.image = None),
            ("frame.image.data", |r| r.image.as_mut().unwrap().data = vec![0; 5]),
            ("frame.capture_unix_ms", |r| r.capture_unix_ms = -1),
            ("frame.rotation_degrees", |r| r.rotation_degrees = 45),
            ("frame.rotation_degrees", |r| r.rotation_degrees = 360),
        ];
        each_names_its_field(
            valid_frame,
            |wire| parse_frame(frame_message(wire), &limits()),
            &cases,
        );
    }

    #[test]
    fn rotation_and_mirroring_of_a_frame_are_its_orientation() {
        let orientation = |mirrored| {
            let wire = v1::Frame { mirrored, ..valid_frame() };
            parse_frame(frame_message(wire), &limits()).unwrap().meta.orientation
        };
        let rotation = Rotation::ThreeQuarters;
        assert_eq!(orientation(false), Orientation::turned(rotation));
        assert_eq!(orientation(true), Orientation::turned_and_mirrored(rotation));
    }

    #[test]
    fn each_rule_of_a_recording_names_its_field() {
        let cases: [Case<v1::EvaluateRequest>; 8] = [
            ("context.request_id", |r| r.context.as_mut().unwrap().request_id = "x".repeat(129)),
            ("token", |r| r.token.clear()),
            ("device_id", |r| r.device_id = "\u{e9}".into()),
            ("portrait.data", |r| r.portrait = None),
            ("frames", |r| r.frames.clear()),
            ("frames", |r| r.frames = vec![valid_frame(); FRAMES_MAX + 1]),
            ("frames[0].image.data", |r| r.frames[0].image = None),
            ("frames[1].rotation_degrees", |r| r.frames[1].rotation_degrees = 91),
        ];
        each_names_its_field(valid_evaluate, |request| parse_evaluate(request, &limits()), &cases);
    }

    #[test]
    fn a_session_is_asked_for_by_its_32_digits() {
        let asked = |session_id: &str| {
            let context = context();
            parse_get_result(
                v1::GetResultRequest { context, session_id: session_id.into() },
                &limits(),
            )
        };
        let digits = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(asked(digits).unwrap().session.to_string(), digits);
        for id in ["", "00", &digits[1..], &digits.replace('f', "g"), &format!("{digits}00")] {
            assert_eq!(violated(asked(id)), ["session_id"], "{id}");
        }
    }

    #[test]
    fn a_stream_begins_with_its_start_and_goes_on_with_frames() {
        for first in [v1::RunRequest::default(), frame_message(valid_frame())] {
            assert_eq!(violated(parse_start(first, &limits())), ["start"]);
        }
        for later in [v1::RunRequest::default(), start_message(valid_start())] {
            assert_eq!(violated(parse_frame(later, &limits())), ["frame"]);
        }
    }
}
