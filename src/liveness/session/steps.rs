//! The steps of a session: neutral face, prompt, action, and neutral face again.

use std::time::Duration;

use super::{Event, FrameResult, Session};
use crate::face::ReasonCode;
use crate::face::decision::{Reason, Subject};
use crate::liveness::action::Action;
use crate::liveness::admission::{AdmittedFrame, Assurance};
use crate::liveness::baseline::Baseline;
use crate::liveness::gesture::{Gesture, GestureProgress, UnpromptedActions};
use crate::liveness::measures::FaceMeasures;
use crate::liveness::outcome::SessionEnd;
use crate::liveness::reading::Reading;

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a session, and no list of them")]
pub(super) enum StepState {
    /// Waits for a neutral face, then prompts the action of `step`, or ends after the last step.
    /// `began` is by the server's clock, `neutral_since` is a capture time.
    AwaitNeutral { step: usize, began: Duration, neutral_since: Option<Duration> },
    /// Waits for the prompted action. `prompted_at` is by the server's clock.
    AwaitAction {
        step: usize,
        prompted_at: Duration,
        gesture: Gesture,
        unprompted: UnpromptedActions,
    },
}

/// A frame on which the tracked face was found.
pub(super) struct TrackedFrame<'a> {
    pub(super) frame: AdmittedFrame,
    pub(super) reading: Reading,
    pub(super) face: &'a FaceMeasures,
    pub(super) now: Duration,
}

impl Session {
    /// Restarts the step: first a neutral face, then the same action.
    pub(super) fn restart_step(&mut self, now: Duration) {
        let (StepState::AwaitNeutral { step, .. } | StepState::AwaitAction { step, .. }) =
            self.step_state;
        if step == 0 {
            // The next face may belong to another person, who has another baseline.
            self.baseline = Baseline::default();
        }
        self.step_state = StepState::AwaitNeutral { step, began: now, neutral_since: None };
    }

    /// Advances the session by one frame.
    pub(super) fn advance(
        &mut self,
        tracked: &TrackedFrame<'_>,
        result: &mut FrameResult,
    ) -> Result<(), Reason> {
        let captured = tracked.frame.captured;
        let gap_max = self.limits.admission.gap_max;
        let since = self.face_seen_at.replace(captured).unwrap_or(captured);
        let was_away = captured.saturating_sub(since) > gap_max;
        let turn = tracked.reading.pose.turn;
        // While step 0 waits for a neutral face, another person may still take the place: no frame
        // is chosen for its sharpness.
        result.is_chosen = !matches!(self.step_state, StepState::AwaitNeutral { step: 0, .. })
            && self.guidance.problem().is_none()
            && self.judged_frames.choose_if_sharper(
                tracked.frame.sequence,
                turn,
                tracked.face.sharpness,
            );
        match &mut self.step_state {
            StepState::AwaitNeutral { neutral_since, .. } => {
                if was_away {
                    *neutral_since = None;
                }
                self.advance_neutral(tracked, result);
                Ok(())
            }
            StepState::AwaitAction { gesture, .. } => {
                let was_moving = gesture.is_moving();
                if was_away {
                    // A movement counts only if all of it was observed.
                    gesture.reset();
                }
                if was_moving {
                    self.check_gap(tracked.frame.gap)?;
                }
                self.advance_action(tracked, result)
            }
        }
    }

    fn advance_neutral(&mut self, tracked: &TrackedFrame<'_>, result: &mut FrameResult) {
        let is_neutral = self.is_neutral(&tracked.reading);
        let StepState::AwaitNeutral { step, neutral_since, .. } = &mut self.step_state else {
            return;
        };
        if !is_neutral {
            *neutral_since = None;
            if *step == 0 {
                // The baseline must come from one uninterrupted neutral phase.
                self.baseline = Baseline::default();
            }
            return;
        }
        let captured = tracked.frame.captured;
        let since = *neutral_since.get_or_insert(captured);
        let step = *step;
        self.baseline.add(&tracked.reading);
        let is_held = captured.saturating_sub(since) >= self.limits.steps.neutral_hold;
        if is_held && self.is_baseline_known(step) && self.choose_for_position(tracked, result) {
            result.events.push(self.prompt_or_finish(step, since, tracked));
        }
    }

    /// Chooses the frame for its position: right before a prompt, right after an action, or at the
    /// end. Each action then lies between two judged frames. Returns false if the frame cannot be
    /// judged.
    fn choose_for_position(
        &mut self,
        tracked: &TrackedFrame<'_>,
        result: &mut FrameResult,
    ) -> bool {
        let (sequence, turn) = (tracked.frame.sequence, tracked.reading.pose.turn);
        let is_judgeable =
            self.judged_frames.choose_for_position(sequence, turn, tracked.face.sharpness);
        result.is_chosen |= is_judgeable;
        is_judgeable
    }

