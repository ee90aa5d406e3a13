//! One session, from the first frame to its result: neutral, and three times prompt, action and
//! neutral again.
//!
//! Pure: measured frames and the time go in, events come out. A session that has ended takes no
//! more frames; what was already chosen for judging may still be handed in.

mod steps;

use std::time::Duration;

use steps::{StepState, TrackedFrame};

use super::action::{Action, STEPS};
use super::admission::{
    Admission, AdmissionGate, AdmittedFrame, Assurance, FrameMeta, FrameRefusal,
};
use super::baseline::Baseline;
use super::continuity::Continuity;
use super::guidance::{Activity, Guidance, GuidanceSelector};
use super::judged_frames::JudgedFrames;
use super::limits::SessionLimits;
use super::measures::{Detail, FrameJudgement, FrameMeasures};
use super::outcome::{SessionEnd, SessionMeasures, SessionOutcome, check_rules};
use super::reading::Reading;
use super::track::{FaceTracker, Tracking};
use crate::face::decision::{Reason, Subject};
use crate::face::{Embedding, ReasonCode};

/// An action that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Its place, from 0.
    pub step: usize,
    /// What to do.
    pub action: Action,
    /// Until when, by the server's clock.
    pub deadline: Duration,
}

/// What the client is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Do this.
    Prompt(Prompt),
    /// Do this about the picture; `None`: the picture is fine again.
    Guidance(Option<Guidance>),
    /// The action of this step was seen.
    StepDone(usize),
    /// No more frames are taken. Hand in what is still being judged, then ask
    /// [`Session::outcome`].
    Finished,
}

/// What comes of an observed frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameResult {
    /// In this order.
    pub events: Vec<Event>,
    /// Show this frame to the embedder and the liveness networks, and hand in what they say by
    /// [`Session::add_judgement`].
    pub is_chosen: bool,
}

/// A liveness session.
#[derive(Debug)]
pub struct Session {
    actions: [Action; STEPS],
    assurance: Assurance,
    limits: SessionLimits,
    gate: AdmissionGate,
    tracker: FaceTracker,
    guidance: GuidanceSelector,
    continuity: Continuity,
    baseline: Baseline,
    judged_frames: JudgedFrames,
    step_state: StepState,
    /// `None` while it takes frames.
    ending: Option<SessionEnd>,
    /// Capture time of the last frame with the face.
    face_seen_at: Option<Duration>,
    reaction_min: Option<Duration>,
    depth_min: Option<f64>,
}

impl Session {
    /// A session that begins `now`.
    pub fn new(
        actions: [Action; STEPS],
        assurance: Assurance,
        limits: SessionLimits,
        now: Duration,
    ) -> Self {
        Self {
            actions,
            assurance,
            gate: AdmissionGate::new(limits.admission.clone(), assurance, now),
            tracker: FaceTracker::new(limits.track.clone()),
            guidance: GuidanceSelector::new(limits.guidance.clone(), &limits.track),
            continuity: Continuity::new(limits.continuity.clone()),
            baseline: Baseline::default(),
            judged_frames: JudgedFrames::new(limits.judging.clone()),
            step_state: StepState::AwaitNeutral { step: 0, began: now, neutral_since: None },
            ending: None,
            face_seen_at: None,
            reaction_min: None,
            depth_min: None,
            limits,
        }
    }

    /// What is asked for now.
    pub fn prompt(&self) -> Option<Prompt> {
        match self.step_state {
            StepState::AwaitAction { step, sent, .. } if self.is_open() => {
                Some(self.prompt_of(step, sent))
            }
            _ => None,
        }
    }

    /// Whether the session takes frames.
    pub fn is_open(&self) -> bool {
        self.ending.is_none()
    }

