//! Tests of refusals when a GPU is opened or a model is loaded onto it.

use super::{
    EmulatedDriver, LIVENESS, SFACE, batch, free_bytes, lock_gpus, open, package, run, settings,
};
use crate::device::cuda::survey;
use crate::device::{DeviceChoice, DeviceError, DeviceGroup, DeviceSettings};
use crate::engine::EngineError;
use crate::engine::cuda::GpuError;

#[tokio::test]
async fn emulated_a_device_that_is_not_there_is_refused_and_auto_says_why_it_takes_the_cpu() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let error = DeviceGroup::open(&settings(&[1])).await.unwrap_err();
    assert!(matches!(error, DeviceError::CudaNoDevice { number: 1, count: 1 }), "{error}");
    let auto = DeviceSettings { device: DeviceChoice::Auto, ..DeviceSettings::default() };
    let described = open(&auto).await.describe().next().unwrap().to_string();
    assert!(described.starts_with("cuda:0") && described.contains("by auto"), "{described}");
    driver.set("devices", "0", "1");
    let error = DeviceGroup::open(&settings(&[0])).await.unwrap_err();
    assert!(matches!(error, DeviceError::CudaNoDevice { number: 0, count: 0 }), "{error}");
    let device = open(&auto).await;
    let described = device.describe().next().unwrap().to_string();
    assert!(described.starts_with("cpu") && described.contains("no device"), "{described}");
}

#[tokio::test]
async fn emulated_a_gpu_that_does_not_open_is_listed_with_the_others_and_left_out_by_auto() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    driver.set("devices", "2", "1");
    driver.set("fault", "context:1:46:*@1", "");
    let found = survey();
    assert_eq!(found.unusable, None);
    let [first, second] = &found.devices[..] else { panic!("{found:?}") };
    assert!(first.unusable.is_none() && first.free_bytes.is_some(), "{first:?}");
    assert_eq!(second.model.as_deref(), Some("Emulated device 1"));
    assert!(second.unusable.as_ref().unwrap().contains("UNAVAILABLE"), "{second:?}");
    let auto = DeviceSettings { device: DeviceChoice::Auto, ..DeviceSettings::default() };
    let group = open(&auto).await;
    let names: Vec<&str> = group.describe().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["cuda:0"]);
}

#[tokio::test]
async fn emulated_a_gpu_or_driver_that_is_too_old_is_refused_with_what_is_needed() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let refused = async || DeviceGroup::open(&settings(&[0])).await.unwrap_err().to_string();
    driver.set("capability", "75", "86");
    assert_eq!(survey().unusable, None);
    driver.set("capability", "72", "86");
    let why = "Emulated device 0 has compute capability 7.2, at least 7.5 is needed";
    assert_eq!(refused().await, format!("device cuda:0 was asked for, but {why}"));
    assert_eq!(survey().devices[0].unusable.as_deref(), Some(why));
    driver.set("capability", "86", "86");
    driver.set("cuda_version", "12040", "13000");
    let why = "the driver runs programs up to CUDA 12.4, 13.0 is needed: driver R580 or newer";
    assert_eq!(refused().await, format!("device cuda:0 was asked for, but {why}"));
    assert_eq!(survey().unusable.as_deref(), Some(why));
}

#[tokio::test]
async fn emulated_a_model_that_does_not_fit_is_refused_with_numbers_and_others_serve_on() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    driver.set("memory_mib", "150", "4096");
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    let error = gpu.load(package("yunet/2023mar", &[1, 8])).await.unwrap_err();
    let causes = crate::telemetry::causes(&error);
    assert!(causes.contains("MiB of GPU memory are needed"), "{causes}");
    let answers = run(&gpu, batch(&model, &[0], 1)).await;
    assert!(answers[0].is_ok());
}

#[tokio::test]
async fn emulated_a_model_fits_into_what_the_pool_keeps_of_one_that_was_dropped() {
    const MIB: usize = 1 << 20;
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let kept = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    drop(gpu.load(package(SFACE, &[1])).await.unwrap());
    // This batch runs after the freeing.
    drop(run(&gpu, batch(&kept, &[0], 1)).await);
    let used_mib = (4096 * MIB - free_bytes()).div_ceil(MIB);
    driver.set("memory_mib", &(used_mib + 8).to_string(), "4096");
    let error = gpu.load(package(SFACE, &[1])).await.unwrap_err();
    let DeviceError::Load { source, .. } = &error else { panic!("{error}") };
    let EngineError::Gpu(GpuError::Memory { needed_mib, .. }) = **source else {
        panic!("{source}")
    };
    // Memory for one more model, part of which the pool keeps: a second one does not fit.
    driver.set("memory_mib", &(used_mib + needed_mib + 2).to_string(), "4096");
    let model = gpu.load(package(SFACE, &[1])).await.unwrap();
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
    assert!(gpu.load(package(SFACE, &[1])).await.is_err());
}

#[tokio::test]
async fn emulated_a_model_for_which_the_host_has_no_memory_is_refused_and_others_serve_on() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    driver.set("fault", "host_alloc:1:2", "");
    let error = gpu.load(package("yunet/2023mar", &[1])).await.unwrap_err();
    assert!(matches!(error, DeviceError::Load { .. }), "{error}");
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
}

#[tokio::test]
async fn emulated_a_model_that_cannot_be_captured_is_refused_and_others_serve_on() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    for fault in ["capture:1:901", "instantiate:1:2", "graph_upload:1:2"] {
        driver.set("fault", fault, "");
        let error = gpu.load(package(LIVENESS, &[2])).await.unwrap_err();
        assert!(matches!(error, DeviceError::Load { .. }), "{fault}: {error}");
        assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok(), "{fault}");
        let again = gpu.load(package(LIVENESS, &[2])).await.unwrap();
        assert!(run(&gpu, batch(&again, &[0, 1], 2)).await[1].is_ok(), "{fault}");
    }
}
