//! Makes a model ready on its device: build, golden, warm-up. Whatever fails here never serves.

use std::time::{Duration, Instant};

use super::DeviceError;
use super::loaded::{LoadTiming, LoadedModel, RowOutput, RunNetwork};
use super::run::Runner;
use crate::engine::{Network, Precision};
use crate::image::RgbImage;
use crate::model::{Golden, InputContract, Manifest, ModelError, OutputSpec, Package};

/// Largest difference between a row alone and the same row in a bucket, relative to the largest
/// value of that output: kernels may sum in another order, which costs a few of 24 bits.
const BUCKET_TOLERANCE: f32 = 1e-5;

/// Builds the network, checks its golden in two buckets and warms every bucket.
pub(super) fn load(runner: &Runner, package: Package) -> Result<LoadedModel, DeviceError> {
    let started = Instant::now();
    let package = in_precision(package, runner.cpu().precision)?;
    let model = build(runner, &package, &package.manifest.input)?;
    let build = started.elapsed();
    let golden = check_golden(runner, &model, &package)?;
    let buckets = warm(runner, &model)?;
    Ok(model.with_timing(LoadTiming { build, golden, buckets }))
}

/// The package, to be run in `precision` where that is asked for.
fn in_precision(package: Package, precision: Option<Precision>) -> Result<Package, DeviceError> {
    let precision = precision.unwrap_or(package.manifest.precision);
    let model = package.id();
    package.in_precision(precision).map_err(|source| DeviceError::Precision {
        model,
        precision,
        source: Box::new(source),
    })
}

/// The network for `input`: the manifest's own, or the one of its golden.
fn build(
    runner: &Runner,
    package: &Package,
    input: &InputContract,
) -> Result<LoadedModel, DeviceError> {
    let graph = package.graph_for(input).map_err(unreadable(package))?;
    let (kernels, precision) = (runner.cpu().kernels, package.manifest.precision);
    let network = Network::cpu(&graph, kernels, precision, runner.crew())
        .map_err(|source| DeviceError::Load { model: package.id(), source: Box::new(source) })?;
    let order = output_order(&network, &package.manifest);
    let manifest = Manifest { input: input.clone(), ..package.manifest.clone() };
    Ok(LoadedModel::new(manifest, in_order(network, order)))
}

/// For every output of the manifest, its place among the network's.
fn output_order(network: &Network, manifest: &Manifest) -> Vec<usize> {
    let names: Vec<&str> = network.output_names().collect();
    let place = |output: &OutputSpec| names.iter().position(|name| *name == output.tensor);
    let outputs = manifest.outputs.iter();
    outputs.map(|output| place(output).expect("a package's graph has its outputs")).collect()
}

fn in_order(network: Network, order: Vec<usize>) -> RunNetwork {
    Box::new(move |input| {
        let outputs = network.run(input)?;
        let found = outputs.len();
        let pick = |place: &usize| {
            outputs.get(*place).cloned().ok_or(DeviceError::OutputCount { found, wanted: *place })
        };
        order.iter().map(pick).collect()
    })
}

/// Checks the golden, on a network of the golden's own size where that is another.
fn check_golden(
    runner: &Runner,
    model: &LoadedModel,
    package: &Package,
) -> Result<Duration, DeviceError> {
    let started = Instant::now();
    let golden = package.golden().map_err(unreadable(package))?;
    if golden.input == model.manifest().input {
        check_rows(runner, model, &golden)?;
    } else {
        check_rows(runner, &build(runner, package, &golden.input)?, &golden)?;
    }
    Ok(started.elapsed())
}

/// Each golden row alone must give the golden's answer; in a larger bucket, the same again.
fn check_rows(runner: &Runner, model: &LoadedModel, golden: &Golden) -> Result<(), DeviceError> {
    let bucket = model.smallest_bucket();
    let mut alone = Vec::new();
    for row in &golden.pictures {
        alone.push(runner.run_alone(model, row).map_err(in_trial(model, bucket))?);
    }
    let answers: Vec<Vec<&[f32]>> = alone.iter().map(RowOutput::slices).collect();
    golden.check(&answers).map_err(|source| DeviceError::Golden { model: model.id(), source })?;
    check_bucket(runner, model, &golden.pictures, &alone)
}

/// Runs `rows` again together in one bucket with padding, and compares with `alone`.
fn check_bucket(
    runner: &Runner,
    model: &LoadedModel,
    rows: &[RgbImage],
    alone: &[RowOutput],
) -> Result<(), DeviceError> {
    let with_padding = model.buckets().iter().copied().filter(|bucket| *bucket > rows.len()).min();
    let largest = model.buckets().iter().copied().max();
    let Some(bucket) = with_padding.or(largest) else { return Ok(()) };
    let count = rows.len().min(bucket);
    let together =
        runner.run_together(model, &rows[..count], bucket).map_err(in_trial(model, bucket))?;
    let difference = alone.iter().zip(&together).map(|(a, b)| row_difference(a, b));
    let difference = difference.fold(0.0, f32::max);
    if difference > BUCKET_TOLERANCE {
        let (model, limit) = (model.id(), BUCKET_TOLERANCE);
        return Err(DeviceError::BucketMismatch { model, bucket, difference, limit });
    }
    Ok(())
}

