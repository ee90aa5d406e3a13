//! GPUs as the group of devices drives them. Tests called `gpu_…` run on any GPU; those called
//! `emulated_…` make the emulated driver fail, or look at what it was told.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::device::cuda::CudaOptions;
use crate::device::watchdog::Patience;
use crate::device::{
    Batch, Device, DeviceChoice, DeviceError, DeviceOptions, DeviceState, LoadedModel, RowOutput,
    Slot,
};
use crate::engine::cuda::GpuError;
use crate::engine::{EngineError, Precision};
use crate::image::RgbImage;
use crate::model::Package;

/// One test at a time has the GPUs.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// What the emulated driver can be told, until the end of a test.
struct Emulated {
    set: unsafe extern "C" fn(*const c_char, *const c_char) -> c_int,
    counter: unsafe extern "C" fn(*const c_char) -> i64,
    changed: Vec<(&'static str, &'static str)>,
}

impl Emulated {
    fn driver() -> Self {
        let symbol = |name: &str| {
            let name = CString::new(name).unwrap();
            // SAFETY: both names end with a zero.
            let found = unsafe {
                let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
                libc::dlsym(library, name.as_ptr())
            };
            assert!(!found.is_null(), "this test needs the emulated driver");
            found
        };
        // SAFETY: `tests/cuda/driver.cpp` declares them so.
        let (set, counter) = unsafe {
            (
                std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*const c_char, *const c_char) -> c_int,
                >(symbol("emu_set")),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> i64>(
                    symbol("emu_counter"),
                ),
            )
        };
        Self { set, counter, changed: Vec::new() }
    }

    /// Changes a setting; `usual` is what it is at the end.
    fn set(&mut self, name: &'static str, value: &str, usual: &'static str) {
        self.changed.push((name, usual));
        self.tell(name, value);
    }

    fn tell(&self, name: &str, value: &str) {
        let [name, value] = [name, value].map(|text| CString::new(text).unwrap());
        // SAFETY: both end with a zero.
        let understood = unsafe { (self.set)(name.as_ptr(), value.as_ptr()) };
        assert_eq!(understood, 0, "{name:?} = {value:?}");
    }

    fn count(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: it ends with a zero.
        unsafe { (self.counter)(name.as_ptr()) }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.changed.iter().for_each(|(name, usual)| self.tell(name, usual));
    }
}

const LIVENESS: &str = "fr_liveness/0.0.1";

/// Its weights are tens of MiB.
const SFACE: &str = "sface/2021dec";

fn package(model: &str, buckets: &[usize]) -> Package {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut package = Package::open(&models.join(model)).unwrap();
    package.manifest.buckets = buckets.to_vec();
    package
}

fn options(numbers: &[usize]) -> DeviceOptions {
    DeviceOptions { choice: DeviceChoice::Cuda(numbers.to_vec()), ..DeviceOptions::default() }
}

async fn open(options: &DeviceOptions) -> Device {
    Device::open(options).await.unwrap()
}

/// On the first GPU.
fn free_bytes() -> usize {
    super::survey().devices[0].free_bytes.unwrap()
}

/// Pictures of the size a model takes, one for each seed.
fn pictures(model: &LoadedModel, seeds: &[usize]) -> Vec<RgbImage> {
    let input = &model.manifest().input;
    let picture = |&seed: &usize| {
        let mut image = RgbImage::black(input.width, input.height);
        for (at, pixel) in image.pixels_mut().iter_mut().enumerate() {
            *pixel = (at * (seed + 3) / 7 + seed * 31) as u8;
        }
        image
    };
    seeds.iter().map(picture).collect()
}

fn batch(model: &Arc<LoadedModel>, seeds: &[usize], bucket: usize) -> Batch {
    Batch { model: Arc::clone(model), rows: pictures(model, seeds), bucket }
}

async fn run(device: &Device, batch: Batch) -> Vec<Result<RowOutput, DeviceError>> {
    let slot = device.reserve(batch.model.placement()).await.unwrap();
    slot.launch(batch).await.unwrap().rows
}

/// Largest difference of two answers, relative to the largest number.
fn apart(a: &RowOutput, b: &RowOutput) -> f32 {
    let pairs = a.slices().into_iter().zip(b.slices()).flat_map(|(a, b)| a.iter().zip(b));
    let (mut difference, mut largest) = (0.0_f32, 1.0_f32);
    for (a, b) in pairs {
        (difference, largest) = (difference.max((a - b).abs()), largest.max(a.abs()));
    }
    difference / largest
}

