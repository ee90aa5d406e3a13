//! A running session: each frame is admitted, measured and observed, and judged if the rules need
//! it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{FrameCounts, SessionReport};
use super::{OpenedClaims, SessionStart, TENANT, unix_ms};
use crate::face::calibration::PairType;
use crate::face::decision::{Decision, Subject};
use crate::face::{ReasonCode, cosine};
use crate::liveness::{
    Action, Admission, Assurance, Event, FrameRefusal, FrameResult, Prompt, Session, SessionLimits,
    SessionVerdict, decide_session,
};
use crate::pipeline::frame::{CameraFrame, MeasuredFrame};
use crate::pipeline::photo::PhotoTasks;
use crate::pipeline::policy::DecisionPolicy;
use crate::pipeline::report::{PhotoReport, Photograph};
use crate::pipeline::{Error, Pipeline, SAME_PICTURE_BITS_MAX};
use crate::scheduler::Ticket;
use crate::trust::{Digest, KeyedDigests, PresentedBinding};

/// TTL of frame digests. A session is usually replayed on the same day.
const FRAMES_TTL: Duration = Duration::from_secs(24 * 3600);

/// If the server skips more than one in this many frames, the session ends with an error: of 10
/// frames a second, fewer are left than the 7.5 that the rules need.
const SKIPPED_ONE_IN: usize = 4;

/// Number of frames before the share of skipped frames counts.
const BEHIND_FRAMES_MIN: usize = 20;

/// Largest accepted difference between the clocks of a capture device and of the server, for a
/// recording. A stream is held to [`crate::liveness::SessionLimits::admission`] instead.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// A running session. Dropping it leaves the session used.
pub struct RunningSession {
    pipeline: Arc<Pipeline>,
    ticket: Arc<Ticket>,
    opened: OpenedClaims,
    core: Session,
    /// Origin of the times that `core` gets as `now`.
    began: Instant,
    portrait: PhotoReport,
    /// Whether a frame was the portrait's own picture.
    is_portrait_shown: bool,
    steps_done: usize,
    frames: FrameCounts,
}

impl Pipeline {
    /// Claims a session and examines its portrait.
    ///
    /// # Errors
    /// A token that is refused or bound to other values, a session that was used or is for the
    /// other call, an invalid portrait, an unavailable replay store, the deadline, a fault. After a
    /// successful claim the session is used, whatever the error.
    pub async fn start_session(
        self: &Arc<Self>,
        start: SessionStart,
        assurance: Assurance,
        ticket: &Arc<Ticket>,
    ) -> Result<RunningSession, Error> {
        let (portrait, file) = self.hash_portrait(start.portrait).await?;
        let (store, device) = (&*start.store, &*start.device);
        let presented = PresentedBinding { tenant: TENANT, store, device, portrait };
        let opened = self.claim(&start.token, &presented, assurance).await?;
        let (subject, source) = (Subject::Portrait, opened.source);
        let portrait = Photograph { subject, source, file };
        let portrait = self.examine(portrait, PhotoTasks::EMBEDDING, ticket).await?;
        let limits = self.session_limits()?;
        let core = Session::new(opened.actions, assurance, limits, Duration::ZERO);
        Ok(RunningSession {
            pipeline: Arc::clone(self),
            ticket: Arc::clone(ticket),
            opened,
            core,
            began: Instant::now(),
            portrait,
            is_portrait_shown: false,
            steps_done: 0,
            frames: FrameCounts::default(),
        })
    }

    /// Returns the limits of a session. Two judged frames must be as similar as the calibration
    /// entry of `live-live` pairs requires of one person. Without an entry no session passes, so
    /// the limit is -1, which every pair of frames reaches.
    fn session_limits(&self) -> Result<SessionLimits, Error> {
        let mut limits = self.sessions.limits.clone();
        let policy = self.policies.for_pair(PairType::LiveLive, None)?;
        limits.continuity.identity_min.get_or_insert(policy.similarity_min().unwrap_or(-1.0));
        Ok(limits)
    }

