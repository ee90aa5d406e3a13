//! Tests of devices that are lost or hang.

use std::sync::Arc;
use std::time::Duration;

use super::{
    batch, is_lost, is_pending, launch, load, one_staged, package, run, states, until_in_service,
    values, with_slots,
};
use crate::device::fixture::{
    Director, Report, Stage, Step, TestNetworks, all_devices, staged, staged_with_timeouts,
};
use crate::device::watchdog::Timeouts;
use crate::device::{Batch, DeviceError, DevicePlan, DeviceSet, DeviceState, GroupHealth, Slot};
use crate::image::RgbImage;
use crate::model::Package;

/// Returns whether the first device has failed.
fn has_failed(health: &GroupHealth) -> bool {
    matches!(health.devices[0].state, DeviceState::Failed { .. })
}

#[tokio::test]
async fn a_lost_device_answers_what_it_holds_and_serves_again_when_reopened() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1]);
    let (group, mut director) = one_staged(&networks, 2).await;
    let first = launch(&group, batch(&model, &[1], 1)).await;
    assert_eq!(director.report().await, Report::Started(vec![1]));
    assert_eq!(director.report().await, Report::Finishing);
    let second = launch(&group, batch(&model, &[2], 1)).await;
    director.send(Step::Lose);
    let outcome = first.await.unwrap();
    assert!(is_lost(&outcome));
    let error = outcome.results[0].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "device cuda:0 was lost");
    assert!(
        matches!(states(&group)[..], [DeviceState::Recovering { .. }]),
        "before anybody hears of it"
    );
    assert!(is_lost(&second.await.unwrap()));
    assert!(matches!(group.reserve(all_devices()).await, Err(DeviceError::OutOfService)));
    assert_eq!(director.report().await, Report::Reopening);
    director.send(Step::Lose);
    director.direct([(Report::Reopening, Step::Go)]).await;
    until_in_service(&group, DeviceSet::of([0])).await;
    assert_eq!(group.health().borrow().devices[0].losses, 1);
    drop(director);
    assert_eq!(values(&run(&group, batch(&model, &[3], 1)).await), [Some(3.0)]);
}

#[tokio::test]
async fn a_device_that_does_not_come_back_has_failed_and_the_others_go_on() {
    let mut networks = TestNetworks::default();
    let first = networks.reader_on("first", &[1], DeviceSet::of([0]));
    let both = networks.reader("both", &[1]);
    let (group, mut directors) = staged(&networks, 2, with_slots(1)).await;
    let outcome = launch(&group, batch(&first, &[1], 1)).await;
    let lost = [(Report::Finishing, Step::Lose), (Report::Reopening, Step::Lose)];
    assert_eq!(directors[0].report().await, Report::Started(vec![1]));
    directors[0].direct(lost).await;
    assert!(is_lost(&outcome.await.unwrap()));
    directors[0].direct([(Report::Reopening, Step::Lose)]).await;
    let mut health = group.health();
    let health = health.wait_for(has_failed).await.unwrap().clone();
    let why = "device cuda:0 was lost: an illegal address".to_owned();
    assert_eq!(health.devices[0].state, DeviceState::Failed { why });
    assert_eq!(health.devices[1].state, DeviceState::InService);
    drop(directors.pop());
    let slot = group.reserve(both.placement()).await.unwrap();
    assert_eq!(slot.device(), 1);
    let outcome = slot.launch(batch(&both, &[2], 1)).await.unwrap();
    assert_eq!(values(&outcome), [Some(2.0)]);
    let refused = group.reserve(first.placement()).await;
    assert!(matches!(refused, Err(DeviceError::OutOfService)));
}

#[tokio::test]
async fn a_reservation_that_waits_for_a_lost_device_moves_on() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1]);
    let (group, mut directors) = staged(&networks, 2, with_slots(1)).await;
    let first = launch(&group, batch(&model, &[1], 1)).await;
    let second = group.reserve(DeviceSet::of([1])).await.unwrap();
    let mut waiting = Box::pin(group.reserve(all_devices()));
    assert!(is_pending(&mut waiting).await);
    assert_eq!(directors[0].report().await, Report::Started(vec![1]));
    directors[0].direct([(Report::Finishing, Step::Lose)]).await;
    assert!(is_lost(&first.await.unwrap()));
    assert!(is_pending(&mut waiting).await, "a free slot of a lost device");
    drop(second);
    assert_eq!(waiting.await.unwrap().device(), 1);
    let mut waiting = Box::pin(group.reserve(DeviceSet::of([0])));
    assert!(matches!(waiting.as_mut().await, Err(DeviceError::OutOfService)));
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
    let mut networks = TestNetworks::default();
    let other = networks.reader("other", &[1]);
    let (group, mut directors) = staged(&networks, 1, with_slots(1)).await;
    let model = load(&group, &mut directors, package).await.unwrap();
    let mut director = directors.pop().unwrap();
    let lose = async |director: &mut Director| {
        let outcome = launch(&group, batch(&other, &[1], 1)).await;
        assert_eq!(director.report().await, Report::Started(vec![1]));
        director.direct([(Report::Finishing, Step::Lose)]).await;
        assert!(is_lost(&outcome.await.unwrap()));
        director.direct([(Report::Reopening, Step::Go)]).await;
    };
    lose(&mut director).await;
    // Runs of the golden rows alone and together, and of the bucket.
    for _ in 0..4 {
        assert!(matches!(director.report().await, Report::Started(_)));
        director.direct([(Report::Finishing, Step::Go)]).await;
    }
    until_in_service(&group, DeviceSet::of([0])).await;
    let input = &model.manifest().input;
    let rows = vec![RgbImage::black(input.width, input.height)];
    let again = launch(&group, Batch { model: Arc::clone(&model), rows, bucket: 1 }).await;
    assert!(matches!(director.report().await, Report::Started(_)));
    director.direct([(Report::Finishing, Step::Go)]).await;
    assert!(again.await.unwrap().results[0].is_ok());
    // A model with other weights must not load in this way.
    std::fs::write(copy.path().join("iris.onnx"), b"other weights").unwrap();
    lose(&mut director).await;
    director.direct([(Report::Reopening, Step::Go)]).await;
    let mut health = group.health();
    let health = health.wait_for(has_failed).await.unwrap().clone();
    let DeviceState::Failed { why } = &health.devices[0].state else { panic!() };
    assert!(why.contains("iris.onnx has sha256"), "{why}");
    assert_eq!(health.devices[0].losses, 2);
}

