//! The group as its callers see it.

use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::fixture::{
    Director, OVERFLOWS, PANICS, Report, Step, gated, grey, reader, reader_on, staged, staged_with,
};
use super::*;
use crate::image::RgbImage;

async fn open(slots: usize) -> Device {
    let slots = NonZeroUsize::new(slots);
    Device::open(&DeviceOptions { slots, ..DeviceOptions::default() }).await.unwrap()
}

fn batch(model: &Arc<LoadedModel>, values: &[u8], bucket: usize) -> Batch {
    let rows = values.iter().copied().map(grey).collect();
    Batch { model: Arc::clone(model), rows, bucket }
}

async fn run(device: &Device, batch: Batch) -> BatchOutcome {
    device.reserve(Placement::EVERYWHERE).await.unwrap().launch(batch).await.unwrap()
}

fn values(outcome: &BatchOutcome) -> Vec<Option<f32>> {
    let value = |row: &RowOutput| row.slices()[0][0];
    outcome.rows.iter().map(|row| row.as_ref().ok().map(value)).collect()
}

#[tokio::test]
async fn a_batch_answers_each_row_in_order_without_the_padding() {
    let (device, model) = (open(1).await, reader("reader", &[1, 4]));
    let outcome = run(&device, batch(&model, &[7, 8, 9], 4)).await;
    assert_eq!(values(&outcome), [Some(7.0), Some(8.0), Some(9.0)]);
    assert_eq!((outcome.bucket, outcome.panics), (4, 0));
}

#[tokio::test]
async fn a_panic_is_caught_and_counted_and_the_thread_lives_on() {
    let (device, model) = (open(1).await, reader("reader", &[1, 4]));
    let outcome = run(&device, batch(&model, &[PANICS], 1)).await;
    assert!(matches!(outcome.rows[..], [Err(DeviceError::Panicked)]));
    assert_eq!(outcome.panics, 1);
    assert_eq!(values(&run(&device, batch(&model, &[5], 1)).await), [Some(5.0)]);
}

#[tokio::test]
async fn only_the_bad_rows_of_a_batch_fail() {
    let (device, model) = (open(1).await, reader("reader", &[1, 4]));
    let outcome = run(&device, batch(&model, &[1, PANICS, 3, OVERFLOWS], 4)).await;
    assert_eq!(values(&outcome), [Some(1.0), None, Some(3.0), None]);
    assert!(matches!(outcome.rows[1], Err(DeviceError::Panicked)));
    assert!(matches!(outcome.rows[3], Err(DeviceError::NotFinite { output: 0 })));
    assert_eq!(outcome.panics, 2, "once together, once alone");

    let mut mixed = batch(&model, &[1, 2], 4);
    mixed.rows.push(RgbImage::black(1, 1));
    let outcome = run(&device, mixed).await;
    assert_eq!(values(&outcome), [Some(1.0), Some(2.0), None]);
    assert!(matches!(outcome.rows[2], Err(DeviceError::Fill(_))));
}

#[tokio::test]
async fn a_bucket_the_model_does_not_have_never_runs() {
    let (device, (model, mut gate)) = (open(1).await, gated("reader", &[2]));
    let outcome = run(&device, batch(&model, &[1], 3)).await;
    assert!(matches!(outcome.rows[..], [Err(DeviceError::Bucket { rows: 1, bucket: 3 })]));
    assert!(gate.is_quiet());
}

#[tokio::test]
async fn a_slot_is_free_again_when_its_batch_has_finished() {
    let (device, (model, mut gate)) = (open(1).await, gated("reader", &[1]));
    let outcome =
        device.reserve(Placement::EVERYWHERE).await.unwrap().launch(batch(&model, &[1], 1));
    gate.entered().await;
    assert_eq!(device.stations[0].slots.available_permits(), 0);
    gate.open();
    outcome.await.unwrap();
    assert_eq!(device.stations[0].slots.available_permits(), 1);
}

#[tokio::test]
async fn a_dropped_slot_is_free_again() {
    let device = open(1).await;
    drop(device.reserve(Placement::EVERYWHERE).await.unwrap());
    device.reserve(Placement::EVERYWHERE).await.unwrap();
}

