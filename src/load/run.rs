//! One run: starts the threads, collects what they record every second, and judges the generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::LoadError;
use super::arrivals::Arrivals;
use super::calls::CallKind;
use super::grpc::Target;
use super::pacer::{FrameClock, Pacer, Timers};
use super::plan::{Plan, Traffic};
use super::recorder::{Record, quantile_ms};
use super::requests::OrderBook;
use super::scrape::{Metrics, ServerView, read_metrics};
use super::session::Customer;
use super::thread::{Urgency, cpu_time, raise_priority};
use super::worker::{CallOptions, Connections, Due, InFlight, connect};

/// Time from the last preparation to the first call.
const START_AFTER: Duration = Duration::from_millis(20);

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
    /// Calls that were sent, or ended, in the window.
    pub record: Record,
    /// Calls in flight at its end.
    pub in_flight: u64,
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
    /// Answers until the end of the traffic; later ones were late by all means.
    pub answered_in_time: u64,
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
    let start = Instant::now() + START_AFTER;
    threads.start_traffic(plan, start)?;
    let recording = start + plan.warm_up();
    let mut collector = Collector::new(plan, recording, observe);
    let before = collector.warm_up(&threads, before, || runtime.block_on(read_plan_metrics(plan)));
    let started = SystemTime::now();
    collector.collect(&mut threads);
    let (windows, total) = (collector.windows, collector.total);
    let in_flight_peak = threads.in_flight.calls_peak();
    let calls_sent = threads.calls_sent.load(Ordering::Relaxed);
    let was_cut = threads.is_stopped.load(Ordering::Relaxed)
        || plan.calls_max.is_some_and(|calls_max| calls_sent >= calls_max);
    let sent_for = sent_for(plan, &windows, was_cut);
    let cpu = threads.join();
    let after = runtime.block_on(read_plan_metrics(plan)).ok().flatten();
    let ends = sent_for + WINDOW / 2;
    let in_time = windows.iter().filter(|window| window.ended <= ends);
    Ok(RunResult {
        started,
        elapsed: windows.last().map_or(Duration::ZERO, |window| window.ended),
        sent_for,
        answered_in_time: in_time.map(|window| window.record.answered()).sum(),
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

/// Returns how long calls were sent. If the run `was_cut`, that is until the end of the last window
/// with a call.
fn sent_for(plan: &Plan, windows: &[Window], was_cut: bool) -> Duration {
    let duration = plan.traffic.duration();
    let last = windows.iter().rfind(|window| window.record.offered > 0);
    last.filter(|_| was_cut).map_or(duration, |last| last.ended.min(duration))
}

fn runtime() -> Result<Runtime, LoadError> {
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
    problems
}

/// The threads of a run.
#[derive(Debug)]
struct Threads {
    workers: Vec<Worker>,
    pacer: Option<JoinHandle<Duration>>,
    timers: Option<Timers>,
    in_flight: Arc<InFlight>,
    is_stopped: Arc<AtomicBool>,
    /// Whether the threads have a real-time priority.
    is_urgent: Arc<AtomicBool>,
    calls_sent: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<Duration>,
    /// Takes the worker's traffic; `None` once it was given.
    traffic: Option<tokio::sync::oneshot::Sender<WorkerTraffic>>,
    recorded: Arc<Mutex<Record>>,
    /// Takes the place of `recorded` while that one is read. A worker that had to allocate its
    /// histograms every second would be late.
    spare: Record,
}

/// What a worker sends.
#[derive(Debug)]
enum WorkerTraffic {
    /// The calls of a queue.
    Queue(mpsc::UnboundedReceiver<Due>),
    /// Calls of some callers that wait for their answers.
    Callers(Callers),
}

/// The callers of one worker in a closed loop.
#[derive(Debug)]
struct Callers {
    count: usize,
    orders: OrderBook,
    start: Instant,
    recording: Instant,
    ends: Instant,
    /// Calls that may still be sent by this worker.
    calls_max: u64,
    is_stopped: Arc<AtomicBool>,
    calls_sent: Arc<AtomicU64>,
}

impl Threads {
    /// Starts the workers and waits until they are connected.
    fn start(plan: &Plan) -> Result<Self, LoadError> {
        let (clock, timers) = FrameClock::new();
        let customer = plan.film.clone().filter(|_| plan.has_sessions()).map(|film| Customer {
            film,
            clock,
            stores: plan.stores.clone(),
        });
        let target = Target::new(
            &plan.server,
            plan.connect_timeout,
            plan.source_addresses,
            &plan.metadata,
            plan.timeout,
        )?;
        let options = Arc::new(CallOptions {
            target: Arc::new(target),
            metadata: plan.metadata.clone(),
            timeout: plan.timeout,
            customer,
        });
        let in_flight = InFlight::new(plan.in_flight_bytes_max);
        let mut workers = Vec::new();
        let mut first = 0;
        for index in 0..plan.threads {
            // The first workers take the connections that are left over.
            let count = (plan.connections - first).div_ceil(plan.threads - index);
            workers.push(Worker::start(&options, &in_flight, first, count)?);
            first += count;
        }
        Ok(Self {
            workers,
            pacer: None,
            timers: Some(timers),
            in_flight,
            is_stopped: Arc::default(),
            is_urgent: Arc::default(),
            calls_sent: Arc::default(),
        })
    }

    /// Gives every worker its traffic and starts the pacer.
    fn start_traffic(&mut self, plan: &Plan, start: Instant) -> Result<(), LoadError> {
        let orders = |number: u64| {
            let random = SmallRng::seed_from_u64(plan.seed.wrapping_add(number));
            OrderBook::new(plan.mix.clone(), &plan.stores, &plan.pictures, random)
        };
        let recording = start + plan.warm_up();
        let timers = self.timers.take().expect("the traffic starts once");
        let Some((schedule, spacing)) = plan.schedule_with_warm_up() else {
            for (index, number) in (0..self.workers.len()).zip(1..) {
                let callers = self.callers(plan, index, orders(number), start);
                self.workers[index].give(WorkerTraffic::Callers(callers));
            }
            // Sessions of a closed loop wait for their frames, too.
            let none = Arrivals::new(
                super::Schedule::Trace(Vec::new()),
                super::Spacing::Constant,
                SmallRng::seed_from_u64(0),
            );
            let pacer = Pacer { start, arrivals: none.peekable(), timers };
            return self.spawn_pacer(move || pacer.run(|| true, |_| {}));
        };
        let arrivals = Arrivals::new(schedule, spacing, SmallRng::seed_from_u64(plan.seed));
        let pacer = Pacer { start, arrivals: arrivals.peekable(), timers };
        let queues: Vec<_> = self.workers.iter_mut().map(Worker::give_queue).collect();
        let (is_stopped, sent) = (Arc::clone(&self.is_stopped), Arc::clone(&self.calls_sent));
        let (mut orders, calls_max) = (orders(1), plan.calls_max.unwrap_or(u64::MAX));
        self.spawn_pacer(move || {
            let has_ended = {
                let sent = Arc::clone(&sent);
                move || {
                    is_stopped.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) >= calls_max
                }
            };
            let mut turns = (0..queues.len()).cycle();
            pacer.run(has_ended, move |at| {
                let order = orders.draw();
                let due = Due { intended: Some(at), order, is_recorded: at >= recording };
                sent.fetch_add(1, Ordering::Relaxed);
                let turn = turns.next().expect("there is at least one worker");
                // A worker ends only after its queue is closed.
                let _ = queues[turn].send(due);
            });
        })
    }

    fn callers(&self, plan: &Plan, worker: usize, orders: OrderBook, start: Instant) -> Callers {
        let Traffic::Closed { concurrency, duration } = plan.traffic else {
            unreachable!("an open loop has a schedule")
        };
        let workers = self.workers.len();
        let share = |all: u64| {
            let (workers, worker) = (workers as u64, worker as u64);
            all / workers + u64::from(worker < all % workers)
        };
        Callers {
            count: share(concurrency as u64) as usize,
            orders,
            start,
            recording: start + plan.warm_up(),
            ends: start + plan.warm_up() + duration,
            calls_max: plan.calls_max.map_or(u64::MAX, share),
            is_stopped: Arc::clone(&self.is_stopped),
            calls_sent: Arc::clone(&self.calls_sent),
        }
    }

    fn spawn_pacer(&mut self, run: impl FnOnce() + Send + 'static) -> Result<(), LoadError> {
        let thread = std::thread::Builder::new().name("load-pacer".to_owned());
        let is_urgent = Arc::clone(&self.is_urgent);
        let thread = thread.spawn(move || {
            is_urgent.store(raise_priority(Urgency::Pacer), Ordering::Relaxed);
            run();
            cpu_time()
        });
        self.pacer = Some(thread.map_err(LoadError::Thread)?);
        Ok(())
    }

    fn have_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.thread.is_finished())
    }

    /// Returns what was recorded since the last time.
    fn take_record(&mut self) -> Record {
        let mut record = Record::default();
        for Worker { recorded, spare, .. } in &mut self.workers {
            std::mem::swap(&mut *recorded.lock(), spare);
            record.merge(spare);
            spare.clear();
        }
        record
    }

    fn join(self) -> ClientCpu {
        const NO_PANIC: &str = "a thread of the load generator does not panic";
        let workers =
            self.workers.into_iter().map(|worker| worker.thread.join().expect(NO_PANIC)).sum();
        // The clocks of sessions are dropped with the workers, which ends the pacer.
        let pacer = self.pacer.map(|pacer| pacer.join().expect(NO_PANIC)).unwrap_or_default();
        ClientCpu { pacer, workers, is_real_time: self.is_urgent.load(Ordering::Relaxed) }
    }
}

