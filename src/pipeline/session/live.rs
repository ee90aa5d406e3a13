//! A session while it runs: each frame is admitted, measured, observed and, where the rules ask
//! for it, judged; then the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::FrameCounts;
use super::{CameraFrame, Promise, SessionReport, SessionStart, TENANT, pair_type_of, unix_ms};
use crate::face::calibration::PairType;
use crate::face::verdict::{Decision, Subject};
use crate::face::{ReasonCode, cosine};
use crate::image::Orientation;
use crate::liveness::{
    Action, Admission, Assurance, Event, FrameMeta, Limits, LivenessVerdict, Observed, Prompt,
    Refusal, Session, Wants, judge,
};
use crate::pipeline::frame::{Detail, Frame, Measured};
use crate::pipeline::photo::Wanted;
use crate::pipeline::standard::Standard;
use crate::pipeline::{Error, PhotoReport, Photograph, Pipeline, SAME_PICTURE_BITS_MAX};
use crate::scheduler::Ticket;
use crate::trust::{Digest, KeyedDigests, Presented};

/// How long a frame is known again: whoever replays a session tries the same day.
const FRAMES_TTL: Duration = Duration::from_secs(24 * 3600);

/// A server that has to leave out more than one frame in this many cannot judge a session: 10
/// frames a second become fewer than the rules need.
const LATE_ONE_IN: usize = 4;

/// Frames before that is said.
const LATE_FRAMES_MIN: usize = 20;

/// How far the clocks of a capture device and of the server may be apart.
const CLOCKS_APART_MS: u64 = 30_000;

/// A frame, and when it arrived.
#[derive(Debug)]
pub struct Arrived {
    /// As it was sent.
    pub frame: CameraFrame,
    /// When its last byte was here.
    pub at: Instant,
}

/// A session that runs. Dropping it leaves the session used.
pub struct LiveSession {
    pipeline: Arc<Pipeline>,
    ticket: Arc<Ticket>,
    promise: Promise,
    core: Session,
    began: Instant,
    portrait: PhotoReport,
    is_portrait_shown: bool,
    /// When the first frame was taken, by the client's clock.
    first_captured_unix_ms: Option<u64>,
    steps_done: usize,
    frames: FrameCounts,
}

impl Pipeline {
    /// Takes a session and looks at its portrait.
    ///
    /// # Errors
    /// A token that does not stand for this session here and now, a portrait that is no picture,
    /// a store that is unavailable, time, a fault. Once the token was good, the session is used.
    pub async fn start_session(
        self: &Arc<Self>,
        start: SessionStart,
        assurance: Assurance,
        ticket: &Arc<Ticket>,
    ) -> Result<LiveSession, Error> {
        let (portrait, file) = self.hash(start.portrait).await?;
        let (store, device) = (&*start.store, &*start.device);
        let presented = Presented { tenant: TENANT, store, device, portrait };
        let promise = self.claim(&start.token, &presented, assurance).await?;
        let (subject, source) = (Subject::Portrait, promise.source);
        let portrait = Photograph { subject, source, file };
        let portrait = self.examine(portrait, Wanted::EMBEDDING, ticket).await?;
        let limits = self.session_limits()?;
        let core = Session::new(promise.actions, assurance, limits, Duration::ZERO);
        Ok(LiveSession {
            pipeline: Arc::clone(self),
            ticket: Arc::clone(ticket),
            promise,
            core,
            began: Instant::now(),
            portrait,
            is_portrait_shown: false,
            first_captured_unix_ms: None,
            steps_done: 0,
            frames: FrameCounts::default(),
        })
    }

    /// Two frames of one person are as similar as the calibration of live photographs says.
    /// Without one nothing passes anyway, and nobody is called another person.
    fn session_limits(&self) -> Result<Limits, Error> {
        let mut limits = self.sessions.limits.clone();
        let standard = self.standards.standard(PairType::LiveLive, None)?;
        limits.continuity.identity_min.get_or_insert(standard.similarity_min().unwrap_or(-1.0));
        Ok(limits)
    }