    /// Records that the session showed `frames`. Returns whether another session showed one of them
    /// before.
    async fn record_frames(
        &self,
        frames: &[KeyedDigests],
        opened: &OpenedClaims,
    ) -> Result<bool, Error> {
        let session = opened.claims.session;
        let seen = self.sessions.replay.record_frames(frames, session, FRAMES_TTL).await?;
        Ok(seen.contains(&true))
    }
}

impl RunningSession {
    /// Returns whether the session needs more frames.
    pub fn is_open(&self) -> bool {
        self.core.is_open() && self.portrait.problems().is_empty()
    }

    /// Returns the requested actions, in order.
    pub fn actions(&self) -> &[Action] {
        &self.opened.actions
    }

    /// Returns the time until the deadline of a prompt.
    pub fn time_left(&self, prompt: Prompt) -> Duration {
        prompt.deadline.saturating_sub(self.began.elapsed())
    }

    /// Returns the number of frames left out so far: thinned at admission because they came too
    /// fast, or skipped because the server was behind.
    pub fn frames_left_out(&self) -> usize {
        self.core.thinned() + self.frames.skipped
    }

    /// Processes the next frame, whose last byte arrived at `received_at`. Leaves the frame out if
    /// the server `is_behind` or frames come too fast.
    ///
    /// # Errors
    /// A frame that violates a rule of the API, a server that cannot keep up, an unavailable replay
    /// store, the deadline, a fault. A frame that breaks a rule of the session is no error: the
    /// session ends with a reason.
    pub async fn process_frame(
        &mut self,
        frame: CameraFrame,
        received_at: Instant,
        is_behind: bool,
    ) -> Result<Vec<Event>, Error> {
        self.frames.received += 1;
        self.check_recorded_after_creation(&frame)?;
        let digest = Digest::of(frame.file.expose());
        let now = received_at.saturating_duration_since(self.began);
        match self.core.admit(&frame.meta, *digest.as_bytes(), now) {
            Ok(Admission::Measure) if is_behind => self.skip_frame(),
            Ok(Admission::Measure) => self.measure_and_judge(frame, digest).await,
            Ok(Admission::Thinned) | Err(FrameRefusal::SessionOver) => Ok(Vec::new()),
            Err(refusal) if refusal.reason().is_some() => Ok(vec![Event::Finished]),
            Err(refusal) => Err(Error::invalid(frame.field, refusal.to_string())),
        }
    }

    /// Checks the time limits while no frame arrives. A recording has its own clock and is not
    /// checked.
    pub fn check_time_limits(&mut self) -> Vec<Event> {
        match self.opened.assurance {
            Assurance::Stream => self.core.check_time_limits(self.began.elapsed()),
            Assurance::Batch => Vec::new(),
        }
    }

    /// Ends the session. If the server skipped frames, and the verdict is RETRY because time ran
    /// out or frames were missing, the server may have caused that: the method returns an error
    /// instead.
    ///
    /// # Errors
    /// A server that could not keep up, a false-match rate that the calibration no longer supports.
    pub fn finish(self) -> Result<SessionReport, Error> {
        let Self { pipeline, opened, core, portrait, .. } = &self;
        let policy = self.decision_policy()?;
        let similarity = portrait
            .embedding
            .as_ref()
            .zip(core.matched_embedding())
            .and_then(|(portrait, live)| cosine(portrait, live).ok())
            .map(|cosine| policy.similarity(f64::from(cosine)));
        let (cosine, outcome) = (similarity.map(|similarity| similarity.cosine), core.outcome());
        let verdict = decide_session(&outcome, cosine, policy.thresholds, pipeline.pad_score_min());
        if self.frames.skipped > 0 && is_timing_retry(&verdict) {
            return Err(self.behind_error());
        }
        Ok(SessionReport {
            verdict: verdict.with_portrait(&portrait.problems(), self.is_portrait_shown),
            claims: opened.claims.clone(),
            actions: opened.actions,
            assurance: opened.assurance,
            steps_done: self.steps_done,
            similarity,
            policy_fmr: policy.policy_fmr,
            similarity_min: policy.similarity_min(),
            matched: outcome.matched,
            frames: self.frames,
            calibration: policy.calibration.cloned(),
            decided_unix_ms: unix_ms(),
        })
    }

