//! Tests of batches and slots.

use super::{batch, is_pending, launch, one_staged, open, run, values, with_slots};
use crate::device::fixture::{OVERFLOWS, PANICS, Report, Step, TestNetworks, all_devices, staged};
use crate::device::{DeviceError, DeviceGroup, DeviceSet, Slot};
use crate::image::RgbImage;

#[tokio::test]
async fn a_batch_answers_each_row_in_order_without_the_padding() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1, 4]);
    let group = open(&networks, 1).await;
    let outcome = run(&group, batch(&model, &[7, 8, 9], 4)).await;
    assert_eq!(values(&outcome), [Some(7.0), Some(8.0), Some(9.0)]);
    assert_eq!(outcome.panics, 0);
}

#[tokio::test]
async fn a_panic_is_caught_and_counted_and_the_thread_lives_on() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1, 4]);
    let group = open(&networks, 1).await;
    let outcome = run(&group, batch(&model, &[PANICS], 1)).await;
    assert!(matches!(outcome.results[..], [Err(DeviceError::Panicked)]));
    assert_eq!(outcome.panics, 1);
    assert_eq!(values(&run(&group, batch(&model, &[5], 1)).await), [Some(5.0)]);
}

#[tokio::test]
async fn only_the_bad_rows_of_a_batch_fail() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1, 4]);
    let group = open(&networks, 1).await;
    let outcome = run(&group, batch(&model, &[1, PANICS, 3, OVERFLOWS], 4)).await;
    assert_eq!(values(&outcome), [Some(1.0), None, Some(3.0), None]);
    assert!(matches!(outcome.results[1], Err(DeviceError::Panicked)));
    assert!(matches!(outcome.results[3], Err(DeviceError::NotFinite { output: 0 })));
    assert_eq!(outcome.panics, 2, "once together, once alone");

    let mut mixed = batch(&model, &[1, 2], 4);
    mixed.rows.push(RgbImage::black(1, 1));
    let outcome = run(&group, mixed).await;
    assert_eq!(values(&outcome), [Some(1.0), Some(2.0), None]);
    assert!(matches!(outcome.results[2], Err(DeviceError::Fill(_))));
}

#[tokio::test]
async fn a_bucket_the_model_does_not_have_never_runs() {
    let mut networks = TestNetworks::default();
    let (model, mut gate) = networks.gated("reader", &[2]);
    let group = open(&networks, 1).await;
    let outcome = run(&group, batch(&model, &[1], 3)).await;
    assert!(matches!(outcome.results[..], [Err(DeviceError::Bucket { rows: 1, bucket: 3 })]));
    assert!(gate.is_quiet());
}

#[tokio::test]
async fn a_slot_is_free_again_when_its_batch_has_finished() {
    let mut networks = TestNetworks::default();
    let (model, mut gate) = networks.gated("reader", &[1]);
    let group = open(&networks, 1).await;
    let outcome = group.reserve(all_devices()).await.unwrap().launch(batch(&model, &[1], 1));
    gate.entered().await;
    assert_eq!(group.devices[0].slots.available_permits(), 0);
    gate.open();
    outcome.await.unwrap();
    assert_eq!(group.devices[0].slots.available_permits(), 1);
}

#[tokio::test]
async fn a_dropped_slot_is_free_again() {
    let group = open(&TestNetworks::default(), 1).await;
    drop(group.reserve(all_devices()).await.unwrap());
    group.reserve(all_devices()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_device_finishes_what_was_launched() {
    let mut networks = TestNetworks::default();
    let (model, gate) = networks.gated("reader", &[1]);
    let group = open(&networks, 2).await;
    let first = group.reserve(all_devices()).await.unwrap().launch(batch(&model, &[1], 1));
    let second = group.reserve(all_devices()).await.unwrap().launch(batch(&model, &[2], 1));
    (0..2).for_each(|_| gate.open());
    drop(group);
    assert_eq!(values(&first.await.unwrap()), [Some(1.0)]);
    assert_eq!(values(&second.await.unwrap()), [Some(2.0)]);
}

#[tokio::test]
async fn a_device_says_what_it_is() {
    let group = DeviceGroup::open(&with_slots(1)).await.unwrap();
    assert_eq!(group.describe().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["cpu"]);
}

#[tokio::test]
async fn what_waits_in_the_inbox_is_started_before_anything_is_finished() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1]);
    let (group, mut director) = one_staged(&networks, 3).await;
    let mut outcomes = vec![launch(&group, batch(&model, &[1], 1)).await];
    assert_eq!(director.report().await, Report::Started(vec![1]));
    assert_eq!(director.report().await, Report::Finishing);
    outcomes.push(launch(&group, batch(&model, &[2], 1)).await);
    outcomes.push(launch(&group, batch(&model, &[3], 1)).await);
    director.send(Step::Go);
    assert_eq!(director.report().await, Report::Started(vec![2]));
    assert_eq!(director.report().await, Report::Started(vec![3]), "the upload overlaps the run");
    director.direct([(Report::Finishing, Step::Go), (Report::Finishing, Step::Go)]).await;
    for (expected, outcome) in [1.0, 2.0, 3.0].into_iter().zip(outcomes) {
        assert_eq!(values(&outcome.await.unwrap()), [Some(expected)]);
    }
}

#[tokio::test]
async fn only_the_bad_rows_of_a_batch_fail_while_other_batches_run() {
    let mut networks = TestNetworks::default();
    let model = networks.reader("reader", &[1, 4]);
    let (group, director) = one_staged(&networks, 2).await;
    let first = launch(&group, batch(&model, &[1, PANICS, OVERFLOWS], 4)).await;
    let second = launch(&group, batch(&model, &[4], 1)).await;
    drop(director);
    let outcome = first.await.unwrap();
    assert_eq!(values(&outcome), [Some(1.0), None, None]);
    assert_eq!(outcome.panics, 2, "once together, once alone");
    assert_eq!(values(&second.await.unwrap()), [Some(4.0)]);
}

#[tokio::test]
async fn the_device_with_the_most_free_slots_is_reserved() {
    let (group, _directors) = staged(&TestNetworks::default(), 2, with_slots(2)).await;
    let all_devices = all_devices();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(group.reserve(all_devices).await.unwrap());
    }
    assert_eq!(held.iter().map(Slot::device).collect::<Vec<_>>(), [0, 1, 0, 1]);
    let second = DeviceSet::of([1]);
    let mut reserve = Box::pin(group.reserve(second));
    assert!(is_pending(&mut reserve).await);
    drop(held.remove(0));
    assert!(is_pending(&mut reserve).await, "not a slot of the other device");
    drop(held.remove(0));
    assert_eq!(reserve.await.unwrap().device(), 1);
}