#[tokio::test]
async fn gpu_answers_are_those_of_the_cpu_in_every_precision_with_and_without_graphs() {
    let _turn = turn().await;
    let cpu = Device::open(&DeviceOptions::default()).await.unwrap();
    let expected = cpu.load(package(LIVENESS, &[1])).await.unwrap();
    let limits = [(Precision::F32, 1e-5), (Precision::Tf32, 5e-2), (Precision::F16, 1e-2)];
    for (precision, limit) in limits {
        for graphs in [true, false] {
            let mut options = options(&[0]);
            options.cpu.precision = Some(precision);
            options.cuda = CudaOptions { graphs };
            let gpu = open(&options).await;
            let model = gpu.load(package(LIVENESS, &[1, 4])).await.unwrap();
            let answers = run(&gpu, batch(&model, &[0, 1, 2], 4)).await;
            for (seed, answer) in answers.iter().enumerate() {
                let known = run(&cpu, batch(&expected, &[seed], 1)).await;
                let difference = apart(known[0].as_ref().unwrap(), answer.as_ref().unwrap());
                let how = format!("{precision}, graphs {graphs}");
                assert!(difference <= limit, "{how}: {difference:.1e}");
            }
        }
    }
}

#[tokio::test]
async fn gpu_a_thousand_batches_in_two_slots_answer_each_its_own_rows_and_leave_no_memory_behind() {
    let _turn = turn().await;
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    let mut alone = Vec::new();
    for seed in 0..5 {
        alone.push(run(&gpu, batch(&model, &[seed], 1)).await.remove(0).unwrap());
    }
    let free = free_bytes();
    let mut flying = std::collections::VecDeque::new();
    for index in 0..1000 {
        let chosen = [index % 5, (index / 5) % 5];
        let slot = gpu.reserve(model.placement()).await.unwrap();
        flying.push_back((chosen, slot.launch(batch(&model, &chosen, 2))));
        if flying.len() > 3 {
            let (chosen, outcome) = flying.pop_front().unwrap();
            for (row, answer) in chosen.iter().zip(outcome.await.unwrap().rows) {
                assert!(apart(&alone[*row], &answer.unwrap()) <= 1e-4, "batch {index}");
            }
        }
    }
    flying.clear();
    drop(run(&gpu, batch(&model, &[0], 1)).await);
    assert_eq!(free_bytes(), free);
}

#[tokio::test]
async fn gpu_rows_of_another_size_and_unknown_buckets_are_refused_and_the_rest_goes_on() {
    let _turn = turn().await;
    let gpu = open(&options(&[0])).await;
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
    let _turn = turn().await;
    let gpu = open(&options(&[0])).await;
    // The first one grows the slots, which stay.
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
async fn emulated_a_device_that_is_not_there_is_refused_and_auto_says_why_it_takes_the_cpu() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let error = Device::open(&options(&[1])).await.unwrap_err();
    assert!(matches!(error, DeviceError::CudaNoDevice { number: 1, count: 1 }), "{error}");
    let auto = DeviceOptions { choice: DeviceChoice::Auto, ..DeviceOptions::default() };
    let described = open(&auto).await.describe().next().unwrap().to_string();
    assert!(described.starts_with("cuda:0") && described.contains("by auto"), "{described}");
    driver.set("devices", "0", "1");
    let error = Device::open(&options(&[0])).await.unwrap_err();
    assert!(matches!(error, DeviceError::CudaNoDevice { number: 0, count: 0 }), "{error}");
    let device = open(&auto).await;
    let described = device.describe().next().unwrap().to_string();
    assert!(described.starts_with("cpu") && described.contains("no device"), "{described}");
}

#[tokio::test]
async fn emulated_a_gpu_that_does_not_open_is_listed_with_the_others_and_left_out_by_auto() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    driver.set("devices", "2", "1");
    driver.set("fault", "context:1:46:*@1", "");
    let found = super::survey();
    assert_eq!(found.unusable, None);
    let [first, second] = &found.devices[..] else { panic!("{found:?}") };
    assert!(first.unusable.is_none() && first.free_bytes.is_some(), "{first:?}");
    assert_eq!(second.model.as_deref(), Some("Emulated device 1"));
    assert!(second.unusable.as_ref().unwrap().contains("UNAVAILABLE"), "{second:?}");
    let auto = DeviceOptions { choice: DeviceChoice::Auto, ..DeviceOptions::default() };
    let group = open(&auto).await;
    let names: Vec<&str> = group.describe().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["cuda:0"]);
}

