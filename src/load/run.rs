//! One run: starts the threads, collects what they record every second, and judges the generator.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;

use super::LoadError;
use super::calls::CallKind;
use super::hdr::encode;
use super::plan::{Plan, Traffic};
use super::recorder::{Record, quantile_ms};
use super::scrape::{Metrics, ServerView, read_metrics};
use super::threads::Threads;

/// Interval of the windows, and of progress.
const WINDOW: Duration = Duration::from_secs(1);

/// How often the collector looks whether the last call has ended.
const POLL: Duration = Duration::from_millis(20);

/// Largest p99 of the lag, in milliseconds.
const LAG_MS_MAX: f64 = 1.0;

/// Largest p99 of the lag, as a share of the median latency of the same kind of call.
const LAG_SHARE_MAX: f64 = 0.05;

/// What happened in one second.
#[derive(Debug, Clone)]
pub struct Window {
    /// Time from the start of recording to the end of the window.
    pub ended: Duration,
    /// Calls that were sent in the window, or due and not sent.
    pub offered: u64,
    /// Calls that were answered in it.
    pub answered: u64,
    /// Calls that failed in it.
    pub failed: u64,
    /// Calls in flight at its end.
    pub in_flight: u64,
    /// Median latency of the answered calls, in milliseconds; `None` without one.
    pub p50_ms: Option<f64>,
    /// p99 of their latency, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Their largest latency, in milliseconds.
    pub max_ms: Option<f64>,
    /// Their latencies by kind, encoded: a run may last for days.
    pub(super) latencies: Vec<(CallKind, Vec<u8>)>,
}

impl Window {
    pub(super) fn new(ended: Duration, record: &Record, in_flight: u64) -> Self {
        let all = record.all();
        Self {
            ended,
            offered: record.offered,
            answered: record.answered(),
            failed: record.failed(),
            in_flight,
            p50_ms: all.latency_ms(0.5),
            p99_ms: all.latency_ms(0.99),
            max_ms: all.latency_ms(1.0),
            latencies: record.kinds().map(|(kind, of)| (kind, encode(&of.latency))).collect(),
        }
    }
}

/// Processor time of the generator's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCpu {
    /// Of the thread that hands out calls.
    pub pacer: Duration,
    /// Of the threads that send them.
    pub workers: Duration,
    /// Whether the threads had a real-time priority.
    pub is_real_time: bool,
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// When recording started.
    pub started: SystemTime,
    /// Time from the start of recording to the end of the last call.
    pub elapsed: Duration,
    /// The windows of a second, in order; the last may be shorter.
    pub windows: Vec<Window>,
    /// All recorded calls.
    pub total: Record,
    /// How long calls were sent: as planned, unless the run was stopped or had all its calls.
    pub sent_for: Duration,
    /// The calls that ended while calls were sent, to half a second.
    pub in_time: Record,
    /// Most calls in flight at one moment.
    pub in_flight_peak: u64,
    /// Processor time of the generator.
    pub cpu: ClientCpu,
    /// Calls that were sent, warming up included.
    pub calls_sent: u64,
    /// What the server did, by its metrics; `None` if they were not asked for, or could not be
    /// read after the run.
    pub server: Option<ServerView>,
    /// Why the run proves nothing: the generator was late. Empty for a valid run.
    pub problems: Vec<String>,
}

#[cfg(test)]
impl RunResult {
    /// Returns a result of these calls, for tests.
    pub(super) fn of(total: Record) -> Self {
        Self {
            started: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_secs(1),
            windows: Vec::new(),
            in_time: total.clone(),
            total,
            sent_for: Duration::from_secs(1),
            in_flight_peak: 0,
            cpu: ClientCpu { pacer: Duration::ZERO, workers: Duration::ZERO, is_real_time: false },
            calls_sent: 0,
            server: None,
            problems: Vec::new(),
        }
    }
}

/// A look at a run while it lasts.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Time since the start of recording; zero while warming up.
    pub elapsed: Duration,
    /// The last second; `None` while warming up.
    pub window: Option<&'a Window>,
    /// All calls so far.
    pub total: &'a Record,
    /// Calls in flight.
    pub in_flight: u64,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// No more calls are sent. Those in flight are awaited.
    Stop,
}

