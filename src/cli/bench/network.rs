//! Measures one network on a device: its distance from the CPU, and its speed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

#[cfg(feature = "cuda")]
use crate::device::DeviceChoice;
use crate::device::{Batch, DeviceError, DeviceGroup, DeviceSettings, LoadedModel, RowOutput};
use crate::engine::Precision;
use crate::image::RgbImage;
use crate::model::{ModelError, Package};

/// Number of rows that are compared with the CPU.
const ROWS_COMPARED: usize = 4;

/// Report on one network in one precision.
#[derive(Debug, Serialize)]
pub(super) struct NetworkReport {
    pub(super) model: String,
    pub(super) precision: &'static str,
    /// Largest 1 − cosine between an output of the device and of the CPU in `f32`, on wave images.
    pub(super) cosine_distance: f64,
    pub(super) buckets: Vec<BucketReport>,
}

impl NetworkReport {
    /// Returns a message if the distance is above the limit for the precision.
    pub(super) fn violation(&self) -> Option<String> {
        let Self { model, precision, cosine_distance: distance, .. } = self;
        let max = distance_max(precision)?;
        (*distance > max).then(|| {
            format!("{model} in {precision}: 1 - cosine is {distance:.1e}, at most {max:.0e}")
        })
    }
}

/// Returns the largest 1 − cosine that src/engine/README.md promises; `None` for `bf16`, for which
/// only goldens count.
fn distance_max(precision: &str) -> Option<f64> {
    match precision {
        "f32" => Some(1e-6),
        "tf32" | "f16" => Some(1e-3),
        _ => None,
    }
}

/// Report on one batch size.
#[derive(Debug, Serialize)]
pub(super) struct BucketReport {
    pub(super) bucket: usize,
    /// Median time of a batch that runs alone, from pixels to answers.
    pub(super) alone_ms: f64,
    /// Throughput with every slot in use.
    pub(super) rows_per_second: f64,
    /// Throughput with one slot, where no batches overlap.
    pub(super) rows_per_second_one_slot: f64,
    /// Throughput with one launch per step instead of CUDA graphs; GPUs only.
    pub(super) rows_per_second_without_graphs: Option<f64>,
}

/// Measures every bucket with all slots, with one slot, and without CUDA graphs.
pub(super) async fn measure_network(
    package: impl Fn() -> Result<Package, ModelError>,
    settings: &DeviceSettings,
    seconds: f64,
) -> anyhow::Result<NetworkReport> {
    let one_slot = DeviceSettings { slots: 1, ..settings.clone() };
    let one_slot = measure_rates(&one_slot, package()?, seconds).await?;
    let without_graphs = measure_rates_without_graphs(settings, package()?, seconds).await?;
    let device = DeviceGroup::open(settings).await?;
    let model = device.load(package()?).await?;
    let cosine_distance = compare(&device, &model, package()?).await?;
    let mut buckets = Vec::new();
    for (index, &bucket) in model.buckets().iter().enumerate() {
        buckets.push(BucketReport {
            bucket,
            alone_ms: measure_median_ms(&device, &model, bucket, seconds).await?,
            rows_per_second: measure_rows_per_second(&device, &model, bucket, seconds).await?,
            rows_per_second_one_slot: one_slot[index],
            rows_per_second_without_graphs: without_graphs.as_ref().map(|rates| rates[index]),
        });
    }
    let precision = model.manifest().precision.name();
    Ok(NetworkReport { model: model.id(), precision, cosine_distance, buckets })
}

/// Returns `None` on the CPU, which has no graphs.
#[cfg(feature = "cuda")]
async fn measure_rates_without_graphs(
    settings: &DeviceSettings,
    package: Package,
    seconds: f64,
) -> anyhow::Result<Option<Vec<f64>>> {
    if settings.device == DeviceChoice::Cpu {
        return Ok(None);
    }
    let mut eager = settings.clone();
    eager.cuda.graphs = false;
    measure_rates(&eager, package, seconds).await.map(Some)
}

#[cfg(not(feature = "cuda"))]
async fn measure_rates_without_graphs(
    _: &DeviceSettings,
    _: Package,
    _: f64,
) -> anyhow::Result<Option<Vec<f64>>> {
    Ok(None)
}

/// Returns the throughput of each bucket under other settings, in rows per second.
async fn measure_rates(
    settings: &DeviceSettings,
    package: Package,
    seconds: f64,
) -> anyhow::Result<Vec<f64>> {
    let device = DeviceGroup::open(settings).await?;
    let model = device.load(package).await?;
    let mut rates = Vec::new();
    for &bucket in model.buckets() {
        rates.push(measure_rows_per_second(&device, &model, bucket, seconds).await?);
    }
    Ok(rates)
}

/// Returns the largest 1 − cosine between an output of the device and of the CPU in `f32`.
async fn compare(
    device: &DeviceGroup,
    model: &Arc<LoadedModel>,
    package: Package,
) -> anyhow::Result<f64> {
    let settings = DeviceSettings { precision: Some(Precision::F32), ..DeviceSettings::default() };
    let cpu = DeviceGroup::open(&settings).await?;
    let cpu_model = cpu.load(package).await?;
    let mut worst = 0.0_f64;
    for seed in 0..ROWS_COMPARED {
        let found = run_row(device, model, seed).await?;
        let expected = run_row(&cpu, &cpu_model, seed).await?;
        for (a, b) in found.slices().iter().zip(expected.slices()) {
            worst = worst.max(cosine_distance(a, b));
        }
    }
    Ok(worst)
}