    fn decision_policy(&self) -> Result<DecisionPolicy<'_>, Error> {
        let pair_type = PairType::against_live(self.opened.source);
        Ok(self.pipeline.policies.for_pair(pair_type, Some(self.opened.claims.policy_fmr))?)
    }

    async fn measure_and_judge(
        &mut self,
        frame: CameraFrame,
        digest: Digest,
    ) -> Result<Vec<Event>, Error> {
        self.frames.measured += 1;
        let sequence = frame.meta.sequence;
        let detail = self.core.detail();
        let measured = self.pipeline.measure_frame(frame, detail, &self.ticket).await?;
        let now = self.began.elapsed();
        let MeasuredFrame { measures, crops } = measured;
        let distance = measures.difference_hash.distance(self.portrait.difference_hash);
        self.is_portrait_shown |= distance <= SAME_PICTURE_BITS_MAX;
        let FrameResult { mut events, is_chosen } = self.core.observe(sequence, &measures, now);
        if let Some(crops) = crops.filter(|_| is_chosen) {
            // Only judged frames are checked for replay: they decide the session, so a replayed
            // session shows them again.
            let digests = [self.pipeline.sessions.keys.frame_digests(digest)];
            let (judged, was_replayed) = tokio::try_join!(
                self.pipeline.judge(crops, &self.ticket),
                self.pipeline.record_frames(&digests, &self.opened),
            )?;
            self.frames.judged += 1;
            if let Some(judgement) = judged.frame_judgement() {
                events.extend(self.core.add_judgement(sequence, judgement));
            }
            if was_replayed {
                events.extend(self.core.report_replay());
            }
        }
        let done = |event: &&Event| matches!(event, Event::StepDone(_));
        self.steps_done += events.iter().filter(done).count();
        Ok(events)
    }

    /// Refuses a recording from before the session was created: its actions were not drawn yet.
    fn check_recorded_after_creation(&self, frame: &CameraFrame) -> Result<(), Error> {
        let created = Duration::from_millis(self.opened.claims.issued_unix_ms);
        let is_early = frame.meta.captured.saturating_add(CLOCK_SKEW_MAX) < created;
        if self.opened.assurance == Assurance::Batch && is_early {
            let field = format!("{}.capture_unix_ms", frame.field);
            return Err(Error::invalid(field, "is before the session was created"));
        }
        Ok(())
    }

    /// Counts a skipped frame. Fails if too many were skipped: a session must not fail its customer
    /// because the server is busy.
    fn skip_frame(&mut self) -> Result<Vec<Event>, Error> {
        self.frames.skipped += 1;
        let FrameCounts { measured, skipped, .. } = self.frames;
        let all = measured + skipped;
        if all >= BEHIND_FRAMES_MIN && skipped * SKIPPED_ONE_IN > all {
            return Err(self.behind_error());
        }
        Ok(Vec::new())
    }

    fn behind_error(&self) -> Error {
        let FrameCounts { measured, skipped, .. } = self.frames;
        Error::Behind { skipped, all: measured + skipped }
    }
}

/// Returns whether the verdict is RETRY for a reason that skipped frames may have caused.
fn is_timing_retry(verdict: &SessionVerdict) -> bool {
    use ReasonCode::{SessionExpired, StepTimeout, TimeGap, TooFewFrames};
    let timing_codes = [SessionExpired, StepTimeout, TimeGap, TooFewFrames];
    verdict.decision == Decision::Retry
        && verdict.reasons.first().is_some_and(|reason| timing_codes.contains(&reason.code))
}
