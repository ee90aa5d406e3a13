//! The handle through which callers use the scheduler.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::answer::{RowAnswer, RowError};
use super::lane::LaneSpec;
use super::shell::{self, Job, LaneModel, RowCaller, Shell};
use super::stats::SchedulerStats;
use super::tickets::Ticket;
use crate::device::{DeviceGroup, LoadedModel};
use crate::image::RgbImage;

/// Settings of the lane of one live model.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The model version the lane runs.
    pub model: Arc<LoadedModel>,
    /// Priority of the lane's rows, from 0; higher goes first. Models that run later in a request
    /// have a higher one.
    pub priority: u8,
    /// Most rows that wait in the lane. The caller of a further row waits for a place.
    pub rows_max: NonZeroUsize,
    /// Longest time the oldest row waits for more rows while a device is free.
    pub delay_max: Duration,
}

/// Gathers rows of many requests into batches for one group of devices. Clones share the lanes.
///
/// After the last clone is dropped, the task answers the rows it still holds and ends.
#[derive(Debug, Clone)]
pub struct Scheduler {
    lanes: Arc<[LaneHandle]>,
    jobs: mpsc::Sender<Job>,
}

/// The entrance of one lane.
#[derive(Debug)]
struct LaneHandle {
    /// The model version the lane runs.
    model: Arc<LoadedModel>,
    /// One permit for each place of the lane.
    places: Arc<Semaphore>,
}

impl Scheduler {
    /// Starts the task that feeds the devices of `group` on the current tokio runtime.
    pub fn start(
        group: Arc<DeviceGroup>,
        lanes: Vec<LaneSettings>,
        stats: &SchedulerStats,
    ) -> Self {
        let handles = lanes.iter().map(LaneHandle::new).collect();
        // Every job holds a place of its lane, and the channel has room for all places, so the
        // channel is never full. A full lane therefore delays its own callers only.
        let places = lanes.iter().map(|lane| lane.rows_max.get()).sum::<usize>().max(1);
        let (jobs, jobs_in) = mpsc::channel(places);
        let shell = Shell::new(lanes.into_iter().map(|lane| lane.into_lane(stats)).collect());
        tokio::spawn(shell::run(group, shell, jobs_in));
        Self { lanes: handles, jobs }
    }

