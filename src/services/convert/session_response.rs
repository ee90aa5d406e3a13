//! Converts sessions, their events and their results to wire messages.

use super::response::{
    ResponseInfo, calibration, decision, limit_kind, models, reasons, saturating_u32,
};
use crate::liveness::{
    Action, Assurance, Event, Guidance, Prompt, RuleCheck, SessionVerdict, coarsen,
};
use crate::pipeline::{CreatedSession, RunningSession, SessionReport, Sessions};
use crate::proto::v1;
use crate::proto::v1::run_response::Event as RunEvent;

/// Instruction before the first action.
const FIRST_PROMPT: &str = "look straight into the camera";

pub fn create_session_response(
    request_id: String,
    created: &CreatedSession,
    sessions: &Sessions,
) -> v1::CreateSessionResponse {
    let CreatedSession { token, claims, actions } = created;
    let admission = &sessions.limits.admission;
    let actions = if claims.is_batch { actions.map(action_code).into() } else { Vec::new() };
    v1::CreateSessionResponse {
        request_id,
        session_id: claims.session.to_string(),
        token: token.expose().clone(),
        expires_unix_ms: saturating_i64(claims.expires_unix_ms),
        prompt: Some(v1::Prompt {
            step: 0,
            action: v1::Action::Unspecified.into(),
            message: FIRST_PROMPT.to_owned(),
            time_ms: millis(admission.session_time_max),
        }),
        actions,
        attempt: claims.attempt,
        attempts_max: sessions.settings.attempts_max,
        rules: Some(v1::FrameRules {
            frames_max: saturating_u32(admission.frames_admitted_max),
            frame_bytes_max: saturating_u32(admission.frame_bytes_max),
            session_bytes_max: saturating_u32(admission.session_bytes_max),
            frames_per_second_min: admission.rate_min,
            session_ms_max: millis(admission.session_time_max),
        }),
    }
}

/// Converts an event of a session. Returns `None` for the end, which the result reports.
pub fn run_event(event: Event, session: &RunningSession) -> Option<RunEvent> {
    match event {
        Event::Prompt(prompt) => Some(RunEvent::Prompt(wire_prompt(prompt, session))),
        Event::Guidance(guidance) => Some(RunEvent::Guidance(wire_guidance(guidance))),
        Event::StepDone(step) => {
            let action = session.actions().get(step).copied().map_or(0, action_code);
            Some(RunEvent::StepDone(v1::StepDone { step: saturating_u32(step), action }))
        }
        Event::Finished => None,
    }
}

/// Builds the event that reports how many frames were left out.
pub fn thinned_event(frames: usize) -> RunEvent {
    RunEvent::Thinned(v1::Thinned { frames: saturating_u32(frames) })
}

/// Builds the result of a session. `tells_all` includes the values that would help an attacker.
pub fn liveness_result(
    info: ResponseInfo,
    report: &SessionReport,
    tells_all: bool,
) -> v1::LivenessResult {
    let verdict = if tells_all { report.verdict.clone() } else { coarsen(&report.verdict) };
    let SessionVerdict { decision: decided, reasons: why, checks, .. } = verdict;
    let disclosed = report.similarity.filter(|_| tells_all);
    v1::LivenessResult {
        request_id: info.request_id,
        session_id: report.claims.session.to_string(),
        decision: decision(decided).into(),
        reasons: reasons(&why),
        assurance: assurance_code(report.assurance),
        actions: report.actions.map(action_code).into(),
        steps_done: saturating_u32(report.steps_done),
        similarity: disclosed.map(|similarity| similarity.cosine),
        score100: disclosed
            .and_then(|similarity| similarity.calibrated)
            .map(|value| value.score100),
        policy_fmr: report.policy_fmr,
        similarity_min: report.similarity_min,
        matched_frame: report.matched,
        checks: checks.iter().map(check).collect(),
        transaction_digest: String::from(report.claims.transaction),
        portrait_sha256: String::from(report.claims.portrait),
        decided_unix_ms: saturating_i64(report.decided_unix_ms),
        frames_received: saturating_u32(report.frames.received),
        frames_judged: saturating_u32(report.frames.judged),
        models: models(info.models),
        calibration: report.calibration.as_ref().map(calibration),
        store_id: report.claims.store.clone(),
    }
}

fn wire_prompt(prompt: Prompt, session: &RunningSession) -> v1::Prompt {
    v1::Prompt {
        step: saturating_u32(prompt.step),
        action: action_code(prompt.action),
        message: prompt.action.instruction().to_owned(),
        time_ms: millis(session.time_left(prompt)),
    }
}

fn wire_guidance(guidance: Option<Guidance>) -> v1::Guidance {
    let code = match guidance {
        None => v1::GuidanceCode::Fine,
        Some(Guidance::ShowFace) => v1::GuidanceCode::ShowFace,
        Some(Guidance::OnePersonOnly) => v1::GuidanceCode::OnePersonOnly,
        Some(Guidance::Closer) => v1::GuidanceCode::Closer,
        Some(Guidance::Further) => v1::GuidanceCode::Further,
        Some(Guidance::Center) => v1::GuidanceCode::Center,
        Some(Guidance::TooDark) => v1::GuidanceCode::TooDark,
        Some(Guidance::TooBright) => v1::GuidanceCode::TooBright,
        Some(Guidance::FaceCamera) => v1::GuidanceCode::FaceTheCamera,
        Some(Guidance::HoldStill) => v1::GuidanceCode::HoldStill,
        Some(Guidance::MoveSlower) => v1::GuidanceCode::MoveSlower,
    };
    let message = guidance.map_or("thank you", Guidance::message);
    v1::Guidance { code: code.into(), message: message.to_owned() }
}

fn action_code(action: Action) -> i32 {
    match action {
        Action::TurnLeft => v1::Action::TurnLeft,
        Action::TurnRight => v1::Action::TurnRight,
        Action::Blink => v1::Action::Blink,
        Action::Nod => v1::Action::Nod,
        Action::OpenMouth => v1::Action::OpenMouth,
    }
    .into()
}

fn assurance_code(assurance: Assurance) -> i32 {
    match assurance {
        Assurance::Stream => v1::Assurance::Stream,
        Assurance::Batch => v1::Assurance::Batch,
    }
    .into()
}

fn check(check: &RuleCheck) -> v1::RuleCheck {
    v1::RuleCheck {
        name: check.rule.name().to_owned(),
        value: check.value,
        limit: check.limit,
        kind: limit_kind(check.kind).into(),
        passed: check.passed,
    }
}

fn millis(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
