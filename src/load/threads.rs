//! The threads of a run: workers with their connections, and the pacer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, oneshot};

use super::LoadError;
use super::arrivals::{Arrivals, Schedule, Spacing};
use super::calls::CallKind;
use super::grpc::Target;
use super::pacer::{FrameClock, Pacer, Timers};
use super::plan::{Plan, Traffic};
use super::priority::{Urgency, cpu_time, raise_priority};
use super::recorder::Record;
use super::requests::OrderBook;
use super::run::{ClientCpu, runtime};
use super::session::{SessionOptions, session_bytes};
use super::worker::{CallOptions, Connections, Due, InFlight, connect};

/// The threads of a run.
#[derive(Debug)]
pub(super) struct Threads {
    workers: Vec<Worker>,
    pacer: Option<JoinHandle<Duration>>,
    timers: Option<Timers>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) is_stopped: Arc<AtomicBool>,
    /// Whether the threads have a real-time priority.
    is_urgent: Arc<AtomicBool>,
    pub(super) calls_sent: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<Duration>,
    /// Takes the worker's traffic; `None` once it was given.
    traffic: Option<oneshot::Sender<WorkerTraffic>>,
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
    Callers(Arc<Mutex<Callers>>, usize),
}

/// What the callers of a closed loop send next.
#[derive(Debug)]
struct Callers {
    orders: OrderBook,
    start: Instant,
    recording: Instant,
    ends: Instant,
    /// Calls that may still be sent.
    calls_max: u64,
    in_flight: Arc<InFlight>,
    is_stopped: Arc<AtomicBool>,
    calls_sent: Arc<AtomicU64>,
}

/// Time from the last preparation to the first call.
const START_AFTER: Duration = Duration::from_millis(20);

impl Threads {
    /// Starts the workers and waits until they are connected.
    pub(super) fn start(plan: &Plan) -> Result<Self, LoadError> {
        let (clock, timers) = FrameClock::new();
        let film = plan.film.clone().filter(|_| plan.has_sessions());
        let session = film.map(|film| SessionOptions::new(film, clock, plan.stores.clone()));
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
            session,
        });
        let in_flight = InFlight::new(plan.in_flight_bytes_max);
        let mut workers = Vec::new();
        let mut first = 0;
        for index in 0..plan.threads {
            // The first workers take the connections that are left over.
            let count = (plan.connections - first).div_ceil(plan.threads - index);
            workers.push(Worker::start(&options, first, count)?);
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

    /// Gives every worker its traffic and starts the pacer. Returns the time of the first call.
    pub(super) fn start_traffic(&mut self, plan: &Plan) -> Result<Instant, LoadError> {
        // Encoding all pictures takes a while, so the time of the first call is set after it.
        let orders = OrderBook::new(
            plan.mix.clone(),
            &plan.stores,
            &plan.pictures,
            SmallRng::seed_from_u64(plan.seed.wrapping_add(1)),
        );
        let start = Instant::now() + START_AFTER;
        match &plan.traffic {
            Traffic::Open { .. } => self.start_open_loop(plan, orders, start)?,
            Traffic::Closed { .. } => self.start_closed_loop(plan, orders, start)?,
        }
        Ok(start)
    }

    fn start_open_loop(
        &mut self,
        plan: &Plan,
        mut orders: OrderBook,
        start: Instant,
    ) -> Result<(), LoadError> {
        let (schedule, spacing) = plan.schedule_with_warm_up();
        let arrivals = Arrivals::new(schedule, spacing, SmallRng::seed_from_u64(plan.seed));
        let timers = self.timers.take().expect("the traffic starts once");
        let pacer = Pacer { start, arrivals: arrivals.peekable(), timers };
        let workers: Vec<_> = self.workers.iter_mut().map(Worker::take_queue).collect();
        let (is_stopped, sent) = (Arc::clone(&self.is_stopped), Arc::clone(&self.calls_sent));
        let (in_flight, recording) = (Arc::clone(&self.in_flight), start + plan.warm_up());
        let session_bytes = plan.film.as_ref().map_or(0, |film| session_bytes(film));
        self.spawn_pacer(move || {
            let mut turn = 0;
            pacer.run(
                || is_stopped.load(Ordering::Relaxed),
                move |at| {
                    let (order, is_recorded) = (orders.draw(), at >= recording);
                    let (queue, recorded) = &workers[turn % workers.len()];
                    turn += 1;
                    sent.fetch_add(1, Ordering::Relaxed);
                    let bytes = match order.kind {
                        CallKind::Session => session_bytes,
                        _ => order.request.bytes(),
                    };
                    match in_flight.enter(bytes) {
                        // A worker ends only after its queue is closed.
                        Some(in_flight) => drop(queue.send(Due {
                            intended: Some(at),
                            order,
                            is_recorded,
                            in_flight,
                        })),
                        None if is_recorded => recorded.lock().add_not_sent(order.kind),
                        None => {}
                    }
                },
            );
        })
    }

    fn start_closed_loop(
        &mut self,
        plan: &Plan,
        orders: OrderBook,
        start: Instant,
    ) -> Result<(), LoadError> {
        let Traffic::Closed { concurrency, duration, calls_max } = plan.traffic else {
            unreachable!("an open loop is started otherwise")
        };
        let recording = start + plan.warm_up();
        let callers = Arc::new(Mutex::new(Callers {
            orders,
            start,
            recording,
            ends: recording + duration,
            calls_max: calls_max.unwrap_or(u64::MAX),
            in_flight: Arc::clone(&self.in_flight),
            is_stopped: Arc::clone(&self.is_stopped),
            calls_sent: Arc::clone(&self.calls_sent),
        }));
        let workers = self.workers.len();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let count = concurrency / workers + usize::from(index < concurrency % workers);
            worker.start_traffic(WorkerTraffic::Callers(Arc::clone(&callers), count));
        }
        // Sessions of a closed loop wait for their frames, too.
        let none = Schedule::Trace(Vec::new());
        let arrivals = Arrivals::new(none, Spacing::Constant, SmallRng::seed_from_u64(plan.seed));
        let timers = self.timers.take().expect("the traffic starts once");
        let pacer = Pacer { start, arrivals: arrivals.peekable(), timers };
        self.spawn_pacer(move || pacer.run(|| true, |_| {}))
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

    pub(super) fn have_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.thread.is_finished())
    }

    /// Returns what was recorded since the last time.
    pub(super) fn take_record(&mut self) -> Record {
        let mut record = Record::default();
        for Worker { recorded, spare, .. } in &mut self.workers {
            std::mem::swap(&mut *recorded.lock(), spare);
            record.merge(spare);
            spare.clear();
        }
        record
    }

    pub(super) fn join(self) -> ClientCpu {
        const NO_PANIC: &str = "a thread of the load generator does not panic";
        let workers =
            self.workers.into_iter().map(|worker| worker.thread.join().expect(NO_PANIC)).sum();
        // The clocks of sessions are dropped with the workers, which ends the pacer.
        let pacer = self.pacer.map(|pacer| pacer.join().expect(NO_PANIC)).unwrap_or_default();
        ClientCpu { pacer, workers, is_real_time: self.is_urgent.load(Ordering::Relaxed) }
    }
}