    /// The detail that the next frame must be measured in.
    pub fn detail(&self) -> Detail {
        if !self.is_open() {
            return Detail::Face;
        }
        let needs_eyes = match &self.step_state {
            StepState::AwaitNeutral { step, .. } => self.has_blink_from(*step),
            StepState::AwaitAction { step, .. } => self.actions[*step] == Action::Blink,
        };
        if needs_eyes { Detail::Eyes } else { Detail::Mesh }
    }

    /// Takes a frame before a pixel of it is read.
    ///
    /// # Errors
    /// [`FrameRefusal`]; where it has a reason, the session has ended with it.
    pub fn admit(&mut self, meta: &FrameMeta, now: Duration) -> Result<Admission, FrameRefusal> {
        if !self.is_open() {
            return Err(FrameRefusal::SessionOver);
        }
        let admitted = self.gate.admit(meta, now);
        if let Err(refusal) = &admitted
            && let Some(code) = refusal.reason()
        {
            let [value, limit] = refusal.value_and_limit();
            self.stop(Reason { code, subject: Subject::Request, value, limit });
        }
        admitted
    }

    /// Looks at what was measured about a frame that was admitted. Frames are observed in their
    /// order; one that was not admitted, or comes late, says nothing.
    pub fn observe(
        &mut self,
        sequence: u32,
        measures: &FrameMeasures,
        now: Duration,
    ) -> FrameResult {
        let mut result = FrameResult::default();
        let Some(frame) = self.gate.pop_waiting(sequence).filter(|_| self.is_open()) else {
            return result;
        };
        let now = match self.assurance {
            Assurance::Stream => now,
            Assurance::Batch => frame.arrived,
        };
        if let Err(reason) = self.evaluate(frame, measures, now, &mut result) {
            self.stop(reason);
            result.is_chosen = false;
            result.events.push(Event::Finished);
        }
        result
    }

    /// Adds what the embedder and the liveness networks say about a frame that was chosen. Other
    /// frames are not listened to.
    pub fn add_judgement(&mut self, sequence: u32, judgement: FrameJudgement) -> Vec<Event> {
        if !self.judged_frames.is_pending(sequence) {
            return Vec::new();
        }
        let identity = self.continuity.check_identity(&judgement, self.judged_frames.embeddings());
        self.judged_frames.add(sequence, judgement);
        let was_open = self.is_open();
        match identity {
            // A session that was stopped stays stopped for its first reason.
            Err(reason) if !self.is_stopped() => self.stop(reason),
            _ => return Vec::new(),
        }
        if was_open { vec![Event::Finished] } else { Vec::new() }
    }

    /// A frame of this session was sent in an earlier one.
    pub fn report_replay(&mut self) -> Vec<Event> {
        let was_open = self.is_open();
        if self.is_stopped() {
            return Vec::new();
        }
        self.stop(Reason::plain(ReasonCode::ReplayedMedia, Subject::Request));
        if was_open { vec![Event::Finished] } else { Vec::new() }
    }

    /// Lets time pass without a frame; in a batch only frames do.
    pub fn time_out(&mut self, now: Duration) -> Vec<Event> {
        let is_waiting = self.is_open() && self.assurance == Assurance::Stream;
        let Some(reason) = self.timeout_reason(now).filter(|_| is_waiting) else {
            return Vec::new();
        };
        self.stop(reason);
        vec![Event::Finished]
    }

    /// Frames that were left out because they came too fast.
    pub fn thinned(&self) -> usize {
        self.gate.worst().thinned
    }

    /// The face that is matched with the portrait: of the best judged frame.
    pub fn matched_embedding(&self) -> Option<&Embedding> {
        self.judged_frames.matched().map(|(_, embedding)| embedding)
    }