    /// Whether another session showed one of these frames.
    async fn was_shown(&self, frames: &[KeyedDigests], promise: &Promise) -> Result<bool, Error> {
        let session = promise.claims.session;
        let shown = self.sessions.replay.seen_frames(frames, session, FRAMES_TTL).await?;
        Ok(shown.contains(&true))
    }
}

impl LiveSession {
    /// Whether more frames are wanted.
    pub fn is_open(&self) -> bool {
        self.core.is_open() && self.portrait.problems().is_empty()
    }

    /// What is asked for, in this order.
    pub fn actions(&self) -> &[Action] {
        &self.promise.actions
    }

    /// How long a prompt holds from now on.
    pub fn time_left(&self, prompt: Prompt) -> Duration {
        prompt.deadline.saturating_sub(self.began.elapsed())
    }

    /// Frames that were left out so far.
    pub fn thinned(&self) -> usize {
        self.core.thinned() + self.frames.late
    }

    /// Takes the next frame: looks at it, unless the server `is_behind` or frames come too fast.
    ///
    /// # Errors
    /// A frame that breaks a rule of the format, a server that cannot keep up, a store that is
    /// unavailable, time, a fault.
    pub async fn take(&mut self, arrived: Arrived, is_behind: bool) -> Result<Vec<Event>, Error> {
        self.frames.received += 1;
        let Arrived { frame, at } = arrived;
        self.check_recorded_since(&frame)?;
        let captured = self.captured(&frame);
        let digest = Digest::of(frame.file.expose());
        match self.core.admit(&meta(&frame, captured, digest), self.time_of(captured, at)) {
            Ok(Admission::Look) if is_behind => self.leave_out(),
            Ok(Admission::Look) => self.look(frame, digest).await,
            Ok(Admission::Thinned) | Err(Refusal::Over) => Ok(Vec::new()),
            Err(refusal) if refusal.reason().is_some() => Ok(vec![Event::Finished]),
            Err(refusal) => Err(Error::invalid(frame.field, refusal.to_string())),
        }
    }

    /// Lets time pass without a frame.
    pub fn time_out(&mut self) -> Vec<Event> {
        match self.promise.assurance {
            Assurance::Stream => self.core.time_out(self.began.elapsed()),
            Assurance::Batch => Vec::new(),
        }
    }

    /// Ends the session. A customer is not asked to try harder when it was the server that looked
    /// away.
    ///
    /// # Errors
    /// A server that could not keep up, a policy that the calibration no longer supports.
    pub fn finish(self) -> Result<SessionReport, Error> {
        let Self { pipeline, promise, core, portrait, .. } = &self;
        let standard = self.standard()?;
        let similarity = portrait
            .embedding
            .as_ref()
            .zip(core.matched())
            .and_then(|(portrait, live)| cosine(portrait, live).ok())
            .map(|cosine| standard.similarity(f64::from(cosine)));
        let (cosine, outcome) = (similarity.map(|similarity| similarity.cosine), core.outcome());
        let verdict = judge(&outcome, cosine, standard.bar, pipeline.liveness_min());
        if self.frames.late > 0 && is_for_time(&verdict) {
            return Err(self.behind());
        }
        Ok(SessionReport {
            verdict: verdict.about_portrait(&portrait.problems(), self.is_portrait_shown),
            claims: promise.claims.clone(),
            actions: promise.actions,
            assurance: promise.assurance,
            steps_done: self.steps_done,
            similarity,
            policy_fmr: standard.policy_fmr,
            similarity_min: standard.similarity_min(),
            matched: outcome.matched,
            frames: self.frames,
            calibration: standard.entry.cloned(),
            decided_unix_ms: unix_ms(),
        })
    }

