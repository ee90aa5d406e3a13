//! Tests of any GPU.

use std::sync::Arc;

use super::{
    LIVENESS, batch, free_bytes, lock_gpus, open, package, picture, relative_difference, run,
    settings,
};
use crate::device::CudaSettings;
use crate::device::{Batch, DeviceError, DeviceGroup, DeviceSettings};
use crate::engine::Precision;
use crate::image::RgbImage;

#[tokio::test]
async fn gpu_answers_are_those_of_the_cpu_in_every_precision_with_and_without_graphs() {
    let _gpus = lock_gpus().await;
    let cpu = DeviceGroup::open(&DeviceSettings::default()).await.unwrap();
    let expected = cpu.load(package(LIVENESS, &[1])).await.unwrap();
    let limits = [(Precision::F32, 1e-5), (Precision::Tf32, 5e-2), (Precision::F16, 1e-2)];
    for (precision, limit) in limits {
        for graphs in [true, false] {
            let mut settings = settings(&[0]);
            settings.precision = Some(precision);
            settings.cuda = CudaSettings { graphs };
            let gpu = open(&settings).await;
            let model = gpu.load(package(LIVENESS, &[1, 4])).await.unwrap();
            let answers = run(&gpu, batch(&model, &[0, 1, 2], 4)).await;
            for (seed, answer) in answers.iter().enumerate() {
                let known = run(&cpu, batch(&expected, &[seed], 1)).await;
                let difference =
                    relative_difference(known[0].as_ref().unwrap(), answer.as_ref().unwrap());
                let how = format!("{precision}, graphs {graphs}");
                assert!(difference <= limit, "{how}: {difference:.1e}");
            }
        }
    }
}

#[tokio::test]
async fn gpu_a_thousand_batches_in_two_slots_answer_each_its_own_rows_and_leave_no_memory_behind() {
    let _gpus = lock_gpus().await;
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    let mut alone = Vec::new();
    for seed in 0..5 {
        alone.push(run(&gpu, batch(&model, &[seed], 1)).await.remove(0).unwrap());
    }
    let free = free_bytes();
    let mut launched = std::collections::VecDeque::new();
    for index in 0..1000 {
        let chosen = [index % 5, (index / 5) % 5];
        let slot = gpu.reserve(model.placement()).await.unwrap();
        launched.push_back((chosen, slot.launch(batch(&model, &chosen, 2))));
        if launched.len() > 3 {
            let (chosen, outcome) = launched.pop_front().unwrap();
            for (row, answer) in chosen.iter().zip(outcome.await.unwrap().results) {
                assert!(
                    relative_difference(&alone[*row], &answer.unwrap()) <= 1e-4,
                    "batch {index}"
                );
            }
        }
    }
    launched.clear();
    drop(run(&gpu, batch(&model, &[0], 1)).await);
    // A driver may allocate a little for itself. The least that a batch can leak is half a KiB.
    let left = free.saturating_sub(free_bytes());
    assert!(left < 500 << 10, "{left} bytes are gone");
}

#[tokio::test]
async fn gpu_letterboxed_rows_of_several_sizes_are_seen_as_on_the_cpu() {
    let _gpus = lock_gpus().await;
    let small = |buckets: &[usize]| {
        let mut package = package("yunet/2023mar", buckets);
        package.manifest.input = package.manifest.input.with_side(160).unwrap();
        package
    };
    let cpu = DeviceGroup::open(&DeviceSettings::default()).await.unwrap();
    let gpu = open(&settings(&[0])).await;
    let [known, found] = [cpu.load(small(&[1])).await, gpu.load(small(&[4])).await];
    let (known, found) = (known.unwrap(), found.unwrap());
    let sizes = [(160, 101), (91, 160), (160, 160)];
    let rows = || sizes.iter().enumerate().map(|(seed, &(w, h))| picture(w, h, seed));
    let together = Batch { model: Arc::clone(&found), rows: rows().collect(), bucket: 4 };
    let answers = run(&gpu, together).await;
    for (row, answer) in rows().zip(answers) {
        let size = (row.width(), row.height());
        let alone = Batch { model: Arc::clone(&known), rows: vec![row], bucket: 1 };
        let expected = run(&cpu, alone).await.remove(0).unwrap();
        let difference = relative_difference(&expected, &answer.unwrap());
        assert!(difference <= 1e-5, "{size:?}: {difference:.1e}");
    }
}

#[tokio::test]
async fn gpu_rows_of_another_size_and_unknown_buckets_are_refused_and_the_rest_goes_on() {
    let _gpus = lock_gpus().await;
    let gpu = open(&settings(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    let mut mixed = batch(&model, &[0], 2);
    mixed.rows.push(RgbImage::black(1, 1));
    let answers = run(&gpu, mixed).await;
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(DeviceError::Fill(_))));
    let answers = run(&gpu, batch(&model, &[0], 3)).await;
    assert!(matches!(answers[0], Err(DeviceError::Bucket { bucket: 3, .. })));
}

#[tokio::test]
async fn gpu_a_model_whose_last_handle_is_dropped_gives_its_memory_back() {
    let _gpus = lock_gpus().await;
    let gpu = open(&settings(&[0])).await;
    // The first load grows the staging buffers, which stay.
    drop(gpu.load(package(LIVENESS, &[1, 2])).await.unwrap());
    let kept = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    let before = free_bytes();
    for _ in 0..3 {
        drop(gpu.load(package(LIVENESS, &[1, 2])).await.unwrap());
    }
    drop(run(&gpu, batch(&kept, &[0], 1)).await);
    drop(gpu.load(package(LIVENESS, &[1])).await.unwrap());
    drop(run(&gpu, batch(&kept, &[0], 1)).await);
    assert!(free_bytes() >= before - (1 << 20), "{} of {before} bytes are free", free_bytes());
}

#[tokio::test]
async fn gpu_bfloat16_is_refused_with_what_there_is_instead() {
    let _gpus = lock_gpus().await;
    let mut settings = settings(&[0]);
    settings.precision = Some(Precision::Bf16);
    let error = open(&settings).await.load(package(LIVENESS, &[1])).await.unwrap_err();
    let causes = crate::telemetry::causes(&error);
    assert!(causes.contains("f32, tf32 or f16"), "{causes}");
}