#[tokio::test]
async fn a_dropped_device_finishes_what_was_launched() {
    let (device, (model, gate)) = (open(2).await, gated("reader", &[1]));
    let first = device.reserve(Placement::EVERYWHERE).await.unwrap().launch(batch(&model, &[1], 1));
    let second =
        device.reserve(Placement::EVERYWHERE).await.unwrap().launch(batch(&model, &[2], 1));
    (0..2).for_each(|_| gate.open());
    drop(device);
    assert_eq!(values(&first.await.unwrap()), [Some(1.0)]);
    assert_eq!(values(&second.await.unwrap()), [Some(2.0)]);
}

#[tokio::test]
async fn a_device_says_what_it_is() {
    let device = open(1).await;
    assert_eq!(device.describe().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["cpu"]);
}

fn slots(slots: usize) -> DeviceOptions {
    DeviceOptions { slots: NonZeroUsize::new(slots), ..DeviceOptions::default() }
}

async fn launch(
    device: &Device,
    batch: Batch,
) -> BoxFuture<'static, Result<BatchOutcome, DeviceError>> {
    Box::pin(device.reserve(batch.model.placement()).await.unwrap().launch(batch))
}

fn is_lost(outcome: &BatchOutcome) -> bool {
    outcome.rows.iter().all(|row| matches!(row, Err(DeviceError::Lost(_))))
}

async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// One machine on a stage.
async fn alone(slots_each: usize) -> (Device, Director) {
    let (device, mut directors) = staged(1, slots(slots_each)).await;
    (device, directors.pop().unwrap())
}

/// A small network of the repository, with few buckets to be quick.
fn package() -> Package {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut package = Package::open(&models.join("iris/3.3.6")).unwrap();
    package.manifest.buckets = vec![1];
    package
}

/// Loads a model onto a group of staged machines, which are told to go on at each trial run.
async fn load(
    device: &Device,
    directors: &mut [Director],
    package: Package,
) -> Result<Arc<LoadedModel>, DeviceError> {
    let run = async |director: &mut Director| loop {
        match director.report().await {
            Report::Finishing => director.tell(Step::Go),
            Report::Started(_) => {}
            other => panic!("{other:?} during a load"),
        }
    };
    let trials = futures_util::future::join_all(directors.iter_mut().map(run));
    tokio::select! {
        biased;
        _ = trials => unreachable!("machines report as long as they are open"),
        loaded = device.load(package) => loaded,
    }
}

async fn until_up(device: &Device, up: Placement) {
    device.health().wait_for(|health| health.up() == up).await.unwrap();
}

fn states(device: &Device) -> Vec<DeviceState> {
    device.health().borrow().devices.iter().map(|device| device.state.clone()).collect()
}

#[tokio::test]
async fn what_waits_in_the_inbox_is_started_before_anything_is_finished() {
    let (device, mut director) = alone(3).await;
    let model = reader("reader", &[1]);
    let mut outcomes = vec![launch(&device, batch(&model, &[1], 1)).await];
    assert_eq!(director.report().await, Report::Started(vec![1]));
    assert_eq!(director.report().await, Report::Finishing);
    outcomes.push(launch(&device, batch(&model, &[2], 1)).await);
    outcomes.push(launch(&device, batch(&model, &[3], 1)).await);
    director.tell(Step::Go);
    assert_eq!(director.report().await, Report::Started(vec![2]));
    assert_eq!(director.report().await, Report::Started(vec![3]), "the upload overlaps the run");
    director.direct([(Report::Finishing, Step::Go), (Report::Finishing, Step::Go)]).await;
    for (expected, outcome) in [1.0, 2.0, 3.0].into_iter().zip(outcomes) {
        assert_eq!(values(&outcome.await.unwrap()), [Some(expected)]);
    }
}

