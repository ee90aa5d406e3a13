//! Admission of frames: checks on the metadata before the picture is decoded.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use thiserror::Error;

use super::limits::AdmissionLimits;
use crate::face::ReasonCode;
use crate::image::Orientation;

/// How the frames of a session reach the server, and so how far the result can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assurance {
    /// Frames arrive one by one as they are captured. The server's clock is used.
    Stream,
    /// All frames arrive at once after the recording. Times are the client's, counted from the
    /// first frame, so drift and reaction times cannot be judged. The `now` that the caller passes
    /// is ignored. The customer must rest for half a second before each action, as between the
    /// prompts of a stream.
    Batch,
}

/// Metadata of a frame, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMeta {
    /// Sequence number; increases from frame to frame.
    pub sequence: u32,
    /// Capture time by the client's clock, from any origin. The rules count from the first frame.
    pub captured: Duration,
    /// Size of the encoded picture in bytes.
    pub bytes: usize,
    /// How the camera is held, and whether it mirrors. The measures are those of the upright,
    /// unmirrored picture.
    pub orientation: Orientation,
}

/// What the caller must do with an admitted frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Measure the frame and pass the measures to the session.
    Measure,
    /// Leave the frame out: the stream is faster than the rate at which frames are measured.
    Thinned,
}

/// Reasons for refusing a frame.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FrameRefusal {
    /// The session has ended.
    #[error("session is over")]
    SessionOver,
    /// The sequence number does not increase.
    #[error("frame {sequence} does not follow frame {last}")]
    Sequence {
        /// Number of the refused frame.
        sequence: u32,
        /// Number of the last admitted frame.
        last: u32,
    },
    /// The frame is too large.
    #[error("frame of {bytes} bytes, at most {bytes_max} are accepted")]
    FrameBytes {
        /// Size of the frame.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// All frames together are too large.
    #[error("session of {bytes} bytes, at most {bytes_max} are accepted")]
    SessionBytes {
        /// Size of all frames, this frame included.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The session has too many frames.
    #[error("session has more than {frames_max} frames")]
    Frames {
        /// The limit.
        frames_max: usize,
    },
    /// The session is too old.
    #[error("session is older than {limit:?}")]
    Expired {
        /// The longest session.
        limit: Duration,
    },
    /// The capture time is not later than that of the frame before.
    #[error("capture time goes back by {by:?}")]
    ClockBack {
        /// Step back of the capture time.
        by: Duration,
    },
    /// The client's clock and the server's clock run apart.
    #[error("capture time drifts by {by:?}, at most {limit:?} is allowed")]
    ClockDrift {
        /// The difference.
        by: Duration,
        /// The limit.
        limit: Duration,
    },
    /// The same file was sent before.
    #[error("frame was sent before")]
    Repeated,
    /// Mirroring or rotation changed within the session.
    #[error("mirroring or rotation of the frames changed")]
    Format,
    /// The stream is too slow.
    #[error("{rate:.1} frames a second, at least {limit:.1} are needed")]
    Rate {
        /// Measured frames per second.
        rate: f64,
        /// The limit.
        limit: f64,
    },
}

impl FrameRefusal {
    /// Returns the reason why the session ends with this frame, or `None` if only the frame is
    /// refused.
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::SessionOver | Self::Sequence { .. } | Self::FrameBytes { .. } => None,
            Self::SessionBytes { .. } | Self::Frames { .. } | Self::Expired { .. } => {
                Some(ReasonCode::SessionExpired)
            }
            Self::ClockBack { .. } | Self::ClockDrift { .. } => Some(ReasonCode::ClockDrift),
            Self::Repeated => Some(ReasonCode::DuplicateFrames),
            Self::Format => Some(ReasonCode::InjectionSuspect),
            Self::Rate { .. } => Some(ReasonCode::FpsTooLow),
        }
    }

    /// Returns the measured value and the limit, as far as the refusal has numbers.
    pub(super) fn value_and_limit(&self) -> [Option<f64>; 2] {
        match *self {
            Self::SessionOver | Self::Sequence { .. } | Self::Repeated | Self::Format => {
                [None, None]
            }
            Self::FrameBytes { bytes, bytes_max } | Self::SessionBytes { bytes, bytes_max } => {
                [Some(bytes as f64), Some(bytes_max as f64)]
            }
            Self::Frames { frames_max } => [None, Some(frames_max as f64)],
            Self::Expired { limit } => [None, Some(limit.as_secs_f64())],
            Self::ClockBack { by } => [Some(by.as_secs_f64()), None],
            Self::ClockDrift { by, limit } => [Some(by.as_secs_f64()), Some(limit.as_secs_f64())],
            Self::Rate { rate, limit } => [Some(rate), Some(limit)],
        }
    }
}