    /// What the session has shown. One that is still open has been left by the client.
    pub fn outcome(&self) -> SessionOutcome {
        let left = || self.ending_by(Reason::plain(ReasonCode::SessionExpired, Subject::Request));
        let measures = SessionMeasures {
            admission: self.gate.worst(),
            track: self.tracker.worst(),
            reaction: self.reaction_min.map(|time| time.as_secs_f64()),
            depth: self.depth_min,
            repeats: self.continuity.repeats(),
            loops: self.continuity.loops(),
            identity: self.continuity.similarity_min(),
        };
        SessionOutcome {
            ending: self.ending.clone().unwrap_or_else(left),
            assurance: self.assurance,
            pad: self.judged_frames.pad_evidence(),
            matched: self.judged_frames.matched().map(|(sequence, _)| sequence),
            thinned: measures.admission.thinned,
            checks: check_rules(&measures, &self.limits, self.assurance),
        }
    }

    fn has_blink_from(&self, step: usize) -> bool {
        self.actions.iter().skip(step).any(|action| *action == Action::Blink)
    }

    fn prompt_of(&self, step: usize, sent: Duration) -> Prompt {
        let deadline = sent.saturating_add(self.limits.steps.step_time_max);
        Prompt { step, action: self.actions[step], deadline }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.ending, Some(SessionEnd::Stopped(_)))
    }

    fn stop(&mut self, reason: Reason) {
        self.ending = Some(self.ending_by(reason));
    }

    /// The end by a rule; what the customer was told and did not heed explains why.
    fn ending_by(&self, reason: Reason) -> SessionEnd {
        let unheeded = self.guidance.announced().and_then(Guidance::reason);
        let unheeded = unheeded.filter(|code| *code != reason.code);
        let note = unheeded.map(|code| Reason::plain(code, Subject::Request));
        SessionEnd::Stopped([Some(reason), note].into_iter().flatten().collect())
    }

    /// Why time is up, if it is.
    fn timeout_reason(&self, now: Duration) -> Option<Reason> {
        let step_time_max = self.limits.steps.step_time_max;
        let began = match self.step_state {
            // Before the first prompt only the session's own time counts.
            StepState::AwaitNeutral { step: 0, .. } => None,
            StepState::AwaitNeutral { began, .. } => Some(began),
            StepState::AwaitAction { sent, .. } => Some(sent),
        };
        let is_late = began.is_some_and(|began| now.saturating_sub(began) > step_time_max);
        let limit = |code, limit: Duration| Reason {
            limit: Some(limit.as_secs_f64()),
            ..Reason::plain(code, Subject::Request)
        };
        if self.gate.is_expired(now) {
            Some(limit(ReasonCode::SessionExpired, self.limits.admission.session_time_max))
        } else {
            is_late.then(|| limit(ReasonCode::StepTimeout, step_time_max))
        }
    }

    fn evaluate(
        &mut self,
        frame: AdmittedFrame,
        measures: &FrameMeasures,
        now: Duration,
        result: &mut FrameResult,
    ) -> Result<(), Reason> {
        if let Some(reason) = self.timeout_reason(frame.arrived) {
            return Err(reason);
        }
        let size_changes_max = self.limits.admission.format_changes_max;
        self.continuity.check_frame(&frame, measures, size_changes_max)?;
        let may_leave = matches!(self.step_state, StepState::AwaitNeutral { step: 0, .. });
        let tracking = self.tracker.locate(&frame, measures, may_leave)?;
        let tracked = match &tracking {
            Tracking::Found(tracked) => Some(tracked),
            Tracking::Missing | Tracking::Restart => None,
        };
        let is_prompted = self.prompt().is_some();
        let activity = if is_prompted { Activity::Moving } else { Activity::Resting };
        let guidance = self.guidance.update(measures, tracked, activity, frame.captured);
        result.events.extend(guidance.map(Event::Guidance));
        match (tracking, &measures.main) {
            (Tracking::Found(tracked), Some(face)) => match Reading::new(&frame, &tracked, face) {
                Some(reading) => self.advance(&TrackedFrame { frame, reading, face, now }, result),
                None => Ok(()),
            },
            (Tracking::Restart, _) => {
                self.restart_step(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