#[tokio::test]
async fn emulated_a_gpu_or_driver_that_is_too_old_is_refused_with_what_is_needed() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let refused = async || Device::open(&options(&[0])).await.unwrap_err().to_string();
    driver.set("capability", "75", "86");
    assert_eq!(super::survey().unusable, None);
    driver.set("capability", "72", "86");
    let why = "Emulated device 0 has compute capability 7.2, at least 7.5 is needed";
    assert_eq!(refused().await, format!("device cuda:0 was asked for, but {why}"));
    assert_eq!(super::survey().devices[0].unusable.as_deref(), Some(why));
    driver.set("capability", "86", "86");
    driver.set("cuda_version", "12040", "13000");
    let why = "the driver runs programs up to CUDA 12.4, 13.0 is needed: driver R580 or newer";
    assert_eq!(refused().await, format!("device cuda:0 was asked for, but {why}"));
    assert_eq!(super::survey().unusable.as_deref(), Some(why));
}

#[tokio::test]
async fn emulated_a_model_that_does_not_fit_is_refused_with_numbers_and_others_serve_on() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    driver.set("memory_mib", "150", "4096");
    let gpu = open(&options(&[0])).await;
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
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let gpu = open(&options(&[0])).await;
    let kept = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    drop(gpu.load(package(SFACE, &[1])).await.unwrap());
    // Comes behind the freeing.
    drop(run(&gpu, batch(&kept, &[0], 1)).await);
    let used_mib = (4096 * MIB - free_bytes()).div_ceil(MIB);
    driver.set("memory_mib", &(used_mib + 8).to_string(), "4096");
    let error = gpu.load(package(SFACE, &[1])).await.unwrap_err();
    let DeviceError::Load { source, .. } = &error else { panic!("{error}") };
    let EngineError::Gpu(GpuError::Memory { needed_mib, .. }) = **source else {
        panic!("{source}")
    };
    // As much as it needs, of which the pool keeps a good part: a second one does not fit.
    driver.set("memory_mib", &(used_mib + needed_mib + 2).to_string(), "4096");
    let model = gpu.load(package(SFACE, &[1])).await.unwrap();
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
    assert!(gpu.load(package(SFACE, &[1])).await.is_err());
}

#[tokio::test]
async fn emulated_a_convolution_that_cudnn_refuses_is_a_product_of_patches() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let cpu = Device::open(&DeviceOptions::default()).await.unwrap();
    let expected = cpu.load(package(LIVENESS, &[1])).await.unwrap();
    let known = run(&cpu, batch(&expected, &[0], 1)).await.remove(0).unwrap();
    let mut options = options(&[0]);
    // What is replayed was counted when it was captured.
    options.cuda.graphs = false;
    let mut counts = Vec::new();
    for fault in ["", "algorithm:1:801"] {
        let gpu = open(&options).await;
        driver.set("fault", fault, "");
        let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
        let count = || [driver.count("conv"), driver.count("gemm")];
        let before = count();
        let answer = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
        assert!(apart(&known, &answer) <= 1e-5, "{:.1e}", apart(&known, &answer));
        let after = count();
        counts.push([after[0] - before[0], after[1] - before[1]]);
    }
    let [[convolutions, products], refused] = counts[..] else { panic!("{counts:?}") };
    assert_eq!(refused, [convolutions - 1, products + 1]);
}

#[tokio::test]
async fn emulated_an_illegal_address_takes_the_device_out_and_it_comes_back_with_its_models() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    let before = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
    let mut health = gpu.health();
    driver.set("fault", "launch:1:700", "");
    // Both slots are taken when it happens.
    assert_lost(&gpu, &model, 2).await;
    let is_back = |health: &crate::device::Health| {
        health.devices[0].state == DeviceState::In && health.devices[0].losses == 1
    };
    health.wait_for(is_back).await.unwrap();
    let after = run(&gpu, batch(&model, &[0], 1)).await.remove(0).unwrap();
    assert_eq!(apart(&before, &after), 0.0);
}

/// Launches so many batches at once, of which each must be answered with the loss of the device.
async fn assert_lost(gpu: &Device, model: &Arc<LoadedModel>, batches: usize) {
    let mut slots = Vec::new();
    for _ in 0..batches {
        slots.push(gpu.reserve(model.placement()).await.unwrap());
    }
    let launch = |slot: Slot<'_>| slot.launch(batch(model, &[0], 1));
    let outcomes: Vec<_> = slots.into_iter().map(launch).collect();
    for outcome in outcomes {
        let answers = outcome.await.unwrap().rows;
        assert!(matches!(answers[0], Err(DeviceError::Lost(_))), "{answers:?}");
    }
}