/// An admitted frame that waits for its measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AdmittedFrame {
    pub(super) sequence: u32,
    /// Capture time by the client's clock, from the first frame.
    pub(super) captured: Duration,
    /// Arrival time by the server's clock. In a recording: see [`AdmissionGate::arrival`].
    pub(super) arrived: Duration,
    /// Longest capture interval between consecutive admitted frames, since the last observed one.
    pub(super) gap: Duration,
}

/// Checks the frames of one session against the admission limits.
#[derive(Debug)]
pub(super) struct AdmissionGate {
    limits: AdmissionLimits,
    assurance: Assurance,
    started: Duration,
    /// Capture time of the first frame, by the client's clock.
    first_captured: Option<Duration>,
    first: Option<AdmittedFrame>,
    last: Option<(AdmittedFrame, FrameMeta)>,
    digests: BTreeSet<[u8; 32]>,
    bytes: usize,
    admitted: usize,
    /// Frames to be measured since the first prompt; `None` before it.
    measured: Option<usize>,
    repeated_digests: usize,
    format_changes: usize,
    /// Capture time from which the next frame is measured.
    measure_due: Duration,
    intervals: VecDeque<Duration>,
    /// Admitted frames without measures; at most `frames_admitted_max`.
    waiting: VecDeque<AdmittedFrame>,
    worst: AdmissionWorst,
}

/// The worst values that the gate measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct AdmissionWorst {
    pub(super) rate: Option<f64>,
    pub(super) drift: Duration,
    pub(super) thinned: usize,
}

impl AdmissionGate {
    pub(super) fn new(limits: AdmissionLimits, assurance: Assurance, started: Duration) -> Self {
        Self {
            limits,
            assurance,
            started,
            first_captured: None,
            first: None,
            last: None,
            digests: BTreeSet::new(),
            bytes: 0,
            admitted: 0,
            measured: None,
            repeated_digests: 0,
            format_changes: 0,
            measure_due: Duration::ZERO,
            intervals: VecDeque::new(),
            waiting: VecDeque::new(),
            worst: AdmissionWorst::default(),
        }
    }

    /// Admits a frame or refuses it. A counter that a check raised is not lowered again if a later
    /// check refuses the frame.
    pub(super) fn admit(
        &mut self,
        sent: &FrameMeta,
        digest: [u8; 32],
        now: Duration,
    ) -> Result<Admission, FrameRefusal> {
        let meta = &FrameMeta { captured: self.since_first_frame(sent.captured), ..*sent };
        let arrived = self.arrival(meta, now);
        self.check_budget(meta, arrived)?;
        self.check_order(meta)?;
        self.check_drift(meta, arrived)?;
        self.check_repeats(meta, digest)?;
        self.check_rate(meta)?;
        Ok(self.accept(meta, arrived))
    }

    /// Starts to count measured frames. Called at the first prompt: before it, only the session's
    /// own time limits how long the customer takes to find the right position.
    pub(super) fn start_counting_measured(&mut self) {
        self.measured.get_or_insert(0);
    }

    /// Returns true if the session's time is up.
    pub(super) fn is_expired(&self, now: Duration) -> bool {
        now.saturating_sub(self.started) > self.limits.session_time_max
    }

    /// Removes and returns the waiting frame with this number. Frames before it are dropped.
    pub(super) fn pop_waiting(&mut self, sequence: u32) -> Option<AdmittedFrame> {
        let at = self.waiting.iter().position(|frame| frame.sequence == sequence)?;
        let frames = self.waiting.drain(..=at);
        frames.reduce(|one, next| AdmittedFrame { gap: one.gap.max(next.gap), ..next })
    }

    pub(super) fn worst(&self) -> AdmissionWorst {
        self.worst
    }

    /// Returns the time from the capture of the first frame to `captured`. An earlier time gives 0.
    fn since_first_frame(&mut self, captured: Duration) -> Duration {
        let first = *self.first_captured.get_or_insert(captured);
        captured.saturating_sub(first)
    }

