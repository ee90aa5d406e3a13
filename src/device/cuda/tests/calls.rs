//! Tests of the calls to the driver and the libraries.

use super::{
    EmulatedDriver, LIVENESS, batch, lock_gpus, open, package, relative_difference, run, settings,
};
use crate::device::{DeviceGroup, DeviceSettings};

#[tokio::test]
async fn emulated_a_convolution_that_cudnn_refuses_is_a_product_of_patches() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let cpu = DeviceGroup::open(&DeviceSettings::default()).await.unwrap();
    let expected = cpu.load(package(LIVENESS, &[1])).await.unwrap();
    let known = run(&cpu, batch(&expected, &[0], 1)).await.remove(0).unwrap();
    let mut settings = settings(&[0]);
    // The counters count calls at capture, not at replay.
    settings.cuda.graphs = false;
    let mut counts = Vec::new();
    for fault in ["", "algorithm:1:801"] {
        let gpu = open(&settings).await;
        driver.set("fault", fault, "");
        let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
        let count = || [driver.count("conv"), driver.count("gemm")];
        let before = count();
        let answer = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
        assert!(
            relative_difference(&known, &answer) <= 1e-5,
            "{:.1e}",
            relative_difference(&known, &answer)
        );
        let after = count();
        counts.push([after[0] - before[0], after[1] - before[1]]);
    }
    let [[convolutions, products], refused] = counts[..] else { panic!("{counts:?}") };
    assert_eq!(refused, [convolutions - 1, products + 1]);
}

#[tokio::test]
async fn emulated_the_next_upload_is_enqueued_before_the_batch_before_it_is_waited_for() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    driver.set("streams", "lazy", "now");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    driver.set("trace", trace.path().to_str().unwrap(), "");
    let launched = driver.count("graph_launches");
    let mut outcomes = Vec::new();
    for pair in [[0, 1], [2, 3]] {
        let slot = gpu.reserve(model.placement()).await.unwrap();
        outcomes.push(slot.launch(batch(&model, &pair, 2)));
    }
    for outcome in outcomes {
        assert!(outcome.await.unwrap().results.iter().all(Result::is_ok));
    }
    assert_eq!(driver.count("graph_launches") - launched, 2);
    driver.send_setting("trace", "");
    let lines = std::fs::read_to_string(trace.path()).unwrap();
    let line_number = |event: &str, copy: &str, nth: usize| {
        let matches = |line: &str| line.contains(event) && line.contains(copy);
        let mut found = lines.lines().enumerate().filter(|(_, line)| matches(line));
        found.nth(nth).unwrap_or_else(|| panic!("{event} {copy} in\n{lines}")).0
    };
    // Work that the device did not do before the host waited, it did after that.
    let second_upload = line_number(" enqueue ", " h2d ", 1);
    let first_results = line_number(" run ", " d2h ", 0);
    assert!(second_upload < first_results, "{lines}");
}

#[tokio::test]
async fn emulated_what_was_uploaded_is_wiped_also_after_a_batch_that_fails() {
    let _gpus = lock_gpus().await;
    let mut driver = EmulatedDriver::load();
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    let trace = tempfile::NamedTempFile::new().unwrap();
    driver.set("trace", trace.path().to_str().unwrap(), "");
    // The kernel that reads the pixels is refused, and the device is not lost.
    driver.set("fault", "launch:1:1", "");
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_err());
    driver.send_setting("trace", "");
    let lines = std::fs::read_to_string(trace.path()).unwrap();
    let count_runs = |call: &str| {
        let matches = |line: &&str| line.contains(" run ") && line.contains(call);
        lines.lines().filter(matches).count()
    };
    assert_eq!([count_runs(" h2d "), count_runs(" memset ")], [1, 1], "{lines}");
}