/// Makes a run. Calls `observe` every second.
///
/// # Errors
/// A value of the plan is out of range; a connection, a thread or the server's metrics fail before
/// the first call. Calls that fail are part of the result.
pub fn run(
    plan: &Plan,
    observe: &mut dyn FnMut(&Progress<'_>) -> Flow,
) -> Result<RunResult, LoadError> {
    plan.check()?;
    let runtime = runtime()?;
    // A server whose metrics cannot be read is reported before the first call.
    let before = runtime.block_on(read_plan_metrics(plan))?;
    let mut threads = Threads::start(plan)?;
    let start = threads.start_traffic(plan)?;
    let recording = start + plan.warm_up();
    let mut collector = Collector::new(plan, recording, observe);
    collector.warm_up(&threads);
    let started = SystemTime::now();
    let before = match plan.warm_up().is_zero() {
        true => before,
        false => runtime.block_on(read_plan_metrics(plan)).ok().flatten(),
    };
    collector.collect(&mut threads);
    let sent_for = collector.sent_for();
    let (windows, total, in_time) = (collector.windows, collector.total, collector.in_time);
    let in_flight_peak = threads.in_flight.calls_peak();
    let calls_sent = threads.calls_sent.load(Ordering::Relaxed);
    let cpu = threads.join();
    let after = runtime.block_on(read_plan_metrics(plan)).ok().flatten();
    Ok(RunResult {
        started,
        elapsed: windows.last().map_or(Duration::ZERO, |window| window.ended),
        sent_for,
        in_time,
        in_flight_peak,
        cpu,
        calls_sent,
        server: before.zip(after).map(|(before, after)| ServerView::between(&before, &after)),
        problems: match plan.traffic {
            Traffic::Open { .. } => problems(&total),
            Traffic::Closed { .. } => Vec::new(),
        },
        windows,
        total,
    })
}

pub(super) fn runtime() -> Result<Runtime, LoadError> {
    let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
    builder.map_err(LoadError::Thread)
}

async fn read_plan_metrics(plan: &Plan) -> Result<Option<Metrics>, LoadError> {
    match &plan.metrics {
        Some(address) => read_metrics(address).await.map(Some),
        None => Ok(None),
    }
}

/// Returns why the generator was too late to judge a server by the run. The null call has no work
/// that its lag could be compared with.
fn problems(total: &Record) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |what: &str, lag: Option<f64>, median: Option<f64>| {
        let Some(lag) = lag else { return };
        let share = median.map(|median| median * LAG_SHARE_MAX);
        if lag > LAG_MS_MAX {
            problems.push(format!("{what} lag p99 {lag:.2} ms is above {LAG_MS_MAX} ms"));
        } else if let Some(limit) = share.filter(|limit| lag > *limit) {
            problems.push(format!(
                "{what} lag p99 {lag:.2} ms is above 5 % of the median latency ({limit:.2} ms)"
            ));
        }
    };
    for (kind, record) in total.kinds() {
        let median = record.latency_ms(0.5).filter(|_| kind != CallKind::Health);
        check(kind.name(), quantile_ms(&record.lag, 0.99), median);
    }
    check("frame", quantile_ms(&total.frames.lag, 0.99), None);
    if total.frames.films_ended > 0 {
        problems.push(format!("{} sessions ran out of frames", total.frames.films_ended));
    }
    problems
}

/// Takes the records of the workers every second.
struct Collector<'a> {
    recording: Instant,
    /// How long calls are sent as planned.
    duration: Duration,
    /// When the run was stopped, since the start of recording.
    stopped: Option<Duration>,
    /// The last answer so far in a closed loop with a limit of calls ends the sending.
    ends_with_calls: bool,
    windows: Vec<Window>,
    total: Record,
    in_time: Record,
    observe: &'a mut dyn FnMut(&Progress<'_>) -> Flow,
}

impl<'a> Collector<'a> {
    fn new(
        plan: &Plan,
        recording: Instant,
        observe: &'a mut dyn FnMut(&Progress<'_>) -> Flow,
    ) -> Self {
        Self {
            recording,
            duration: plan.traffic.duration(),
            stopped: None,
            ends_with_calls: matches!(plan.traffic, Traffic::Closed { calls_max: Some(_), .. }),
            windows: Vec::new(),
            total: Record::default(),
            in_time: Record::default(),
            observe,
        }
    }

    /// Returns how long calls were sent.
    fn sent_for(&self) -> Duration {
        let last = self.windows.last().filter(|_| self.ends_with_calls).map(|last| last.ended);
        self.stopped.or(last).map_or(self.duration, |ended| ended.min(self.duration))
    }

    /// Waits for the end of warming up.
    fn warm_up(&mut self, threads: &Threads) {
        while Instant::now() + WINDOW < self.recording {
            std::thread::sleep(WINDOW);
            self.show(threads, Duration::ZERO, None);
        }
        std::thread::sleep(self.recording.saturating_duration_since(Instant::now()));
    }

    /// Collects until all calls have ended.
    fn collect(&mut self, threads: &mut Threads) {
        let mut window_ends = self.recording + WINDOW;
        loop {
            let have_ended = threads.have_ended();
            let now = Instant::now();
            if have_ended || now >= window_ends {
                let ended = now.saturating_duration_since(self.recording);
                self.close_window(threads, ended);
                // A process that was stopped itself has missed windows.
                while window_ends <= now {
                    window_ends += WINDOW;
                }
            }
            if have_ended {
                return;
            }
            let until = window_ends.min(now + POLL);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    fn close_window(&mut self, threads: &mut Threads, ended: Duration) {
        let record = threads.take_record();
        self.total.merge(&record);
        if ended <= self.stopped.unwrap_or(self.duration) + WINDOW / 2 {
            self.in_time.merge(&record);
        }
        self.windows.push(Window::new(ended, &record, threads.in_flight.calls()));
        self.show(threads, ended, self.windows.len().checked_sub(1));
    }

    /// Shows the state of the run to its observer, who may stop it.
    fn show(&mut self, threads: &Threads, elapsed: Duration, window: Option<usize>) {
        let progress = Progress {
            elapsed,
            window: window.map(|at| &self.windows[at]),
            total: &self.total,
            in_flight: threads.in_flight.calls(),
        };
        let flow = (self.observe)(&progress);
        if flow == Flow::Stop && self.stopped.is_none() && elapsed < self.duration {
            self.stopped = Some(elapsed);
            threads.is_stopped.store(true, Ordering::Relaxed);
        }
    }
}