    /// Returns true if the picture has no problem, the mouth is closed and the head is level. A
    /// turned head is a problem of the picture: [`crate::liveness::Guidance::FaceCamera`].
    fn is_neutral(&self, reading: &Reading) -> bool {
        let gestures = &self.limits.gestures;
        let is_closed = reading.mouth_open.is_some_and(|open| open <= gestures.mouth.neutral_max);
        let is_known = self.baseline.len() >= self.limits.steps.neutral_frames_min;
        // The baseline of the last neutral phase. In the first phase there is none yet.
        let is_level = self.baseline.nod_median().is_none_or(|neutral| {
            !is_known || (reading.nod - neutral).abs() <= gestures.blink_nod_max
        });
        self.guidance.problem().is_none() && is_closed && is_level
    }

    fn is_baseline_known(&self, step: usize) -> bool {
        let frames_min = self.limits.steps.neutral_frames_min;
        let has_eyes = !self.has_blink_from(step) || self.baseline.eye_frames() >= frames_min;
        self.baseline.len() >= frames_min && has_eyes
    }

    /// Prompts the action of a step, or finishes the session after the last step.
    fn prompt_or_finish(
        &mut self,
        step: usize,
        neutral_since: Duration,
        tracked: &TrackedFrame<'_>,
    ) -> Event {
        let Some(&action) = self.actions.get(step) else {
            self.ending = Some(SessionEnd::Done);
            return Event::Finished;
        };
        self.gate.start_counting_measured();
        let (prompted_at, hold) = (tracked.now, self.limits.steps.neutral_hold);
        let mut gesture = Gesture::new(action, neutral_since, hold);
        // This frame is the last neutral one before the movement.
        gesture.update(&tracked.reading, &self.baseline, &self.limits.gestures, prompted_at);
        self.step_state = StepState::AwaitAction {
            step,
            prompted_at,
            gesture,
            unprompted: UnpromptedActions::default(),
        };
        Event::Prompt(self.prompt_of(step, prompted_at))
    }

    fn advance_action(
        &mut self,
        tracked: &TrackedFrame<'_>,
        result: &mut FrameResult,
    ) -> Result<(), Reason> {
        let StepState::AwaitAction { step, prompted_at, gesture, unprompted } =
            &mut self.step_state
        else {
            return Ok(());
        };
        let (step, prompted_at) = (*step, *prompted_at);
        let action = self.actions[step];
        let (reading, limits) = (&tracked.reading, &self.limits.gestures);
        let unprompted_count = unprompted.count_peaks(action, reading, &self.baseline, limits);
        let count_max = self.limits.steps.unprompted_actions_max;
        if unprompted_count > count_max {
            let (code, subject) = (ReasonCode::WrongAction, Subject::Request);
            return Err(Reason::limited(code, subject, unprompted_count as f64, count_max as f64));
        }
        let reaction_min = match self.assurance {
            Assurance::Stream => self.limits.steps.reaction_min,
            Assurance::Batch => Duration::ZERO,
        };
        let answer_from = prompted_at.saturating_add(reaction_min);
        let progress = gesture.update(reading, &self.baseline, limits, answer_from);
        let GestureProgress::Done { start, depth } = progress else { return Ok(()) };
        if self.assurance == Assurance::Stream && action != Action::Blink {
            self.check_reaction(start.earliest.saturating_sub(prompted_at), reaction_min)?;
        }
        self.check_depth(depth)?;
        if self.choose_for_position(tracked, result) {
            result.events.push(Event::StepDone(step));
            self.step_state =
                StepState::AwaitNeutral { step: step + 1, began: tracked.now, neutral_since: None };
        } else if let StepState::AwaitAction { gesture, .. } = &mut self.step_state {
            gesture.reset();
        }
        Ok(())
    }

    /// Fails if frames are missing during a movement.
    fn check_gap(&self, gap: Duration) -> Result<(), Reason> {
        let limit = self.limits.admission.gap_max;
        if gap <= limit {
            return Ok(());
        }
        let (value, limit) = (gap.as_secs_f64(), limit.as_secs_f64());
        Err(Reason::limited(ReasonCode::TimeGap, Subject::Request, value, limit))
    }

    /// Fails if the movement started before the customer could react to the prompt.
    fn check_reaction(&mut self, time: Duration, limit: Duration) -> Result<(), Reason> {
        self.shortest_reaction = Some(self.shortest_reaction.map_or(time, |least| least.min(time)));
        if time >= limit {
            return Ok(());
        }
        let (value, limit) = (time.as_secs_f64(), limit.as_secs_f64());
        Err(Reason::limited(ReasonCode::TooEarly, Subject::Request, value, limit))
    }

    /// Fails if a turned head has too little depth.
    fn check_depth(&mut self, depth: Option<f64>) -> Result<(), Reason> {
        let Some(depth) = depth else { return Ok(()) };
        self.least_depth = Some(self.least_depth.map_or(depth, |least| least.min(depth)));
        let limit = self.limits.gestures.depth_min;
        if depth >= limit {
            return Ok(());
        }
        Err(Reason::limited(ReasonCode::PlanarFace, Subject::Request, depth, limit))
    }
}