#[tokio::test]
async fn a_device_lost_while_it_loads_refuses_the_model_and_is_reopened() {
    let (group, mut director) = one_staged(&TestNetworks::default(), 1).await;
    let mut loading = Box::pin(group.load(package()));
    assert!(is_pending(&mut loading).await);
    assert!(matches!(director.report().await, Report::Started(_)));
    director.direct([(Report::Finishing, Step::Lose)]).await;
    let error = loading.await.unwrap_err();
    assert!(error.loss().is_some(), "{error}");
    assert_eq!(director.report().await, Report::Freed);
    director.direct([(Report::Reopening, Step::Go)]).await;
    until_in_service(&group, DeviceSet::of([0])).await;
}

#[tokio::test]
async fn a_device_dropped_while_it_recovers_ends() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1]);
    let (group, mut director) = one_staged(&networks, 1).await;
    let outcome = launch(&group, batch(&model, &[1], 1)).await;
    assert_eq!(director.report().await, Report::Started(vec![1]));
    director.direct([(Report::Finishing, Step::Lose)]).await;
    assert!(is_lost(&outcome.await.unwrap()));
    drop(director);
    drop(group);
}

/// Returns timeouts with which every task is overdue at the first poll.
fn zero_timeouts() -> Timeouts {
    Timeouts {
        batch: Duration::ZERO,
        load: Duration::ZERO,
        poll_interval: Duration::from_millis(1),
        ..Timeouts::default()
    }
}

#[tokio::test]
async fn a_device_that_hangs_is_never_used_again_and_nobody_waits_for_it() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1]);
    let (group, mut directors) =
        staged_with_timeouts(&networks, 1, with_slots(3), &zero_timeouts()).await;
    let (mut health, mut director) = (group.health(), directors.pop().unwrap());
    // The slots are reserved first, because the device may have hung before the second launch.
    let mut slots = Vec::new();
    for _ in 0..2 {
        slots.push(group.reserve(all_devices()).await.unwrap());
    }
    let launch = |slot: Slot<'_>| slot.launch(batch(&model, &[1], 1));
    let outcomes: Vec<_> = slots.into_iter().map(launch).collect();
    for outcome in outcomes {
        assert!(is_lost(&outcome.await.unwrap()));
    }
    let refused = group.reserve(all_devices()).await;
    assert!(matches!(refused, Err(DeviceError::OutOfService)));
    drop(refused);
    drop(group);
    // The thread of the device returns after all, and ends.
    assert_eq!(director.report().await, Report::Started(vec![1]));
    director.send(Step::Go);
    while health.changed().await.is_ok() {}
    let state = health.borrow().devices[0].state.clone();
    let DeviceState::Hung { why } = &state else { panic!("{state:?}") };
    assert!(why.contains("cannot be stopped"), "{why}");
}

#[tokio::test]
async fn a_load_that_hangs_is_refused() {
    let networks = TestNetworks::default();
    let (group, _directors) =
        staged_with_timeouts(&networks, 1, with_slots(1), &zero_timeouts()).await;
    let error = group.load(package()).await.unwrap_err();
    assert!(error.loss().is_some(), "{error}");
    assert!(matches!(states(&group)[..], [DeviceState::Hung { .. }]));
}

#[tokio::test]
async fn a_device_that_hangs_while_it_is_opened_is_refused() {
    let (mut stage, director) = Stage::new(0, TestNetworks::default());
    stage.stops_before_opening = true;
    let timeouts = Timeouts { open: Duration::ZERO, ..zero_timeouts() };
    let plan = DevicePlan::from_machines(vec![Box::new(stage)], &with_slots(1)).unwrap();
    let opened = plan.open_with_timeouts(&timeouts).await;
    let error = opened.err().unwrap();
    let why = crate::telemetry::causes(&error);
    assert!(why.contains("opening the device has run for 0ns and cannot be stopped"), "{why}");
    drop(director);
}