async fn run_row(
    device: &DeviceGroup,
    model: &Arc<LoadedModel>,
    seed: usize,
) -> anyhow::Result<RowOutput> {
    let bucket = model.buckets()[0];
    let rows = vec![wave_image(model, seed)];
    let mut outcome = run_batch(device, model, rows, bucket).await?;
    Ok(outcome.pop().context("a batch of one row gives one answer")??)
}

async fn run_batch(
    device: &DeviceGroup,
    model: &Arc<LoadedModel>,
    rows: Vec<RgbImage>,
    bucket: usize,
) -> anyhow::Result<Vec<Result<RowOutput, DeviceError>>> {
    let batch = Batch { model: Arc::clone(model), rows, bucket };
    let slot = device.reserve(model.placement()).await?;
    Ok(slot.launch(batch).await?.results)
}

/// Returns 1 − cosine; infinity if the cosine is undefined, so that every limit is exceeded.
fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let squares = [dot(a, a), dot(b, b)];
    if squares == [0.0, 0.0] {
        return 0.0;
    }
    let distance = 1.0 - dot(a, b) / (squares[0] * squares[1]).sqrt();
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// Returns an image of soft waves with the size of the model's input. Each seed gives another
/// image.
fn wave_image(model: &LoadedModel, seed: usize) -> RgbImage {
    let input = &model.manifest().input;
    let mut image = RgbImage::black(input.width, input.height);
    let width = input.width;
    for (at, value) in image.pixels_mut().iter_mut().enumerate() {
        let (pixel, channel) = (at / 3, at % 3);
        let (x, y) = ((pixel % width) as f32, (pixel / width) as f32);
        let wave = (x / (9 + seed) as f32 + channel as f32).sin() * (y / 13.0).cos();
        *value = (127.5 + 100.0 * wave) as u8;
    }
    image
}

/// Returns the median time of batches that run one at a time.
async fn measure_median_ms(
    device: &DeviceGroup,
    model: &Arc<LoadedModel>,
    bucket: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let images: Vec<RgbImage> = (0..bucket).map(|seed| wave_image(model, seed)).collect();
    let mut times = Vec::new();
    let started = Instant::now();
    while times.is_empty() || started.elapsed().as_secs_f64() < seconds {
        let rows = images.iter().map(copy_image).collect();
        let sent = Instant::now();
        run_batch(device, model, rows, bucket).await?;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}

/// Most bytes of pictures that are made before the clock starts.
const PREPARED_BYTES_MAX: usize = 256 << 20;

/// Fewest batches that are timed together: enough to keep every slot in use.
const PREPARED_BATCHES_MIN: usize = 4;

/// Returns rows per second while a batch is always waiting. Making the pictures is not timed.
async fn measure_rows_per_second(
    device: &DeviceGroup,
    model: &Arc<LoadedModel>,
    bucket: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let batch_bytes = bucket * model.manifest().input.row_len();
    let count =
        (PREPARED_BYTES_MAX / batch_bytes).clamp(PREPARED_BATCHES_MIN, PREPARED_BATCHES_MAX);
    let images: Vec<RgbImage> = (0..bucket).map(|seed| wave_image(model, seed)).collect();
    let (mut rows_done, mut time) = (0, Duration::ZERO);
    while time.as_secs_f64() < seconds {
        let batches: Vec<Batch> = (0..count)
            .map(|_| Batch {
                model: Arc::clone(model),
                rows: images.iter().map(copy_image).collect(),
                bucket,
            })
            .collect();
        let started = Instant::now();
        let mut outcomes = Vec::with_capacity(count);
        for batch in batches {
            outcomes.push(device.reserve(model.placement()).await?.launch(batch));
        }
        for outcome in outcomes {
            let results = outcome.await?.results;
            rows_done += results.len();
            results.into_iter().try_for_each(|result| result.map(drop))?;
        }
        time += started.elapsed();
    }
    Ok(rows_done as f64 / time.as_secs_f64())
}

/// Most batches that are timed together: enough for the first and the last to matter little.
const PREPARED_BATCHES_MAX: usize = 64;

/// Copies a picture. `RgbImage` has no `Clone` because it may show a person; these pictures do not.
fn copy_image(picture: &RgbImage) -> RgbImage {
    let mut copy = RgbImage::black(picture.width(), picture.height());
    copy.pixels_mut().copy_from_slice(picture.pixels());
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_equal_directions_is_zero_and_of_opposite_ones_two() {
        assert!(cosine_distance(&[1.0, 2.0], &[2.0, 4.0]).abs() < 1e-12);
        assert!((cosine_distance(&[1.0, 0.0], &[-3.0, 0.0]) - 2.0).abs() < 1e-12);
        assert_eq!(cosine_distance(&[0.0], &[0.0]), 0.0);
    }

    #[test]
    fn an_output_without_a_direction_has_an_infinite_distance() {
        assert_eq!(cosine_distance(&[0.0], &[1.0]), f64::INFINITY);
        assert_eq!(cosine_distance(&[f32::NAN], &[1.0]), f64::INFINITY);
    }

    #[test]
    fn a_network_beyond_the_limit_is_named_with_both_numbers() {
        let report = |precision, cosine_distance| {
            let model = "iris/3.3.6".to_owned();
            NetworkReport { model, precision, cosine_distance, buckets: Vec::new() }
        };
        for (precision, distance) in [("f32", 1e-6), ("tf32", 1e-3), ("f16", 1e-3), ("bf16", 0.1)] {
            assert_eq!(report(precision, distance).violation(), None);
        }
        assert_eq!(
            report("f32", 2e-6).violation().unwrap(),
            "iris/3.3.6 in f32: 1 - cosine is 2.0e-6, at most 1e-6"
        );
        assert!(report("tf32", 2e-3).violation().is_some());
        assert!(report("f16", f64::INFINITY).violation().is_some());
    }
}
