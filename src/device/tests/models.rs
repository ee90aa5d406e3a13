//! Tests of models on their devices.

use std::sync::Arc;

use super::{load, package, with_slots};
use crate::device::fixture::{Report, TestNetworks, staged};
use crate::device::{Batch, DeviceError, DeviceSet, DeviceSettings};
use crate::image::RgbImage;

#[tokio::test]
async fn a_model_is_loaded_onto_the_devices_of_its_placement_and_runs_there_alone() {
    let placement = [("iris".to_owned(), vec![1])].into();
    let settings = DeviceSettings { placement, ..with_slots(1) };
    let (group, mut directors) = staged(&TestNetworks::default(), 2, settings).await;
    let model = load(&group, &mut directors, package()).await.unwrap();
    assert_eq!(model.placement(), DeviceSet::of([1]));
    assert!(!model.timing().buckets.is_empty());
    directors.into_iter().for_each(drop);
    let input = &model.manifest().input;
    let row = || RgbImage::black(input.width, input.height);
    for (on, runs) in [(1, true), (0, false)] {
        let batch = Batch { model: Arc::clone(&model), rows: vec![row()], bucket: 1 };
        let slot = group.reserve(DeviceSet::of([on])).await.unwrap();
        let outcome = slot.launch(batch).await.unwrap();
        let is_not_loaded = matches!(outcome.results[0], Err(DeviceError::NotLoaded { .. }));
        assert_eq!((outcome.results[0].is_ok(), is_not_loaded), (runs, !runs));
    }
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_network_on_every_device() {
    let (group, mut directors) = staged(&TestNetworks::default(), 2, with_slots(1)).await;
    let model = load(&group, &mut directors, package()).await.unwrap();
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
    let (group, mut directors) = staged(&TestNetworks::default(), 1, with_slots(1)).await;
    let model = load(&group, &mut directors, package()).await.unwrap();
    drop(group);
    drop(model);
}