    /// Returns the arrival time of the frame; for a recording, the time at which a stream would
    /// have delivered it.
    fn arrival(&self, meta: &FrameMeta, now: Duration) -> Duration {
        match self.assurance {
            Assurance::Stream => now,
            Assurance::Batch => self.started.saturating_add(meta.captured),
        }
    }

    fn check_budget(&self, meta: &FrameMeta, now: Duration) -> Result<(), FrameRefusal> {
        let AdmissionLimits { frame_bytes_max, session_bytes_max, .. } = self.limits;
        let AdmissionLimits { frames_admitted_max, frames_measured_max, session_time_max, .. } =
            self.limits;
        let bytes = self.bytes.saturating_add(meta.bytes);
        if self.is_expired(now) {
            Err(FrameRefusal::Expired { limit: session_time_max })
        } else if meta.bytes > frame_bytes_max {
            Err(FrameRefusal::FrameBytes { bytes: meta.bytes, bytes_max: frame_bytes_max })
        } else if bytes > session_bytes_max {
            Err(FrameRefusal::SessionBytes { bytes, bytes_max: session_bytes_max })
        } else if self.measured.is_some_and(|measured| measured >= frames_measured_max) {
            Err(FrameRefusal::Frames { frames_max: frames_measured_max })
        } else if self.admitted >= frames_admitted_max {
            Err(FrameRefusal::Frames { frames_max: frames_admitted_max })
        } else {
            Ok(())
        }
    }

    /// Checks that sequence numbers and capture times increase.
    fn check_order(&self, meta: &FrameMeta) -> Result<(), FrameRefusal> {
        let Some((last, _)) = self.last else { return Ok(()) };
        if meta.sequence <= last.sequence {
            return Err(FrameRefusal::Sequence { sequence: meta.sequence, last: last.sequence });
        }
        let by = last.captured.saturating_sub(meta.captured);
        let is_tolerated = self.limits.clock_back_max > Duration::ZERO;
        let has_risen = meta.captured > last.captured;
        if has_risen || (is_tolerated && by <= self.limits.clock_back_max) {
            Ok(())
        } else {
            Err(FrameRefusal::ClockBack { by })
        }
    }

    /// Checks that the client's clock and the server's clock run alike since the first frame.
    fn check_drift(&mut self, meta: &FrameMeta, now: Duration) -> Result<(), FrameRefusal> {
        let Some(first) = self.first else { return Ok(()) };
        let client = meta.captured.saturating_sub(first.captured);
        let by = client.abs_diff(now.saturating_sub(first.arrived));
        self.worst.drift = self.worst.drift.max(by);
        let limit = self.limits.clock_drift_max;
        if by > limit { Err(FrameRefusal::ClockDrift { by, limit }) } else { Ok(()) }
    }

    fn check_repeats(&mut self, meta: &FrameMeta, digest: [u8; 32]) -> Result<(), FrameRefusal> {
        if !self.digests.insert(digest) {
            self.repeated_digests += 1;
        }
        if let Some((_, last)) = self.last
            && last.orientation != meta.orientation
        {
            self.format_changes += 1;
        }
        if self.repeated_digests > self.limits.repeated_files_max {
            Err(FrameRefusal::Repeated)
        } else if self.format_changes > self.limits.format_changes_max {
            Err(FrameRefusal::Format)
        } else {
            Ok(())
        }
    }

    /// Checks the frame rate. It uses the median of the intervals, because one gap has its own rule
    /// and is not a slow stream.
    fn check_rate(&mut self, meta: &FrameMeta) -> Result<(), FrameRefusal> {
        let Some((last, _)) = self.last else { return Ok(()) };
        if self.intervals.len() >= self.limits.rate_intervals.max(1) {
            self.intervals.pop_front();
        }
        self.intervals.push_back(meta.captured.saturating_sub(last.captured));
        if self.intervals.len() < self.limits.rate_intervals {
            return Ok(());
        }
        let mut sorted: Vec<Duration> = self.intervals.iter().copied().collect();
        sorted.sort_unstable();
        let rate = 1.0 / sorted[sorted.len() / 2].as_secs_f64();
        self.worst.rate = Some(self.worst.rate.map_or(rate, |worst| worst.min(rate)));
        let limit = self.limits.rate_min;
        if rate < limit { Err(FrameRefusal::Rate { rate, limit }) } else { Ok(()) }
    }