    /// Runs `row` on `model` and returns the answer. While the lane is full, the call waits for a
    /// place in it.
    ///
    /// Dropping the future cancels the row. A row that is cancelled before its launch is never
    /// launched. A row whose deadline has passed is answered only when the next batch is formed. A
    /// caller that must answer at the deadline drops the future then.
    ///
    /// # Errors
    /// [`RowError`]. The holder of a ticket is never refused for load.
    pub async fn submit(
        &self,
        model: &Arc<LoadedModel>,
        row: RgbImage,
        ticket: &Arc<Ticket>,
    ) -> Result<RowAnswer, RowError> {
        let arrived = Instant::now();
        let (lane, handle) = self.find_lane(model)?;
        let place = Arc::clone(&handle.places).acquire_owned().await;
        let place = place.map_err(|_| RowError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let caller = RowCaller { ticket: Arc::clone(ticket), reply };
        let job = Job { lane, arrived, row, caller, place };
        self.jobs.send(job).await.map_err(|_| RowError::Stopped)?;
        answer.await.map_err(|_| RowError::Stopped)?
    }

    /// Returns the lane of `model` and its index. A lane runs one loaded model: the same version
    /// loaded again has a lane of its own.
    fn find_lane(&self, model: &Arc<LoadedModel>) -> Result<(usize, &LaneHandle), RowError> {
        let mut lanes = self.lanes.iter().enumerate();
        let found = lanes.find(|(_, handle)| Arc::ptr_eq(&handle.model, model));
        found.ok_or_else(|| RowError::NoLane { model: model.id() })
    }
}

impl LaneHandle {
    fn new(lane: &LaneSettings) -> Self {
        let places = Arc::new(Semaphore::new(lane.rows_max.get()));
        Self { model: Arc::clone(&lane.model), places }
    }
}

impl LaneSettings {
    fn into_lane(self, stats: &SchedulerStats) -> (LaneSpec, LaneModel) {
        let spec = LaneSpec {
            priority: self.priority,
            buckets: self.model.buckets().to_vec(),
            rows_max: self.rows_max.get(),
            delay_max: self.delay_max,
            placement: self.model.placement(),
        };
        let stats = stats.lane(self.model.name());
        (spec, LaneModel { model: self.model, stats })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::device::fixture::{
        Director, Gate, OVERFLOWS, PANICS, Report, Step, TestNetworks, cpu_group, grey, staged,
    };
    use crate::device::{DeviceError, DeviceSet, DeviceSettings, DeviceState};
    use crate::scheduler::Tickets;

    const FAR: Duration = Duration::from_secs(3600);

    /// A scheduler with its metrics and tickets.
    struct Bench {
        /// `None` once the task is to end.
        scheduler: Option<Scheduler>,
        group: Arc<DeviceGroup>,
        tickets: Tickets,
        registry: Registry,
    }

    fn lane(model: &Arc<LoadedModel>, priority: u8, rows_max: usize) -> LaneSettings {
        let rows_max = rows_max.try_into().unwrap();
        LaneSettings { model: Arc::clone(model), priority, rows_max, delay_max: Duration::ZERO }
    }

    /// A scheduler over the CPU.
    async fn bench(networks: &TestNetworks, lanes: Vec<LaneSettings>) -> Bench {
        bench_on(cpu_group(networks, &DeviceSettings::default()).await, lanes)
    }

    fn bench_on(group: DeviceGroup, lanes: Vec<LaneSettings>) -> Bench {
        let group = Arc::new(group);
        let mut registry = Registry::default();
        let stats = SchedulerStats::register(&mut registry);
        let scheduler = Some(Scheduler::start(Arc::clone(&group), lanes, &stats));
        let tickets = Tickets::new(32, 1000, stats);
        Bench { scheduler, group, tickets, registry }
    }

    type Submitted = JoinHandle<Result<RowAnswer, RowError>>;

    impl Bench {
        fn ticket(&self, life: Duration) -> Arc<Ticket> {
            let deadline = Instant::now() + life;
            Arc::new(self.tickets.admit(1, deadline, "store".into()).unwrap())
        }

        fn spawn(&self, model: &Arc<LoadedModel>, value: u8, life: Duration) -> Submitted {
            let (scheduler, model) = (self.scheduler.clone().unwrap(), Arc::clone(model));
            let ticket = self.ticket(life);
            tokio::spawn(async move { scheduler.submit(&model, grey(value), &ticket).await })
        }

        /// Drops the last handle and waits until the task has ended, which frees the device.
        async fn end(&mut self) {
            self.scheduler = None;
            while Arc::strong_count(&self.group) > 1 {
                tokio::task::yield_now().await;
            }
        }

        fn metrics(&self) -> String {
            let mut text = String::new();
            encode(&mut text, &self.registry).unwrap();
            text
        }

        fn expect_metric(&self, line: &str) {
            let text = self.metrics();
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }

        /// Lets the other tasks run until `count` rows wait in the lane.
        async fn until_waiting(&self, lane: &str, count: usize) {
            let line = format!("menshen_queue_rows{{lane=\"{lane}\"}} {count}\n");
            while !self.metrics().contains(&line) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Submits a row that waits at the gate, so that the device is busy.
    async fn occupy(bench: &Bench, model: &Arc<LoadedModel>, gate: &mut Gate) -> Submitted {
        let first = bench.spawn(model, 200, FAR);
        assert_eq!(gate.entered().await, [200]);
        first
    }

    fn value(answer: &RowAnswer) -> f32 {
        answer.output.slices()[0][0]
    }

    async fn answered(submitted: Submitted) -> RowAnswer {
        submitted.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn rows_that_wait_for_a_busy_device_run_together() {
        let mut networks = TestNetworks::default();
        let (model, mut gate) = networks.gated("reader", &[1, 4]);
        let bench = bench(&networks, vec![lane(&model, 0, 8)]).await;
        let first = occupy(&bench, &model, &mut gate).await;
        let mut rest = Vec::new();
        for value in [1, 2, 3] {
            rest.push(bench.spawn(&model, value, FAR));
            bench.until_waiting("reader", rest.len()).await;
        }
        gate.open();
        assert_eq!(value(&answered(first).await), 200.0);
        assert_eq!(gate.entered().await, [1, 2, 3, 0], "one batch, in order, padded with zeros");
        gate.open();
        for (expected, submitted) in [1.0, 2.0, 3.0].into_iter().zip(rest) {
            assert_eq!(value(&answered(submitted).await), expected);
        }
        bench.expect_metric("menshen_batch_rows_sum{lane=\"reader\"} 4.0\n");
        bench.expect_metric("menshen_batch_padding_rows_total{lane=\"reader\"} 1\n");
        bench.expect_metric("menshen_queue_rows{lane=\"reader\"} 0\n");
    }

    #[tokio::test]
    async fn the_lane_of_a_higher_priority_gets_the_shared_device_first() {
        let mut networks = TestNetworks::default();
        let (early, mut early_gate) = networks.gated("early", &[1]);
        let (late, mut late_gate) = networks.gated("late", &[1]);
        let bench = bench(&networks, vec![lane(&early, 0, 8), lane(&late, 1, 8)]).await;
        let first = occupy(&bench, &early, &mut early_gate).await;
        let of_early = bench.spawn(&early, 1, FAR);
        bench.until_waiting("early", 1).await;
        let of_late = bench.spawn(&late, 2, FAR);
        bench.until_waiting("late", 1).await;
        early_gate.open();
        assert_eq!(late_gate.entered().await, [2]);
        assert!(early_gate.is_quiet());
        late_gate.open();
        assert_eq!(early_gate.entered().await, [1]);
        early_gate.open();
        assert_eq!(value(&answered(of_late).await), 2.0);
        assert_eq!(value(&answered(of_early).await), 1.0);
        assert_eq!(value(&answered(first).await), 200.0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_row_is_answered_without_a_launch() {
        let mut networks = TestNetworks::default();
        let (model, mut gate) = networks.gated("reader", &[1]);
        let mut bench = bench(&networks, vec![lane(&model, 0, 8)]).await;
        let first = occupy(&bench, &model, &mut gate).await;
        let late = bench.spawn(&model, 1, Duration::from_millis(5));
        bench.until_waiting("reader", 1).await;
        tokio::time::advance(Duration::from_millis(5)).await;
        // One for the first row, and one for the other row in case it is launched.
        (0..2).for_each(|_| gate.open());
        let error = late.await.unwrap().unwrap_err();
        assert!(matches!(error, RowError::Expired), "{error}");
        answered(first).await;
        bench.end().await;
        assert!(gate.is_quiet());
        bench.expect_metric("menshen_rows_dropped_total{lane=\"reader\",reason=\"expired\"} 1\n");
    }

    #[tokio::test]
    async fn a_cancelled_row_is_not_launched() {
        let mut networks = TestNetworks::default();
        let (model, mut gate) = networks.gated("reader", &[1]);
        let mut bench = bench(&networks, vec![lane(&model, 0, 8)]).await;
        let first = occupy(&bench, &model, &mut gate).await;
        let left = bench.spawn(&model, 1, FAR);
        bench.until_waiting("reader", 1).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        bench.expect_metric("menshen_tickets 2\n");
        // One for the first row, and one for the other row in case it is launched.
        (0..2).for_each(|_| gate.open());
        answered(first).await;
        bench.end().await;
        assert!(gate.is_quiet());
        bench.expect_metric("menshen_rows_dropped_total{lane=\"reader\",reason=\"cancelled\"} 1\n");
        bench.expect_metric("menshen_tickets 0\n");
    }

    #[tokio::test]
    async fn a_full_lane_is_backpressure_for_its_own_callers_only() {
        let mut networks = TestNetworks::default();
        let (slow, mut gate) = networks.gated("slow", &[1]);
        let other = networks.reader("other", &[1]);
        let bench = bench(&networks, vec![lane(&slow, 0, 1), lane(&other, 0, 8)]).await;
        let first = occupy(&bench, &slow, &mut gate).await;
        let second = bench.spawn(&slow, 1, FAR);
        bench.until_waiting("slow", 1).await;
        let third = bench.spawn(&slow, 2, FAR);
        let beside = bench.spawn(&other, 3, FAR);
        bench.until_waiting("other", 1).await;
        bench.expect_metric("menshen_queue_rows{lane=\"slow\"} 1\n");
        (0..3).for_each(|_| gate.open());
        assert_eq!(value(&answered(beside).await), 3.0);
        for submitted in [first, second, third] {
            answered(submitted).await;
        }
    }

    #[tokio::test]
    async fn a_bad_row_fails_alone_and_the_others_are_answered() {
        let mut networks = TestNetworks::default();
        let (model, mut gate) = networks.gated("reader", &[1, 4]);
        let bench = bench(&networks, vec![lane(&model, 0, 8)]).await;
        let first = occupy(&bench, &model, &mut gate).await;
        let mut rest = Vec::new();
        for value in [1, PANICS, OVERFLOWS, 4] {
            rest.push(bench.spawn(&model, value, FAR));
            bench.until_waiting("reader", rest.len()).await;
        }
        // One each for the first row, the batch, and each row of the batch alone.
        (0..6).for_each(|_| gate.open());
        answered(first).await;
        let mut results = Vec::new();
        for submitted in rest {
            results.push(submitted.await.unwrap());
        }
        assert_eq!(value(results[0].as_ref().unwrap()), 1.0);
        assert!(matches!(results[1], Err(RowError::Device(DeviceError::Panicked))));
        assert!(matches!(results[2], Err(RowError::Device(DeviceError::NotFinite { output: 0 }))));
        assert_eq!(value(results[3].as_ref().unwrap()), 4.0);
        bench.expect_metric("menshen_network_panics_total{lane=\"reader\"} 2\n");
        bench.expect_metric("menshen_rows_failed_total{lane=\"reader\"} 2\n");
        bench.expect_metric("menshen_tickets 0\n");
    }

    #[tokio::test]
    async fn dropping_the_last_handle_ends_the_task_and_frees_the_device() {
        let mut networks = TestNetworks::default();
        let model = networks.reader("reader", &[1]);
        let mut bench = bench(&networks, vec![lane(&model, 0, 8)]).await;
        assert_eq!(value(&answered(bench.spawn(&model, 1, FAR)).await), 1.0);
        assert!(Arc::strong_count(&bench.group) > 1);
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_with_a_delay_waits_for_more_rows_on_a_free_device() {
        let mut networks = TestNetworks::default();
        let (model, mut gate) = networks.gated("reader", &[1, 2, 4]);
        let delayed = LaneSettings { delay_max: Duration::from_millis(10), ..lane(&model, 0, 8) };
        let bench = bench(&networks, vec![delayed]).await;
        let started = Instant::now();
        let first = bench.spawn(&model, 1, FAR);
        bench.until_waiting("reader", 1).await;
        let second = bench.spawn(&model, 2, FAR);
        bench.until_waiting("reader", 2).await;
        assert!(gate.is_quiet());
        gate.open();
        assert_eq!(answered(first).await.queue_time, Duration::from_millis(10));
        assert_eq!(value(&answered(second).await), 2.0);
        bench.expect_metric("menshen_batch_rows_sum{lane=\"reader\"} 2.0\n");
        assert!(started.elapsed() >= Duration::from_millis(10));
        bench.expect_metric("menshen_batches_total{lane=\"reader\",closed=\"delay\"} 1\n");
    }

    #[tokio::test]
    async fn a_model_without_a_lane_is_named() {
        let mut networks = TestNetworks::default();
        let model = networks.reader("reader", &[1]);
        let bench = bench(&networks, Vec::new()).await;
        let error = bench.spawn(&model, 1, FAR).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "model reader/1 has no lane");
    }

    #[tokio::test]
    async fn a_version_that_is_loaded_again_does_not_use_the_lane_of_the_first_load() {
        let mut networks = TestNetworks::default();
        let [first, again] = [(); 2].map(|()| networks.reader("reader", &[1]));
        let bench = bench(&networks, vec![lane(&first, 0, 8)]).await;
        assert_eq!(value(&answered(bench.spawn(&first, 1, FAR)).await), 1.0);
        let error = bench.spawn(&again, 2, FAR).await.unwrap().unwrap_err();
        assert!(matches!(error, RowError::NoLane { .. }), "{error}");
    }

    /// A scheduler over two staged devices with one slot each.
    async fn two_devices(
        networks: &TestNetworks,
        lanes: Vec<LaneSettings>,
    ) -> (Bench, Director, Director) {
        let (group, directors) = staged(networks, 2, DeviceSettings::default()).await;
        let [first, second] = <[Director; 2]>::try_from(directors).ok().unwrap();
        (bench_on(group, lanes), first, second)
    }

    /// Loses the device before it finishes its batch, and lets every attempt to reopen it fail.
    async fn lose_for_good(bench: &Bench, director: &mut Director, device: usize) {
        let stops = [Report::Finishing, Report::Reopening, Report::Reopening];
        director.direct(stops.map(|stop| (stop, Step::Lose))).await;
        let mut health = bench.group.health();
        let has_failed = |state: &DeviceState| matches!(state, DeviceState::Failed { .. });
        health.wait_for(|health| has_failed(&health.devices[device].state)).await.unwrap();
    }

    fn is_lost(result: &Result<RowAnswer, RowError>) -> bool {
        matches!(result, Err(RowError::Device(DeviceError::Lost(_))))
    }

    fn is_without_device(result: &Result<RowAnswer, RowError>) -> bool {
        matches!(result, Err(RowError::Device(DeviceError::OutOfService)))
    }

    #[tokio::test]
    async fn two_devices_pull_from_one_lane() {
        let mut networks = TestNetworks::default();
        let model = networks.reader("reader", &[1]);
        let (bench, mut first, mut second) = two_devices(&networks, vec![lane(&model, 0, 8)]).await;
        let mut rows = Vec::new();
        for (value, director) in [(1, &mut first), (2, &mut second)] {
            rows.push(bench.spawn(&model, value, FAR));
            assert_eq!(director.report().await, Report::Started(vec![value]));
        }
        rows.push(bench.spawn(&model, 3, FAR));
        bench.until_waiting("reader", 1).await;
        // The second device finishes before the first, and takes the waiting row.
        second.direct([(Report::Finishing, Step::Go)]).await;
        assert_eq!(second.report().await, Report::Started(vec![3]));
        assert_eq!(value(&answered(rows.remove(1)).await), 2.0);
        second.direct([(Report::Finishing, Step::Go)]).await;
        assert_eq!(value(&answered(rows.remove(1)).await), 3.0);
        first.direct([(Report::Finishing, Step::Go)]).await;
        assert_eq!(value(&answered(rows.remove(0)).await), 1.0);
    }

    #[tokio::test]
    async fn a_model_never_runs_on_a_device_it_is_not_placed_on() {
        let mut networks = TestNetworks::default();
        let model = networks.reader_on("reader", &[1], DeviceSet::of([1]));
        let (bench, mut first, mut second) = two_devices(&networks, vec![lane(&model, 0, 8)]).await;
        let rows = [1, 2].map(|value| bench.spawn(&model, value, FAR));
        for _ in 0..2 {
            assert!(matches!(second.report().await, Report::Started(_)));
            second.direct([(Report::Finishing, Step::Go)]).await;
        }
        for row in rows {
            answered(row).await;
        }
        assert!(first.is_quiet());
    }

    #[tokio::test]
    async fn a_lane_that_waits_for_more_rows_holds_up_no_other_device() {
        let mut networks = TestNetworks::default();
        let patient = networks.reader_on("patient", &[1, 2], DeviceSet::of([0]));
        let greedy = networks.reader_on("greedy", &[1], DeviceSet::of([1]));
        let patient_lane = LaneSettings { delay_max: FAR / 2, ..lane(&patient, 1, 8) };
        let (bench, first, second) =
            two_devices(&networks, vec![patient_lane, lane(&greedy, 0, 8)]).await;
        drop((first, second));
        let waiting = bench.spawn(&patient, 1, FAR);
        bench.until_waiting("patient", 1).await;
        assert_eq!(value(&answered(bench.spawn(&greedy, 2, FAR)).await), 2.0);
        assert!(!waiting.is_finished());
        assert_eq!(value(&answered(bench.spawn(&patient, 3, FAR)).await), 3.0);
        assert_eq!(value(&answered(waiting).await), 1.0);
        bench.expect_metric("menshen_batches_total{lane=\"patient\",closed=\"full\"} 1\n");
    }

    #[tokio::test]
    async fn rows_of_a_lost_device_fail_as_lost_and_the_other_device_goes_on() {
        let mut networks = TestNetworks::default();
        let model = networks.reader("reader", &[1]);
        let (bench, mut first, second) = two_devices(&networks, vec![lane(&model, 0, 8)]).await;
        let lost = bench.spawn(&model, 1, FAR);
        assert_eq!(first.report().await, Report::Started(vec![1]));
        first.direct([(Report::Finishing, Step::Lose)]).await;
        assert!(is_lost(&lost.await.unwrap()));
        drop(second);
        for value in [2, 3] {
            answered(bench.spawn(&model, value, FAR)).await;
        }
        first.direct([(Report::Reopening, Step::Go)]).await;
        bench.group.health().wait_for(|health| health.in_service().contains(0)).await.unwrap();
        let again = bench.spawn(&model, 4, FAR);
        assert_eq!(first.report().await, Report::Started(vec![4]), "the first device is back");
        first.direct([(Report::Finishing, Step::Go)]).await;
        answered(again).await;
    }

    #[tokio::test]
    async fn rows_without_a_device_are_refused_at_once_and_other_lanes_go_on() {
        let mut networks = TestNetworks::default();
        let bound = networks.reader_on("bound", &[1], DeviceSet::of([0]));
        let free = networks.reader("free", &[1]);
        let lanes = vec![lane(&bound, 0, 8), lane(&free, 0, 8)];
        let (mut bench, mut first, second) = two_devices(&networks, lanes).await;
        drop(second);
        let running = bench.spawn(&bound, 1, FAR);
        assert_eq!(first.report().await, Report::Started(vec![1]));
        let waiting = bench.spawn(&bound, 2, FAR);
        bench.until_waiting("bound", 1).await;
        lose_for_good(&bench, &mut first, 0).await;
        assert!(is_lost(&running.await.unwrap()));
        assert!(is_without_device(&waiting.await.unwrap()));
        // The row above is answered once the task knows of the loss, so the next row comes after.
        assert_eq!(value(&answered(bench.spawn(&free, 4, FAR)).await), 4.0);
        assert!(is_without_device(&bench.spawn(&bound, 3, FAR).await.unwrap()));
        bench.expect_metric("menshen_rows_dropped_total{lane=\"bound\",reason=\"no_device\"} 2\n");
        bench.expect_metric("menshen_tickets 0\n");
        bench.end().await;
    }

    #[tokio::test]
    async fn a_slot_reserved_while_rows_wait_is_released_when_its_device_is_lost() {
        let mut networks = TestNetworks::default();
        let both = networks.reader("both", &[1, 2]);
        let [busy0, busy1] = [0, 1].map(|device| {
            networks.reader_on(&format!("busy{device}"), &[1], DeviceSet::of([device]))
        });
        let patient = LaneSettings { delay_max: FAR / 2, ..lane(&both, 0, 8) };
        let (group, directors) =
            staged(&networks, 2, DeviceSettings { slots: 2, ..Default::default() }).await;
        let [mut first, mut second] = <[Director; 2]>::try_from(directors).ok().unwrap();
        let bench = bench_on(group, vec![patient, lane(&busy0, 1, 8), lane(&busy1, 1, 8)]);
        // With one free slot on each device, the slot of the first device is reserved first.
        let lost = bench.spawn(&busy0, 8, FAR);
        assert_eq!(first.report().await, Report::Started(vec![8]));
        let kept = bench.spawn(&busy1, 9, FAR);
        assert_eq!(second.report().await, Report::Started(vec![9]));
        let waiting = bench.spawn(&both, 1, FAR);
        bench.until_waiting("both", 1).await;
        first.direct([(Report::Finishing, Step::Lose)]).await;
        assert!(is_lost(&lost.await.unwrap()));
        let second_row = bench.spawn(&both, 2, FAR);
        drop(second);
        assert_eq!(value(&answered(second_row).await), 2.0, "on the device that is left");
        assert_eq!(value(&answered(waiting).await), 1.0);
        bench.expect_metric("menshen_batches_total{lane=\"both\",closed=\"full\"} 1\n");
        assert_eq!(value(&answered(kept).await), 9.0);
    }
}