impl Worker {
    fn start(options: &Arc<CallOptions>, first: usize, count: usize) -> Result<Self, LoadError> {
        let recorded = Arc::new(Mutex::new(Record::default()));
        let (ready, is_ready) = std_mpsc::channel();
        let (traffic, given) = oneshot::channel();
        let options = Arc::clone(options);
        let shared = Arc::clone(&recorded);
        let runtime = runtime()?;
        let work = move || {
            // The pacer records whether the process may.
            raise_priority(Urgency::Worker);
            runtime.block_on(async {
                let connected = connect(&options, first, count).await;
                let connections = connected.map(|(connections, channels)| Connections {
                    connections,
                    channels,
                    options,
                    recorded: shared,
                });
                let (connections, outcome) = match connections {
                    Ok(connections) => (Some(connections), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // The thread that starts the workers waits for it.
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

    fn start_traffic(&mut self, traffic: WorkerTraffic) {
        if let Some(sender) = self.traffic.take() {
            // A worker waits for its traffic as long as it runs.
            let _ = sender.send(traffic);
        }
    }

    /// Starts the traffic of a queue. Returns the queue, and the record for calls that are not
    /// sent. The queue has no limit of its own: [`InFlight`] limits the memory of its calls.
    fn take_queue(&mut self) -> (mpsc::UnboundedSender<Due>, Arc<Mutex<Record>>) {
        let (queue, calls) = mpsc::unbounded_channel();
        self.start_traffic(WorkerTraffic::Queue(calls));
        (queue, Arc::clone(&self.recorded))
    }
}

impl Connections {
    async fn serve(self, traffic: WorkerTraffic) {
        match traffic {
            WorkerTraffic::Queue(queue) => self.send_calls(queue).await,
            WorkerTraffic::Callers(callers, count) => self.send_in_turns(callers, count).await,
        }
    }

    /// Lets callers send one call after the other until the time is over.
    async fn send_in_turns(self, callers: Arc<Mutex<Callers>>, count: usize) {
        let start = callers.lock().start;
        tokio::time::sleep_until(start.into()).await;
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
        let order = self.orders.draw();
        let in_flight = self.in_flight.enter_anyway(order.request.bytes());
        Some(Due { intended: None, order, is_recorded: now >= self.recording, in_flight })
    }
}
