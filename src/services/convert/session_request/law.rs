//! The properties of every accepted request, whatever bytes it was decoded from.

use prost::Message;

use super::*;

/// Decodes `bytes` as every request of `LivenessService` and checks those that are accepted.
///
/// # Panics
/// An accepted request breaks a rule.
pub fn read_as_every_request(bytes: &[u8]) {
    let limits = ImageSettings { bytes_max: 32, ..ImageSettings::default() };
    if let Ok(request) = v1::RunRequest::decode(bytes) {
        if let Ok(frame) = parse_frame(request.clone(), &limits) {
            assert!(fits(&frame), "{frame:?}");
        }
        if let Ok(ParsedStart { start, .. }) = parse_start(request, &limits) {
            assert!((1..=TOKEN_BYTES_MAX).contains(&start.token.expose().len()));
        }
    }
    if let Ok(request) = v1::EvaluateRequest::decode(bytes)
        && let Ok(ParsedEvaluate { frames, .. }) = parse_evaluate(request, &limits)
    {
        assert!((1..=FRAMES_MAX).contains(&frames.len()) && frames.iter().all(fits));
    }
    if let Ok(request) = v1::CreateSessionRequest::decode(bytes)
        && let Ok(ParsedCreateSession { spec, .. }) = parse_create_session(request, &limits)
    {
        assert!(spec.policy_fmr.is_none_or(|fmr| fmr > 0.0 && fmr < 1.0));
    }
    if let Ok(request) = v1::GetResultRequest::decode(bytes) {
        let id = request.session_id.clone();
        assert!(parse_get_result(request, &limits).is_err() || id.len() == 32);
    }
}

fn fits(frame: &CameraFrame) -> bool {
    let CameraFrame { meta, file, .. } = frame;
    (1..=32).contains(&meta.bytes)
        && meta.bytes == file.expose().len()
        && i64::try_from(meta.captured.as_millis()).is_ok()
}
