//! GPUs, used through the group of devices. Tests called `gpu_…` run on any GPU. Tests called
//! `emulated_…` make the emulated driver fail, or check the calls that it received.

mod any_gpu;
mod calls;
mod losses;
mod opening;

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::device::{
    Batch, DeviceChoice, DeviceError, DeviceGroup, DeviceSettings, LoadedModel, RowOutput,
};
use crate::image::RgbImage;
use crate::model::Package;

/// Locks the GPUs: one test at a time uses them.
async fn lock_gpus() -> MutexGuard<'static, ()> {
    static GPUS: Mutex<()> = Mutex::const_new(());
    GPUS.lock().await
}

/// The emulated driver. Settings changed through it are reset when it is dropped.
struct EmulatedDriver {
    set: unsafe extern "C" fn(*const c_char, *const c_char) -> c_int,
    counter: unsafe extern "C" fn(*const c_char) -> i64,
    /// Names and defaults of the changed settings.
    changed: Vec<(&'static str, &'static str)>,
}

impl EmulatedDriver {
    fn load() -> Self {
        let symbol = |name: &str| {
            let name = CString::new(name).unwrap();
            // SAFETY: both names end with a NUL byte.
            let found = unsafe {
                let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
                libc::dlsym(library, name.as_ptr())
            };
            assert!(!found.is_null(), "this test needs the emulated driver");
            found
        };
        // SAFETY: `tests/cuda/driver.cpp` declares the functions with these types.
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

    /// Changes a setting until the end of the test, when it is set to `default`.
    fn set(&mut self, name: &'static str, value: &str, default: &'static str) {
        self.changed.push((name, default));
        self.send_setting(name, value);
    }

    fn send_setting(&self, name: &str, value: &str) {
        let [name, value] = [name, value].map(|text| CString::new(text).unwrap());
        // SAFETY: both strings end with a NUL byte.
        let understood = unsafe { (self.set)(name.as_ptr(), value.as_ptr()) };
        assert_eq!(understood, 0, "{name:?} = {value:?}");
    }

    fn count(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: the name ends with a NUL byte.
        unsafe { (self.counter)(name.as_ptr()) }
    }
}

impl Drop for EmulatedDriver {
    fn drop(&mut self) {
        self.changed.iter().for_each(|(name, default)| self.send_setting(name, default));
    }
}

const LIVENESS: &str = "fr_liveness/0.0.1";

/// The weights of this model are tens of MiB.
const SFACE: &str = "sface/2021dec";

fn package(model: &str, buckets: &[usize]) -> Package {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut package = Package::open(&models.join(model)).unwrap();
    package.manifest.buckets = buckets.to_vec();
    package
}

fn settings(numbers: &[usize]) -> DeviceSettings {
    DeviceSettings { device: DeviceChoice::Cuda(numbers.to_vec()), ..DeviceSettings::default() }
}

async fn open(settings: &DeviceSettings) -> DeviceGroup {
    DeviceGroup::open(settings).await.unwrap()
}

/// Returns the free memory of the first GPU.
fn free_bytes() -> usize {
    super::survey().devices[0].free_bytes.unwrap()
}

/// Returns one picture per seed, of the input size of a model.
fn pictures(model: &LoadedModel, seeds: &[usize]) -> Vec<RgbImage> {
    let input = &model.manifest().input;
    seeds.iter().map(|&seed| picture(input.width, input.height, seed)).collect()
}

fn picture(width: usize, height: usize, seed: usize) -> RgbImage {
    let mut image = RgbImage::black(width, height);
    for (at, pixel) in image.pixels_mut().iter_mut().enumerate() {
        *pixel = (at * (seed + 3) / 7 + seed * 31) as u8;
    }
    image
}

fn batch(model: &Arc<LoadedModel>, seeds: &[usize], bucket: usize) -> Batch {
    Batch { model: Arc::clone(model), rows: pictures(model, seeds), bucket }
}

async fn run(device: &DeviceGroup, batch: Batch) -> Vec<Result<RowOutput, DeviceError>> {
    let slot = device.reserve(batch.model.placement()).await.unwrap();
    slot.launch(batch).await.unwrap().results
}

/// Returns the largest difference of two outputs, relative to the largest value or to 1 if that is
/// more.
fn relative_difference(a: &RowOutput, b: &RowOutput) -> f32 {
    let pairs = a.slices().into_iter().zip(b.slices()).flat_map(|(a, b)| a.iter().zip(b));
    let (mut difference, mut largest) = (0.0_f32, 1.0_f32);
    for (a, b) in pairs {
        (difference, largest) = (difference.max((a - b).abs()), largest.max(a.abs()));
    }
    difference / largest
}
