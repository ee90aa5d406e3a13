//! Tests of GPUs that are lost or hang.

use std::sync::Arc;
use std::time::Duration;

use super::{
    EmulatedDriver, LIVENESS, batch, lock_gpus, open, package, relative_difference, run, settings,
};
use crate::device::watchdog::Timeouts;
use crate::device::{
    DeviceError, DeviceGroup, DevicePlan, DeviceState, GroupHealth, LoadedModel, Slot,
};

#[tokio::test]
async fn emulated_a_device_recovers_from_an_illegal_address_with_its_models() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    let before = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
    let mut health = gpu.health();
    driver.set("fault", "launch:1:700", "");
    // Both slots are taken when the loss happens.
    assert_lost(&gpu, &model, 2).await;
    let is_back = |health: &GroupHealth| {
        health.devices[0].state == DeviceState::InService && health.devices[0].losses == 1
    };
    health.wait_for(is_back).await.unwrap();
    let after = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
    assert_eq!(relative_difference(&before, &after), 0.0);
}

/// Launches this number of batches at once. Each must be answered with the loss of the device.
async fn assert_lost(gpu: &DeviceGroup, model: &Arc<LoadedModel>, batches: usize) {
    let mut slots = Vec::new();
    for _ in 0..batches {
        slots.push(gpu.reserve(model.placement()).await.unwrap());
    }
    let launch = |slot: Slot<'_>| slot.launch(batch(model, &[0], 1));
    let outcomes: Vec<_> = slots.into_iter().map(launch).collect();
    for outcome in outcomes {
        let answers = outcome.await.unwrap().results;
        assert!(matches!(answers[0], Err(DeviceError::Lost(_))), "{answers:?}");
    }
}

/// The second device hangs, because it keeps its memory: nothing on it can be freed.
#[tokio::test]
async fn emulated_a_batch_that_never_ends_is_answered_and_its_device_has_hung() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    driver.set("devices", "2", "1");
    let settings = settings(&[1]);
    let timeouts = Timeouts {
        batch: Duration::from_millis(50),
        poll_interval: Duration::from_millis(10),
        ..Timeouts::default()
    };
    // With one batch, the thread polls whether the batch has run. With all slots taken, it blocks
    // inside the driver.
    for slots_taken in [1, 2] {
        let plan = DevicePlan::new(&settings).unwrap();
        let gpu = plan.open_with_timeouts(&timeouts).await.unwrap();
        let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
        driver.set("fault", "launch:1:hang@1", "");
        assert_lost(&gpu, &model, slots_taken).await;
        let state = gpu.health().borrow().devices[0].state.clone();
        let DeviceState::Hung { why } = &state else { panic!("{state:?}") };
        assert!(why.starts_with("a batch has run for 50ms"), "{why}");
        // Neither drop waits for the hung device.
        drop((model, gpu));
        driver.send_setting("fault", "");
    }
}

/// Libraries panic when they are closed on a lost device, and a second panic ends the process.
#[tokio::test]
async fn emulated_a_device_may_be_dropped_while_it_is_lost_and_opened_again() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    driver.set("fault", "launch:1:700", "");
    assert!(matches!(run(&gpu, batch(&model, &[0], 1)).await[0], Err(DeviceError::Lost(_))));
    drop((gpu, model));
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
}

#[tokio::test]
async fn emulated_of_two_devices_one_is_lost_in_a_batch_and_the_other_goes_on() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    driver.set("devices", "2", "1");
    let gpus = open(&settings(&[0, 1])).await;
    let model = gpus.load(package(LIVENESS, &[1])).await.unwrap();
    driver.set("fault", "any:1:214:*@1", "");
    let mut lost = 0;
    for _ in 0..20 {
        match &run(&gpus, batch(&model, &[0], 1)).await[0] {
            Ok(_) => {}
            Err(DeviceError::Lost(loss)) => {
                assert_eq!(loss.device, "cuda:1");
                lost += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let health = gpus.health().borrow().clone();
    assert!(matches!(health.devices[0].state, DeviceState::InService), "{health:?}");
    assert!(lost <= 1, "{lost} batches met the lost device");
}