impl Worker {
    fn start(
        options: &Arc<CallOptions>,
        in_flight: &Arc<InFlight>,
        first: usize,
        count: usize,
    ) -> Result<Self, LoadError> {
        let recorded = Arc::new(Mutex::new(Record::default()));
        let (ready, is_ready) = std_mpsc::channel();
        let (traffic, given) = tokio::sync::oneshot::channel();
        let (options, in_flight) = (Arc::clone(options), Arc::clone(in_flight));
        let shared = Arc::clone(&recorded);
        let runtime = runtime()?;
        let work = move || {
            // Whether it was allowed is told by the pacer.
            raise_priority(Urgency::Worker);
            runtime.block_on(async {
                let connected = connect(&options, first, count).await;
                let connections = connected.map(|(connections, channels)| Connections {
                    connections,
                    channels,
                    options,
                    recorded: shared,
                    in_flight,
                });
                let (connections, outcome) = match connections {
                    Ok(connections) => (Some(connections), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = ready.send(outcome);
                let cpu_before = cpu_time();
                // Nothing is given if another worker could not connect.
                if let (Some(connections), Ok(traffic)) = (connections, given.await) {
                    connections.serve(traffic).await;
                }
                cpu_time().saturating_sub(cpu_before)
            })
        };
        let thread = std::thread::Builder::new().name("load-worker".to_owned()).spawn(work);
        let thread = thread.map_err(LoadError::Thread)?;
        is_ready.recv().expect("a worker tells whether it is connected")?;
        Ok(Self { thread, traffic: Some(traffic), recorded, spare: Record::default() })
    }

    fn give(&mut self, traffic: WorkerTraffic) {
        if let Some(sender) = self.traffic.take() {
            // A worker waits for its traffic as long as it runs.
            let _ = sender.send(traffic);
        }
    }

    fn give_queue(&mut self) -> mpsc::UnboundedSender<Due> {
        let (queue, calls) = mpsc::unbounded_channel();
        self.give(WorkerTraffic::Queue(calls));
        queue
    }
}

impl Connections {
    async fn serve(self, traffic: WorkerTraffic) {
        match traffic {
            WorkerTraffic::Queue(queue) => self.send_calls(queue).await,
            WorkerTraffic::Callers(callers) => self.send_in_turns(callers).await,
        }
    }

    /// Lets callers send one call after the other until the time is over.
    async fn send_in_turns(self, callers: Callers) {
        tokio::time::sleep_until(callers.start.into()).await;
        let count = callers.count;
        let callers = Arc::new(Mutex::new(callers));
        let tasks = (0..count).map(|number| {
            let (connections, callers) = (self.clone(), Arc::clone(&callers));
            tokio::spawn(async move {
                loop {
                    let due = callers.lock().next();
                    let Some(due) = due else { return };
                    connections.call(number, due).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a caller does not panic");
        }
    }
}

impl Callers {
    fn next(&mut self) -> Option<Due> {
        let now = Instant::now();
        if now >= self.ends || self.calls_max == 0 || self.is_stopped.load(Ordering::Relaxed) {
            return None;
        }
        self.calls_max -= 1;
        self.calls_sent.fetch_add(1, Ordering::Relaxed);
        let is_recorded = now >= self.recording;
        Some(Due { intended: None, order: self.orders.draw(), is_recorded })
    }
}

/// Takes the records of the workers every second.
struct Collector<'a> {
    recording: Instant,
    ends: Instant,
    windows: Vec<Window>,
    total: Record,
    observe: &'a mut dyn FnMut(&Progress<'_>) -> Flow,
}

impl<'a> Collector<'a> {
    fn new(
        plan: &Plan,
        recording: Instant,
        observe: &'a mut dyn FnMut(&Progress<'_>) -> Flow,
    ) -> Self {
        let ends = recording + plan.traffic.duration();
        Self { recording, ends, windows: Vec::new(), total: Record::default(), observe }
    }

    /// Waits for the end of warming up. Returns the metrics of that moment.
    fn warm_up(
        &mut self,
        threads: &Threads,
        before: Option<Metrics>,
        read: impl FnOnce() -> Result<Option<Metrics>, LoadError>,
    ) -> Option<Metrics> {
        let mut has_waited = false;
        while Instant::now() + WINDOW < self.recording {
            std::thread::sleep(WINDOW);
            has_waited = true;
            self.tell(threads, Duration::ZERO, None);
        }
        std::thread::sleep(self.recording.saturating_duration_since(Instant::now()));
        if has_waited { read().ok().flatten().or(before) } else { before }
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
        self.windows.push(Window { ended, record, in_flight: threads.in_flight.calls() });
        self.tell(threads, ended, self.windows.len().checked_sub(1));
    }

    fn tell(&mut self, threads: &Threads, elapsed: Duration, window: Option<usize>) {
        let progress = Progress {
            elapsed,
            window: window.map(|at| &self.windows[at]),
            total: &self.total,
            in_flight: threads.in_flight.calls(),
        };
        if (self.observe)(&progress) == Flow::Stop && Instant::now() < self.ends {
            threads.is_stopped.store(true, Ordering::Relaxed);
        }
    }
}