#[tokio::test]
async fn only_the_bad_rows_of_a_batch_fail_while_others_fly() {
    let (device, director) = alone(2).await;
    let model = reader("reader", &[1, 4]);
    let first = launch(&device, batch(&model, &[1, PANICS, OVERFLOWS], 4)).await;
    let second = launch(&device, batch(&model, &[4], 1)).await;
    drop(director);
    let outcome = first.await.unwrap();
    assert_eq!(values(&outcome), [Some(1.0), None, None]);
    assert_eq!(outcome.panics, 2, "once together, once alone");
    assert_eq!(values(&second.await.unwrap()), [Some(4.0)]);
}

#[tokio::test]
async fn the_device_with_the_most_free_slots_is_reserved() {
    let (device, _directors) = staged(2, slots(2)).await;
    let everywhere = Placement::EVERYWHERE;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(device.reserve(everywhere).await.unwrap());
    }
    assert_eq!(held.iter().map(Slot::device).collect::<Vec<_>>(), [0, 1, 0, 1]);
    let second = Placement::of([1]);
    let mut reserve = Box::pin(device.reserve(second));
    assert!(is_pending(&mut reserve).await);
    drop(held.remove(0));
    assert!(is_pending(&mut reserve).await, "not a slot of the other device");
    drop(held.remove(0));
    assert_eq!(reserve.await.unwrap().device(), 1);
}

#[tokio::test]
async fn a_lost_device_answers_what_it_holds_and_serves_again_when_reopened() {
    let (device, mut director) = alone(2).await;
    let model = reader("reader", &[1]);
    let first = launch(&device, batch(&model, &[1], 1)).await;
    assert_eq!(director.report().await, Report::Started(vec![1]));
    assert_eq!(director.report().await, Report::Finishing);
    let second = launch(&device, batch(&model, &[2], 1)).await;
    director.tell(Step::Lose);
    let outcome = first.await.unwrap();
    assert!(is_lost(&outcome));
    let error = outcome.rows[0].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "device cuda:0 was lost");
    assert!(matches!(states(&device)[..], [DeviceState::Out { .. }]), "before anybody hears of it");
    assert!(is_lost(&second.await.unwrap()));
    assert!(matches!(device.reserve(Placement::EVERYWHERE).await, Err(DeviceError::OutOfService)));
    assert_eq!(director.report().await, Report::Reopening);
    director.tell(Step::Lose);
    director.direct([(Report::Reopening, Step::Go)]).await;
    until_up(&device, Placement::of([0])).await;
    assert_eq!(device.health().borrow().devices[0].losses, 1);
    drop(director);
    assert_eq!(values(&run(&device, batch(&model, &[3], 1)).await), [Some(3.0)]);
}

#[tokio::test]
async fn a_device_that_does_not_come_back_is_gone_and_the_others_go_on() {
    let (device, mut directors) = staged(2, slots(1)).await;
    let (first, both) = (reader_on("first", &[1], Placement::of([0])), reader("both", &[1]));
    let outcome = launch(&device, batch(&first, &[1], 1)).await;
    let lost = [(Report::Finishing, Step::Lose), (Report::Reopening, Step::Lose)];
    assert_eq!(directors[0].report().await, Report::Started(vec![1]));
    directors[0].direct(lost).await;
    assert!(is_lost(&outcome.await.unwrap()));
    directors[0].direct([(Report::Reopening, Step::Lose)]).await;
    let mut health = device.health();
    let is_gone = |state: &DeviceState| matches!(state, DeviceState::Gone { .. });
    let gone = health.wait_for(|health| is_gone(&health.devices[0].state)).await.unwrap().clone();
    let why = "device cuda:0 was lost: an illegal address".to_owned();
    assert_eq!(gone.devices[0].state, DeviceState::Gone { why });
    assert_eq!(gone.devices[1].state, DeviceState::In);
    drop(directors.pop());
    let slot = device.reserve(both.placement()).await.unwrap();
    assert_eq!(slot.device(), 1);
    let outcome = slot.launch(batch(&both, &[2], 1)).await.unwrap();
    assert_eq!(values(&outcome), [Some(2.0)]);
    let refused = device.reserve(first.placement()).await;
    assert!(matches!(refused, Err(DeviceError::OutOfService)));
}