/// The second device hangs, for it keeps what it held: nothing of it can be freed.
#[tokio::test]
async fn emulated_a_batch_that_never_ends_is_answered_and_its_device_is_gone() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    driver.set("devices", "2", "1");
    let options = options(&[1]);
    let (batch_limit, look) = (Duration::from_millis(50), Duration::from_millis(10));
    let patience = Patience { batch: batch_limit, look, ..Patience::default() };
    // One batch is asked again and again whether it has run; where all slots are taken, the thread
    // waits inside the driver.
    for slots_taken in [1, 2] {
        let machines = options.choice.machines(&options).unwrap();
        let gpu = Device::of(machines, &options, &patience).await.unwrap();
        let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
        driver.set("fault", "launch:1:hang@1", "");
        assert_lost(&gpu, &model, slots_taken).await;
        let state = gpu.health().borrow().devices[0].state.clone();
        let DeviceState::Gone { why } = &state else { panic!("{state:?}") };
        assert!(why.starts_with("a batch has run for 50ms"), "{why}");
        // Neither waits for what hangs.
        drop((model, gpu));
        driver.tell("fault", "");
    }
}

/// Libraries that are closed on a lost device panic, and a second panic ends the process.
#[tokio::test]
async fn emulated_a_device_may_be_dropped_while_it_is_lost_and_opened_again() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    driver.set("fault", "launch:1:700", "");
    assert!(matches!(run(&gpu, batch(&model, &[0], 1)).await[0], Err(DeviceError::Lost(_))));
    drop((gpu, model));
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
}

#[tokio::test]
async fn emulated_a_model_for_which_the_host_has_no_memory_is_refused_and_others_serve_on() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1])).await.unwrap();
    driver.set("fault", "host_alloc:1:2", "");
    let error = gpu.load(package("yunet/2023mar", &[1])).await.unwrap_err();
    assert!(matches!(error, DeviceError::Load { .. }), "{error}");
    assert!(run(&gpu, batch(&model, &[0], 1)).await[0].is_ok());
}

#[tokio::test]
async fn gpu_bfloat16_is_refused_with_what_there_is_instead() {
    let _turn = turn().await;
    let mut options = options(&[0]);
    options.cpu.precision = Some(Precision::Bf16);
    let error = open(&options).await.load(package(LIVENESS, &[1])).await.unwrap_err();
    let causes = crate::telemetry::causes(&error);
    assert!(causes.contains("f32, tf32 or f16"), "{causes}");
}

#[tokio::test]
async fn emulated_of_two_devices_one_is_lost_in_a_batch_and_the_other_goes_on() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    driver.set("devices", "2", "1");
    let gpus = open(&options(&[0, 1])).await;
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
    assert!(matches!(health.devices[0].state, DeviceState::In), "{health:?}");
    assert!(lost <= 1, "{lost} batches met the lost device");
}

#[tokio::test]
async fn emulated_the_next_upload_is_enqueued_before_the_batch_before_it_is_waited_for() {
    let _turn = turn().await;
    let mut driver = Emulated::driver();
    driver.set("streams", "lazy", "now");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let gpu = open(&options(&[0])).await;
    let model = gpu.load(package(LIVENESS, &[1, 2])).await.unwrap();
    driver.set("trace", trace.path().to_str().unwrap(), "");
    let launched = driver.count("graph_launches");
    let mut outcomes = Vec::new();
    for pair in [[0, 1], [2, 3]] {
        let slot = gpu.reserve(model.placement()).await.unwrap();
        outcomes.push(slot.launch(batch(&model, &pair, 2)));
    }
    for outcome in outcomes {
        assert!(outcome.await.unwrap().rows.iter().all(Result::is_ok));
    }
    assert_eq!(driver.count("graph_launches") - launched, 2);
    driver.tell("trace", "");
    let lines = std::fs::read_to_string(trace.path()).unwrap();
    let place = |what: &str, copy: &str, nth: usize| {
        let is_it = |line: &str| line.contains(what) && line.contains(copy);
        let mut found = lines.lines().enumerate().filter(|(_, line)| is_it(line));
        found.nth(nth).unwrap_or_else(|| panic!("{what} {copy} in\n{lines}")).0
    };
    // What the device did not do before it was waited for, it did after.
    let second_upload = place(" enqueue ", " h2d ", 1);
    let first_results = place(" run ", " d2h ", 0);
    assert!(second_upload < first_results, "{lines}");
}