fn row_difference(a: &RowOutput, b: &RowOutput) -> f32 {
    let tensors = a.tensors.iter().zip(&b.tensors);
    tensors.map(|(a, b)| tensor_difference(a.expose(), b.expose())).fold(0.0, f32::max)
}

/// The largest difference, relative to the largest value where that is above 1.
fn tensor_difference(a: &[f32], b: &[f32]) -> f32 {
    let scale = a.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max)
}

/// Runs every bucket once, so that no request pays for first allocations and choices.
fn warm(runner: &Runner, model: &LoadedModel) -> Result<Vec<(usize, Duration)>, DeviceError> {
    let input = &model.manifest().input;
    let largest = model.buckets().iter().copied().max().unwrap_or(0);
    let black = || RgbImage::black(input.width, input.height);
    let rows: Vec<RgbImage> = std::iter::repeat_with(black).take(largest).collect();
    let mut buckets = model.buckets().to_vec();
    buckets.sort_unstable();
    let mut times = Vec::new();
    for bucket in buckets {
        let started = Instant::now();
        runner.run_together(model, &rows[..bucket], bucket).map_err(in_trial(model, bucket))?;
        times.push((bucket, started.elapsed()));
    }
    Ok(times)
}

fn unreadable(package: &Package) -> impl FnOnce(ModelError) -> DeviceError {
    let model = package.id();
    move |source| DeviceError::Read { model, source: Box::new(source) }
}

fn in_trial(model: &LoadedModel, bucket: usize) -> impl FnOnce(DeviceError) -> DeviceError {
    let model = model.id();
    move |source| DeviceError::Trial { model, bucket, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use std::sync::Arc;

    use crate::device::CpuOptions;
    use crate::device::fixture::{grey, manifest, reading};
    use crate::engine::cpu::Crew;
    use crate::model::ColourOrder;

    /// One of the networks in the repository, with two small buckets to be quick.
    fn package(model: &str) -> Package {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let mut package = Package::open(&models.join(model)).unwrap();
        package.manifest.buckets = vec![1, 3];
        package
    }

    fn runner() -> Runner {
        Runner::new(Arc::new(Crew::new(2).unwrap()), CpuOptions::default())
    }

    #[test]
    fn a_model_becomes_live_when_its_golden_holds_and_its_buckets_are_warm() {
        let model = load(&runner(), package("fr_liveness/0.0.1")).unwrap();
        let buckets: Vec<usize> =
            model.timing().buckets.iter().map(|(bucket, _)| *bucket).collect();
        assert_eq!(buckets, [1, 3]);
    }

    #[test]
    fn a_golden_of_another_size_is_checked_on_a_network_of_that_size() {
        let mut package = package("yunet/2023mar");
        package.manifest.input = package.manifest.input.with_side(320).unwrap();
        assert_ne!(package.golden().unwrap().input, package.manifest.input);
        let model = load(&runner(), package).unwrap();
        assert_eq!(model.manifest().input.width, 320);
    }

    #[test]
    fn a_model_fed_with_red_and_blue_exchanged_never_serves() {
        let mut package = package("fr_liveness/0.0.1");
        package.manifest.input.colour = ColourOrder::Rgb;
        let error = load(&runner(), package).unwrap_err();
        assert!(matches!(error, DeviceError::Golden { .. }), "{error}");
    }

    #[test]
    fn a_model_whose_answer_depends_on_the_bucket_never_serves() {
        let rows = [grey(1), grey(2)];
        let by_batch = |input: &candle_core::Tensor| {
            let shift = if input.dims()[0] == 3 { 1e-3 } else { 0.0 };
            let outputs = reading(input)?.into_iter();
            outputs.map(|output| Ok(output.affine(1.0, shift)?)).collect()
        };
        let runner = runner();
        let cases: [(RunNetwork, bool); 2] =
            [(Box::new(reading), true), (Box::new(by_batch), false)];
        for (run, is_live) in cases {
            let model = LoadedModel::new(manifest("tiny", "1", &[1, 3]), run);
            let alone: Vec<RowOutput> =
                rows.iter().map(|row| runner.run_alone(&model, row).unwrap()).collect();
            let checked = check_bucket(&runner, &model, &rows, &alone);
            assert_eq!(checked.is_ok(), is_live, "{checked:?}");
        }
    }
}