#[tokio::test]
async fn a_reservation_that_waits_for_a_lost_device_moves_on() {
    let (device, mut directors) = staged(2, slots(1)).await;
    let model = reader("reader", &[1]);
    let first = launch(&device, batch(&model, &[1], 1)).await;
    let second = device.reserve(Placement::of([1])).await.unwrap();
    let mut waiting = Box::pin(device.reserve(Placement::EVERYWHERE));
    assert!(is_pending(&mut waiting).await);
    assert_eq!(directors[0].report().await, Report::Started(vec![1]));
    directors[0].direct([(Report::Finishing, Step::Lose)]).await;
    assert!(is_lost(&first.await.unwrap()));
    assert!(is_pending(&mut waiting).await, "a free slot of a lost device");
    drop(second);
    assert_eq!(waiting.await.unwrap().device(), 1);
    let mut waiting = Box::pin(device.reserve(Placement::of([0])));
    assert!(matches!(waiting.as_mut().await, Err(DeviceError::OutOfService)));
}

#[tokio::test]
async fn a_model_is_loaded_onto_the_devices_of_its_placement_and_runs_there_alone() {
    let placement = [("iris".to_owned(), vec![1])].into();
    let (device, mut directors) = staged(2, DeviceOptions { placement, ..slots(1) }).await;
    let model = load(&device, &mut directors, package()).await.unwrap();
    assert_eq!(model.placement(), Placement::of([1]));
    assert!(!model.timing().buckets.is_empty());
    directors.into_iter().for_each(drop);
    let input = &model.manifest().input;
    let row = || RgbImage::black(input.width, input.height);
    for (on, runs) in [(1, true), (0, false)] {
        let batch = Batch { model: Arc::clone(&model), rows: vec![row()], bucket: 1 };
        let slot = device.reserve(Placement::of([on])).await.unwrap();
        let outcome = slot.launch(batch).await.unwrap();
        let is_not_loaded = matches!(outcome.rows[0], Err(DeviceError::NotLoaded { .. }));
        assert_eq!((outcome.rows[0].is_ok(), is_not_loaded), (runs, !runs));
    }
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_network_on_every_device() {
    let (device, mut directors) = staged(2, slots(1)).await;
    let model = load(&device, &mut directors, package()).await.unwrap();
    let second = Arc::clone(&model);
    drop(model);
    assert!(directors.iter_mut().all(|director| director.is_quiet()));
    drop(second);
    for director in &mut directors {
        assert_eq!(director.report().await, Report::Freed);
    }
}

#[tokio::test]
async fn a_handle_that_outlives_its_device_does_not_hold_it_up() {
    let (device, mut directors) = staged(1, slots(1)).await;
    let model = load(&device, &mut directors, package()).await.unwrap();
    drop(device);
    drop(model);
}

#[tokio::test]
async fn a_device_that_comes_back_has_its_models_again_from_their_files() {
    let copy = tempfile::tempdir().unwrap();
    let original = package();
    for file in ["model.toml", "iris.onnx", "golden.safetensors"] {
        std::fs::copy(original.dir().join(file), copy.path().join(file)).unwrap();
    }
    let mut package = Package::open(copy.path()).unwrap();
    package.manifest.buckets = vec![1];
    let (device, mut directors) = staged(1, slots(1)).await;
    let model = load(&device, &mut directors, package).await.unwrap();
    let mut director = directors.pop().unwrap();
    let lose = async |director: &mut Director| {
        let outcome = launch(&device, batch(&reader("other", &[1]), &[1], 1)).await;
        assert_eq!(director.report().await, Report::Started(vec![1]));
        director.direct([(Report::Finishing, Step::Lose)]).await;
        assert!(is_lost(&outcome.await.unwrap()));
        director.direct([(Report::Reopening, Step::Go)]).await;
    };
    lose(&mut director).await;
    // The golden's rows alone and together, and one run of the bucket.
    for _ in 0..4 {
        assert!(matches!(director.report().await, Report::Started(_)));
        director.direct([(Report::Finishing, Step::Go)]).await;
    }
    until_up(&device, Placement::of([0])).await;
    let input = &model.manifest().input;
    let rows = vec![RgbImage::black(input.width, input.height)];
    let again = launch(&device, Batch { model: Arc::clone(&model), rows, bucket: 1 }).await;
    assert!(matches!(director.report().await, Report::Started(_)));
    director.direct([(Report::Finishing, Step::Go)]).await;
    assert!(again.await.unwrap().rows[0].is_ok());
    // Other weights must not slip in this way.
    std::fs::write(copy.path().join("iris.onnx"), b"other weights").unwrap();
    lose(&mut director).await;
    director.direct([(Report::Reopening, Step::Go)]).await;
    let mut health = device.health();
    let is_gone = |health: &Health| matches!(health.devices[0].state, DeviceState::Gone { .. });
    let gone = health.wait_for(is_gone).await.unwrap().clone();
    let DeviceState::Gone { why } = &gone.devices[0].state else { panic!() };
    assert!(why.contains("iris.onnx has sha256"), "{why}");
    assert_eq!(gone.devices[0].losses, 2);
}

#[tokio::test]
async fn a_device_lost_while_it_loads_refuses_the_model_and_is_reopened() {
    let (device, mut director) = alone(1).await;
    let mut loading = Box::pin(device.load(package()));
    assert!(is_pending(&mut loading).await);
    assert!(matches!(director.report().await, Report::Started(_)));
    director.direct([(Report::Finishing, Step::Lose)]).await;
    let error = loading.await.unwrap_err();
    assert!(error.loss().is_some(), "{error}");
    assert_eq!(director.report().await, Report::Freed);
    director.direct([(Report::Reopening, Step::Go)]).await;
    until_up(&device, Placement::of([0])).await;
}

#[tokio::test]
async fn a_device_dropped_while_it_is_out_ends() {
    let (device, mut director) = alone(1).await;
    let outcome = launch(&device, batch(&reader("reader", &[1]), &[1], 1)).await;
    assert_eq!(director.report().await, Report::Started(vec![1]));
    director.direct([(Report::Finishing, Step::Lose)]).await;
    assert!(is_lost(&outcome.await.unwrap()));
    drop(director);
    drop(device);
}

/// Late at the first look.
fn impatient() -> Patience {
    let soon = Duration::from_millis(1);
    Patience { batch: Duration::ZERO, load: Duration::ZERO, look: soon, ..Patience::default() }
}

#[tokio::test]
async fn a_device_that_hangs_is_gone_for_good_and_nobody_waits_for_it() {
    let (device, mut directors) = staged_with(1, slots(3), &impatient()).await;
    let (mut health, mut director) = (device.health(), directors.pop().unwrap());
    let model = reader("reader", &[1]);
    // Reserved while the device is in service, for it may be gone before the second is launched.
    let mut slots = Vec::new();
    for _ in 0..2 {
        slots.push(device.reserve(Placement::EVERYWHERE).await.unwrap());
    }
    let launch = |slot: Slot<'_>| slot.launch(batch(&model, &[1], 1));
    let outcomes: Vec<_> = slots.into_iter().map(launch).collect();
    for outcome in outcomes {
        assert!(is_lost(&outcome.await.unwrap()));
    }
    let refused = device.reserve(Placement::EVERYWHERE).await;
    assert!(matches!(refused, Err(DeviceError::OutOfService)));
    drop(refused);
    drop(device);
    // Its thread comes back after all, and ends.
    assert_eq!(director.report().await, Report::Started(vec![1]));
    director.tell(Step::Go);
    while health.changed().await.is_ok() {}
    let state = health.borrow().devices[0].state.clone();
    let DeviceState::Gone { why } = &state else { panic!("{state:?}") };
    assert!(why.contains("cannot be stopped"), "{why}");
}

#[tokio::test]
async fn a_load_that_hangs_is_refused() {
    let (device, _directors) = staged_with(1, slots(1), &impatient()).await;
    let error = device.load(package()).await.unwrap_err();
    assert!(error.loss().is_some(), "{error}");
    assert!(matches!(states(&device)[..], [DeviceState::Gone { .. }]));
}