    fn standard(&self) -> Result<Standard<'_>, Error> {
        let pair_type = pair_type_of(self.promise.source);
        Ok(self.pipeline.standards.standard(pair_type, Some(self.promise.claims.policy_fmr))?)
    }

    async fn look(&mut self, frame: CameraFrame, digest: Digest) -> Result<Vec<Event>, Error> {
        self.frames.looked_at += 1;
        let (sequence, captured) = (frame.sequence, self.captured(&frame));
        let detail = detail(self.core.wants());
        let measured = self.pipeline.measure(oriented(frame), detail, &self.ticket).await?;
        let now = self.time_of(captured, Instant::now());
        let Measured { measures, crops } = measured;
        let distance = measures.fingerprint.distance(self.portrait.fingerprint);
        self.is_portrait_shown |= distance <= SAME_PICTURE_BITS_MAX;
        let Observed { mut events, judge } = self.core.observe(sequence, &measures, now);
        if let Some(crops) = crops.filter(|_| judge) {
            // Of all frames, these decide: whoever shows a session again shows them again.
            let digests = [self.pipeline.sessions.keys.frame_digests(digest)];
            let (judged, was_shown) = tokio::try_join!(
                self.pipeline.judge_frame(crops, &self.ticket),
                self.pipeline.was_shown(&digests, &self.promise),
            )?;
            self.frames.judged += 1;
            events.extend(self.core.judged(sequence, judged));
            if was_shown {
                events.extend(self.core.replayed());
            }
        }
        let done = |event: &&Event| matches!(event, Event::StepDone(_));
        self.steps_done += events.iter().filter(done).count();
        Ok(events)
    }

    /// Since the first frame, by the client's clock.
    fn captured(&mut self, frame: &CameraFrame) -> Duration {
        let captured = frame.captured_unix_ms;
        let first = *self.first_captured_unix_ms.get_or_insert(captured);
        Duration::from_millis(captured.saturating_sub(first))
    }

    /// The server's clock for a stream, the client's for a recording.
    fn time_of(&self, captured: Duration, at: Instant) -> Duration {
        match self.promise.assurance {
            Assurance::Stream => at.saturating_duration_since(self.began),
            Assurance::Batch => captured,
        }
    }

    /// What was recorded before the actions were drawn cannot be an answer to them.
    fn check_recorded_since(&self, frame: &CameraFrame) -> Result<(), Error> {
        let is_early = frame.captured_unix_ms.saturating_add(CLOCKS_APART_MS)
            < self.promise.claims.issued_unix_ms;
        if self.promise.assurance == Assurance::Batch && is_early {
            let field = format!("{}.capture_unix_ms", frame.field);
            return Err(Error::invalid(field, "is before the session was created"));
        }
        Ok(())
    }

    /// A session must not fail because the server is busy.
    fn leave_out(&mut self) -> Result<Vec<Event>, Error> {
        self.frames.late += 1;
        let FrameCounts { looked_at, late, .. } = self.frames;
        let all = looked_at + late;
        if all >= LATE_FRAMES_MIN && late * LATE_ONE_IN > all {
            return Err(self.behind());
        }
        Ok(Vec::new())
    }

    fn behind(&self) -> Error {
        let FrameCounts { looked_at, late, .. } = self.frames;
        Error::Behind { late, all: looked_at + late }
    }
}

fn meta(frame: &CameraFrame, captured: Duration, digest: Digest) -> FrameMeta {
    FrameMeta {
        sequence: frame.sequence,
        captured,
        bytes: frame.file.expose().len(),
        digest: *digest.as_bytes(),
        mirrored: frame.mirrored,
        rotation: frame.rotation,
    }
}

fn oriented(frame: CameraFrame) -> Frame {
    let orientation = if frame.mirrored {
        Orientation::turned_and_mirrored(frame.rotation)
    } else {
        Orientation::turned(frame.rotation)
    };
    Frame { field: format!("{}.image.data", frame.field), file: frame.file, orientation }
}

/// Whether the session is to be tried again for what a frame that was left out may have shown.
fn is_for_time(verdict: &LivenessVerdict) -> bool {
    use ReasonCode::{SessionExpired, StepTimeout, TimeGap, TooFewFrames};
    let of_time = [SessionExpired, StepTimeout, TimeGap, TooFewFrames];
    verdict.decision == Decision::Retry
        && verdict.reasons.first().is_some_and(|reason| of_time.contains(&reason.code))
}

fn detail(wants: Wants) -> Detail {
    match (wants.mesh, wants.eyes) {
        (_, true) => Detail::Eyes,
        (true, false) => Detail::Mesh,
        (false, false) => Detail::Face,
    }
}