    fn accept(&mut self, meta: &FrameMeta, now: Duration) -> Admission {
        let (sequence, captured) = (meta.sequence, meta.captured);
        let gap =
            self.last.map_or(Duration::ZERO, |(last, _)| captured.saturating_sub(last.captured));
        let frame = AdmittedFrame { sequence, captured, arrived: now, gap };
        self.first.get_or_insert(frame);
        self.last = Some((frame, *meta));
        self.waiting.push_back(frame);
        self.bytes += meta.bytes;
        self.admitted += 1;
        let interval = Duration::try_from_secs_f64(1.0 / self.limits.rate_measured_max)
            .unwrap_or(Duration::ZERO);
        // A frame may come half an interval early: cameras are not punctual.
        if captured.saturating_add(interval / 2) < self.measure_due {
            self.worst.thinned += 1;
            return Admission::Thinned;
        }
        self.measured = self.measured.map(|measured| measured + 1);
        self.measure_due = self.next_due(captured, interval);
        Admission::Measure
    }

    /// Returns the next due time on a fixed grid. Without the grid, 15 frames per second would be
    /// thinned to 7.5 instead of 10.
    fn next_due(&self, captured: Duration, interval: Duration) -> Duration {
        let on_grid = self.measure_due.saturating_add(interval);
        if on_grid.saturating_add(interval) < captured {
            captured.saturating_add(interval)
        } else {
            on_grid
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate(limits: AdmissionLimits) -> AdmissionGate {
        AdmissionGate::new(limits, Assurance::Stream, Duration::ZERO)
    }

    fn meta(sequence: u32, captured_ms: u64) -> FrameMeta {
        FrameMeta {
            sequence,
            captured: Duration::from_millis(captured_ms),
            bytes: 1000,
            orientation: Orientation::UPRIGHT,
        }
    }

    /// Returns the digest of a file that only this frame has.
    fn digest(sequence: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&sequence.to_be_bytes());
        digest
    }

    fn admit(
        gate: &mut AdmissionGate,
        meta: &FrameMeta,
        now: Duration,
    ) -> Result<Admission, FrameRefusal> {
        gate.admit(meta, digest(meta.sequence), now)
    }

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn a_frame_that_does_not_follow_is_refused_alone() {
        let mut gate = gate(AdmissionLimits::default());
        assert_eq!(admit(&mut gate, &meta(5, 100), ms(0)), Ok(Admission::Measure));
        let refusal = admit(&mut gate, &meta(5, 200), ms(100)).unwrap_err();
        assert_eq!(refusal, FrameRefusal::Sequence { sequence: 5, last: 5 });
        assert_eq!(refusal.reason(), None);
        assert_eq!(admit(&mut gate, &meta(6, 200), ms(100)), Ok(Admission::Measure));
    }

    #[test]
    fn the_first_frame_may_come_at_any_time() {
        let mut gate = gate(AdmissionLimits::default());
        assert_eq!(admit(&mut gate, &meta(77, 3_600_000), ms(20_000)), Ok(Admission::Measure));
        assert_eq!(admit(&mut gate, &meta(78, 3_600_100), ms(21_000)), Ok(Admission::Measure));
        let late = admit(&mut gate, &meta(79, 3_600_200), ms(22_000));
        assert_eq!(late, Err(FrameRefusal::ClockDrift { by: ms(1800), limit: ms(1500) }));
    }

    #[test]
    fn budgets_of_bytes_frames_and_time_are_kept() {
        let limits = || AdmissionLimits { session_bytes_max: 2500, ..AdmissionLimits::default() };
        let mut small = gate(limits());
        assert!(admit(&mut small, &meta(0, 0), ms(0)).is_ok());
        assert!(admit(&mut small, &meta(1, 100), ms(100)).is_ok());
        let full = admit(&mut small, &meta(2, 200), ms(200));
        assert_eq!(full, Err(FrameRefusal::SessionBytes { bytes: 3000, bytes_max: 2500 }));

        let large = FrameMeta { bytes: 256 * 1024 + 1, ..meta(0, 0) };
        let refusal = admit(&mut gate(AdmissionLimits::default()), &large, ms(0)).unwrap_err();
        assert!(matches!(refusal, FrameRefusal::FrameBytes { .. }) && refusal.reason().is_none());

        let mut short =
            gate(AdmissionLimits { frames_measured_max: 1, ..AdmissionLimits::default() });
        assert!(admit(&mut short, &meta(0, 0), ms(0)).is_ok());
        assert!(admit(&mut short, &meta(1, 100), ms(100)).is_ok(), "nothing is asked for yet");
        short.start_counting_measured();
        assert!(admit(&mut short, &meta(2, 200), ms(200)).is_ok());
        assert_eq!(
            admit(&mut short, &meta(3, 300), ms(300)),
            Err(FrameRefusal::Frames { frames_max: 1 })
        );

        let expired = admit(&mut gate(AdmissionLimits::default()), &meta(0, 0), ms(45_001));
        assert_eq!(expired, Err(FrameRefusal::Expired { limit: ms(45_000) }));
    }

    #[test]
    fn one_gap_is_not_a_slow_stream_and_a_slow_stream_is() {
        let mut gap = gate(AdmissionLimits::default());
        for frame in 0..30_u32 {
            let time = u64::from(frame) * 100 + if frame > 10 { 1000 } else { 0 };
            assert!(admit(&mut gap, &meta(frame, time), ms(time)).is_ok());
        }
        let mut slow = gate(AdmissionLimits::default());
        let all = |frame: u32| {
            admit(&mut slow, &meta(frame, u64::from(frame) * 150), ms(u64::from(frame) * 150))
        };
        let refused = (0..30).map(all).find_map(Result::err).unwrap();
        assert_eq!(refused.reason(), Some(ReasonCode::FpsTooLow));
    }

    #[test]
    fn the_gap_of_an_observed_frame_is_the_longest_since_the_one_before() {
        let mut gate = gate(AdmissionLimits::default());
        for (sequence, time) in [(0, 0), (1, 100), (2, 400), (3, 450)] {
            admit(&mut gate, &meta(sequence, time), ms(time)).unwrap();
        }
        assert_eq!(gate.pop_waiting(1).unwrap().gap, ms(100));
        assert_eq!(gate.pop_waiting(3).unwrap().gap, ms(300));
        assert_eq!(gate.pop_waiting(2), None);
    }

    proptest! {
        #[test]
        fn at_any_rate_frames_are_measured_near_the_configured_rate(rate in 10.0..60.0_f64) {
            let mut gate = gate(AdmissionLimits::default());
            let mut measured = Vec::new();
            for frame in 0..(5.0 * rate) as u32 {
                let time = Duration::from_secs_f64(f64::from(frame) / rate);
                let meta = FrameMeta { captured: time, ..meta(frame, 0) };
                if admit(&mut gate, &meta, time).unwrap() == Admission::Measure {
                    measured.push(time);
                }
            }
            prop_assert!((45..=51).contains(&measured.len()), "{}", measured.len());
            // No interval is longer than the state machines tolerate.
            let intervals = measured.windows(2).map(|pair| pair[1] - pair[0]);
            prop_assert!(intervals.max().unwrap() <= ms(200));
        }

        #[test]
        fn any_metadata_is_admitted_within_the_limits_or_refused(
            frames in prop::collection::vec(
                (any::<u32>(), any::<u64>(), any::<usize>(), any::<[u8; 2]>(), any::<u64>()),
                0..60,
            ),
            is_tame in any::<bool>(),
            is_batch in any::<bool>(),
        ) {
            let assurance = if is_batch { Assurance::Batch } else { Assurance::Stream };
            let limits = AdmissionLimits { rate_min: 0.0, ..AdmissionLimits::default() };
            let mut gate = AdmissionGate::new(limits.clone(), assurance, Duration::ZERO);
            let (mut bytes, mut last) = (0, None);
            for (at, (sequence, captured, size, file, now)) in (0_u32..).zip(frames) {
                let mut meta = meta(if is_tame { at } else { sequence }, captured);
                meta.bytes = if is_tame { size % 300_000 } else { size };
                let mut digest = digest(meta.sequence);
                digest[30..].copy_from_slice(&file);
                if is_tame {
                    meta.captured = ms(u64::from(at) * 100 + captured % 90);
                }
                let now = if is_tame { meta.captured } else { ms(now) };
                if gate.admit(&meta, digest, now).is_ok() {
                    bytes += meta.bytes;
                    prop_assert!(last.is_none_or(|last| last < (meta.sequence, meta.captured)));
                    last = Some((meta.sequence, meta.captured));
                }
            }
            prop_assert!(bytes <= limits.session_bytes_max);
            prop_assert!(gate.waiting.len() <= limits.frames_admitted_max);
        }
    }
}
