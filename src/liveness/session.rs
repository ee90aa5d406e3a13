//! A liveness session, from the first frame to its outcome: a neutral face, then three times
//! prompt, action and neutral face.
//!
//! Pure: measures and times go in, events come out. A session that has ended admits no frames.
//! Judgements of frames chosen before the end are still accepted.
//!
//! There are two clocks. `now`, `arrived` and `prompted_at` are times by the server's clock,
//! counted from any origin. `captured` is a time by the client's clock, counted from the first
//! frame. Reactions, and the time limits of a step and of the session, use the server's clock. All
//! else uses the client's.

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

/// A prompted action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Index of the step, from 0.
    pub step: usize,
    /// The action to perform.
    pub action: Action,
    /// Deadline by the server's clock, from the same origin as `now`.
    pub deadline: Duration,
}

/// Events that the client must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Perform this action.
    Prompt(Prompt),
    /// Follow this guidance; `None` withdraws the last guidance.
    Guidance(Option<Guidance>),
    /// The action of this step was performed.
    StepDone(usize),
    /// The session has ended. Add the judgements that are still pending, then call
    /// [`Session::outcome`].
    Finished,
}

/// The result of an observed frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameResult {
    /// Events in the order in which they happened.
    pub events: Vec<Event>,
    /// True if the frame must be judged: run the embedder and the PAD networks on it, and pass the
    /// result to [`Session::add_judgement`].
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
    /// `None` while the session is open.
    ending: Option<SessionEnd>,
    /// Capture time of the last frame with the tracked face.
    face_seen_at: Option<Duration>,
    shortest_reaction: Option<Duration>,
    least_depth: Option<f64>,
}

impl Session {
    /// Creates a session that starts at `now`.
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
            shortest_reaction: None,
            least_depth: None,
            limits,
        }
    }

    /// Returns the current prompt.
    pub fn prompt(&self) -> Option<Prompt> {
        match self.step_state {
            StepState::AwaitAction { step, prompted_at, .. } if self.is_open() => {
                Some(self.prompt_of(step, prompted_at))
            }
            _ => None,
        }
    }

    /// Returns true while the session admits frames.
    pub fn is_open(&self) -> bool {
        self.ending.is_none()
    }

    /// Returns the detail in which the next frame must be measured.
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

    /// Admits or refuses a frame by its metadata and the digest of its file. Equal digests mean
    /// equal files.
    ///
    /// # Errors
    /// [`FrameRefusal`]. If it has a reason, the session has ended with that reason.
    pub fn admit(
        &mut self,
        meta: &FrameMeta,
        digest: [u8; 32],
        now: Duration,
    ) -> Result<Admission, FrameRefusal> {
        if !self.is_open() {
            return Err(FrameRefusal::SessionOver);
        }
        let admitted = self.gate.admit(meta, digest, now);
        if let Err(refusal) = &admitted
            && let Some(code) = refusal.reason()
        {
            let [value, limit] = refusal.value_and_limit();
            self.stop(Reason { code, subject: Subject::Request, value, limit });
        }
        admitted
    }

    /// Evaluates the measures of an admitted frame. Frames must be observed in the order of their
    /// numbers. A frame that was not admitted, or whose successor was already observed, is ignored.
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

    /// Adds the judgement of a chosen frame. Other frames are ignored.
    pub fn add_judgement(&mut self, sequence: u32, judgement: FrameJudgement) -> Vec<Event> {
        if !self.judged_frames.is_pending(sequence) {
            return Vec::new();
        }
        let identity = self.continuity.check_identity(&judgement, self.judged_frames.embeddings());
        self.judged_frames.add(sequence, judgement);
        let was_open = self.is_open();
        match identity {
            // A stopped session keeps its first reason.
            Err(reason) if !self.is_stopped() => self.stop(reason),
            _ => return Vec::new(),
        }
        if was_open { vec![Event::Finished] } else { Vec::new() }
    }

    /// Stops the session because one of its frames was sent in an earlier session.
    pub fn report_replay(&mut self) -> Vec<Event> {
        let was_open = self.is_open();
        if self.is_stopped() {
            return Vec::new();
        }
        self.stop(Reason::plain(ReasonCode::ReplayedMedia, Subject::Request));
        if was_open { vec![Event::Finished] } else { Vec::new() }
    }

    /// Stops the session if a time limit of the step or of the session has passed at `now`. The
    /// time of a recording passes only with its frames, so a recording is not stopped here.
    pub fn check_time_limits(&mut self, now: Duration) -> Vec<Event> {
        let is_waiting = self.is_open() && self.assurance == Assurance::Stream;
        let Some(reason) = self.timeout_reason(now).filter(|_| is_waiting) else {
            return Vec::new();
        };
        self.stop(reason);
        vec![Event::Finished]
    }

    /// Returns the number of frames left out because the stream was too fast.
    pub fn thinned(&self) -> usize {
        self.gate.worst().thinned
    }

    /// Returns the embedding of the best judged frame, which is matched with the portrait.
    pub fn matched_embedding(&self) -> Option<&Embedding> {
        self.judged_frames.matched().map(|(_, embedding)| embedding)
    }

    /// Returns the outcome. A session that is still open counts as abandoned by the client.
    pub fn outcome(&self) -> SessionOutcome {
        let abandoned =
            || self.ending_by(Reason::plain(ReasonCode::SessionExpired, Subject::Request));
        let measures = SessionMeasures {
            admission: self.gate.worst(),
            track: self.tracker.worst(),
            reaction: self.shortest_reaction.map(|time| time.as_secs_f64()),
            depth: self.least_depth,
            repeats: self.continuity.repeats(),
            loops: self.continuity.loops(),
            identity: self.continuity.least_similarity(),
        };
        SessionOutcome {
            ending: self.ending.clone().unwrap_or_else(abandoned),
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

    fn prompt_of(&self, step: usize, prompted_at: Duration) -> Prompt {
        let deadline = prompted_at.saturating_add(self.limits.steps.step_time_max);
        Prompt { step, action: self.actions[step], deadline }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.ending, Some(SessionEnd::Stopped(_)))
    }

    fn stop(&mut self, reason: Reason) {
        self.ending = Some(self.ending_by(reason));
    }

    /// Returns the end for `reason`. If the customer did not follow the last guidance, adds the
    /// guidance as a second reason.
    fn ending_by(&self, reason: Reason) -> SessionEnd {
        let unheeded = self.guidance.announced().and_then(Guidance::reason);
        let unheeded = unheeded.filter(|code| *code != reason.code);
        let note = unheeded.map(|code| Reason::plain(code, Subject::Request));
        SessionEnd::Stopped([Some(reason), note].into_iter().flatten().collect())
    }

    /// Returns the reason if the session or the step is out of time.
    fn timeout_reason(&self, now: Duration) -> Option<Reason> {
        let step_time_max = self.limits.steps.step_time_max;
        let began = match self.step_state {
            // While step 0 waits for a neutral face, only the session's own time is limited.
            StepState::AwaitNeutral { step: 0, .. } => None,
            StepState::AwaitNeutral { began, .. } => Some(began),
            StepState::AwaitAction { prompted_at, .. } => Some(prompted_at),
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
