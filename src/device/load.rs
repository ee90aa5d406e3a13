//! Makes a model ready on its device: builds the network, checks the golden and warms the buckets.
//! A model that fails one of these steps never serves.

use std::time::{Duration, Instant};

use super::loaded::{LoadTiming, LoadedModel};
use super::machine::Machine;
use super::{DeviceError, RowOutput};
use crate::image::RgbImage;
use crate::model::{Golden, GoldenMismatch, ModelError, Package};

/// Builds the network, checks its golden in two buckets and warms every bucket. After an error the
/// machine may hold a network that must not serve.
pub(super) fn load<M: Machine>(
    machine: &mut M,
    model: &LoadedModel,
    package: &Package,
) -> Result<LoadTiming, DeviceError> {
    let started = Instant::now();
    machine.load(model, package)?;
    let build = started.elapsed();
    let golden = check_golden(machine, model, package)?;
    let buckets = warm_up(machine, model)?;
    Ok(LoadTiming { build, golden, buckets })
}

/// Checks the golden and returns the time it took. If the golden has another input size than the
/// model, the check runs on a second network of the golden's size.
fn check_golden<M: Machine>(
    machine: &mut M,
    model: &LoadedModel,
    package: &Package,
) -> Result<Duration, DeviceError> {
    let started = Instant::now();
    let golden = package.golden().map_err(read_error(package))?;
    if golden.input == model.manifest().input {
        check_rows(machine, model, &golden)?;
    } else {
        let golden_model = model.with_golden_input(&golden.input);
        machine.load(&golden_model, package)?;
        let checked = check_rows(machine, &golden_model, &golden);
        machine.unload(golden_model.key());
        checked?;
    }
    Ok(started.elapsed())
}

/// Checks that each golden row alone gives the golden's output, and gives it again in a larger
/// bucket.
fn check_rows<M: Machine>(
    machine: &mut M,
    model: &LoadedModel,
    golden: &Golden,
) -> Result<(), DeviceError> {
    let bucket = model.smallest_bucket();
    let mut alone = Vec::new();
    for row in &golden.pictures {
        alone.push(machine.run_alone(model, row).map_err(trial_error(model, bucket))?);
    }
    let answers: Vec<Vec<&[f32]>> = alone.iter().map(RowOutput::slices).collect();
    golden.check(&answers).map_err(|source| DeviceError::Golden { model: model.id(), source })?;
    check_bucket(machine, model, &golden.pictures, &alone, |row, answer| {
        golden.check_row(row, &answer.slices())
    })
}

/// Runs `rows` again together in one bucket, with padding if a bucket is larger than their number.
/// Each output must pass `check_answer`, and must be near the output of the row `alone`.
fn check_bucket<M: Machine>(
    machine: &mut M,
    model: &LoadedModel,
    rows: &[RgbImage],
    alone: &[RowOutput],
    check_answer: impl Fn(usize, &RowOutput) -> Result<(), GoldenMismatch>,
) -> Result<(), DeviceError> {
    let with_padding = model.buckets().iter().copied().filter(|bucket| *bucket > rows.len()).min();
    let largest = model.buckets().iter().copied().max();
    let Some(bucket) = with_padding.or(largest) else { return Ok(()) };
    let count = rows.len().min(bucket);
    let together =
        machine.run_together(model, &rows[..count], bucket).map_err(trial_error(model, bucket))?;
    let checked =
        together.iter().enumerate().try_for_each(|(row, answer)| check_answer(row, answer));
    checked.map_err(|source| DeviceError::Golden { model: model.id(), source })?;
    let difference = alone.iter().zip(&together).map(|(a, b)| row_difference(a, b));
    let difference = difference.fold(0.0, f32::max);
    let limit = machine.bucket_tolerance(model.manifest().precision);
    if difference > limit {
        let model = model.id();
        return Err(DeviceError::BucketMismatch { model, bucket, difference, limit });
    }
    Ok(())
}

fn row_difference(a: &RowOutput, b: &RowOutput) -> f32 {
    let tensors = a.tensors.iter().zip(&b.tensors);
    tensors.map(|(a, b)| tensor_difference(a.expose(), b.expose())).fold(0.0, f32::max)
}

/// Returns the largest difference of two values, relative to the largest absolute value of `a` if
/// that is above 1.
fn tensor_difference(a: &[f32], b: &[f32]) -> f32 {
    let scale = a.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max)
}

/// Runs every bucket once and returns the time of each. After that no request pays for first
/// allocations and choices of algorithms.
fn warm_up<M: Machine>(
    machine: &mut M,
    model: &LoadedModel,
) -> Result<Vec<(usize, Duration)>, DeviceError> {
    let input = &model.manifest().input;
    let largest = model.buckets().iter().copied().max().unwrap_or(0);
    let black = || RgbImage::black(input.width, input.height);
    let rows: Vec<RgbImage> = std::iter::repeat_with(black).take(largest).collect();
    let mut buckets = model.buckets().to_vec();
    buckets.sort_unstable();
    let mut times = Vec::new();
    for bucket in buckets {
        let started = Instant::now();
        machine.run_together(model, &rows[..bucket], bucket).map_err(trial_error(model, bucket))?;
        times.push((bucket, started.elapsed()));
    }
    Ok(times)
}

fn read_error(package: &Package) -> impl FnOnce(ModelError) -> DeviceError {
    let model = package.id();
    move |source| DeviceError::Read { model, source: Box::new(source) }
}

fn trial_error(model: &LoadedModel, bucket: usize) -> impl FnOnce(DeviceError) -> DeviceError {
    let model = model.id();
    move |source| DeviceError::Trial { model, bucket, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::device::cpu::{CpuMachine, CpuSpec, RunNetwork};
    use crate::device::fixture::{TestNetworks, all_devices, grey, grey_network, manifest};
    use crate::engine::cpu::KernelChoice;
    use crate::model::ColourOrder;

    /// Returns a package of the repository, with two small buckets to be quick.
    fn package(model: &str) -> Package {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let mut package = Package::open(&models.join(model)).unwrap();
        package.manifest.buckets = vec![1, 3];
        package
    }

    fn machine(networks: &TestNetworks) -> CpuMachine {
        let (kernels, chosen) = (KernelChoice::Auto, "asked for".to_owned());
        let mut machine = CpuSpec { threads: 2, kernels, chosen }.open().unwrap().0;
        networks.insert_into(&mut machine);
        machine
    }

    fn load_alone(package: &Package) -> Result<(LoadedModel, LoadTiming), DeviceError> {
        let model = LoadedModel::new(1, package, all_devices(), Vec::new());
        let timing = load(&mut machine(&TestNetworks::default()), &model, package)?;
        Ok((model, timing))
    }

    #[test]
    fn a_model_becomes_live_when_its_golden_holds_and_its_buckets_are_warm() {
        let (_, timing) = load_alone(&package("fr_liveness/0.0.1")).unwrap();
        let buckets: Vec<usize> = timing.buckets.iter().map(|(bucket, _)| *bucket).collect();
        assert_eq!(buckets, [1, 3]);
    }

    #[test]
    fn a_golden_of_another_size_is_checked_on_a_network_of_that_size() {
        let mut package = package("yunet/2023mar");
        package.manifest.input = package.manifest.input.with_side(320).unwrap();
        assert_ne!(package.golden().unwrap().input, package.manifest.input);
        let (model, _) = load_alone(&package).unwrap();
        assert_eq!(model.manifest().input.width, 320);
    }

    #[test]
    fn a_model_fed_with_red_and_blue_exchanged_never_serves() {
        let mut package = package("fr_liveness/0.0.1");
        package.manifest.input.colour = ColourOrder::Rgb;
        let error = load_alone(&package).unwrap_err();
        assert!(matches!(error, DeviceError::Golden { .. }), "{error}");
    }

    #[test]
    fn a_model_whose_answer_depends_on_the_bucket_never_serves() {
        let rows = [grey(1), grey(2)];
        let by_batch = |input: &candle_core::Tensor| {
            let shift = if input.dims()[0] == 3 { 1e-3 } else { 0.0 };
            let outputs = grey_network(input)?.into_iter();
            outputs.map(|output| Ok(output.affine(1.0, shift)?)).collect()
        };
        let cases: [(RunNetwork, bool); 2] =
            [(Box::new(grey_network), true), (Box::new(by_batch), false)];
        for (run, is_live) in cases {
            let mut networks = TestNetworks::default();
            let model = networks.add(manifest("tiny", "1", &[1, 3]), all_devices(), run);
            let mut machine = machine(&networks);
            let alone: Vec<RowOutput> =
                rows.iter().map(|row| machine.run_alone(&model, row).unwrap()).collect();
            let checked = check_bucket(&mut machine, &model, &rows, &alone, |_, _| Ok(()));
            assert_eq!(checked.is_ok(), is_live, "{checked:?}");
        }
    }

    /// Returns a network that answers with the golden's outputs. In a bucket of 3, `shift` is
    /// added.
    fn golden_network(golden: &Golden, shift: f32) -> RunNetwork {
        let fed = |picture: &RgbImage| {
            let mut row = vec![0.0; golden.input.row_len()];
            golden.input.fill(picture, &mut row).unwrap();
            row
        };
        let fed: Vec<Vec<f32>> = golden.pictures.iter().map(fed).collect();
        let known = golden.outputs[0].rows.clone();
        Box::new(move |input| {
            let rows = input.flatten_from(1)?.to_vec2::<f32>()?;
            let shift = if rows.len() == 3 { shift } else { 0.0 };
            // A padding row matches no golden row; any output will do.
            let place = |row: &Vec<f32>| fed.iter().position(|fed| fed == row).unwrap_or(0);
            let answers = rows.iter().flat_map(|row| &known[place(row)]).map(|v| v + shift);
            let shape = (rows.len(), known[0].len());
            Ok(vec![candle_core::Tensor::from_vec(answers.collect(), shape, input.device())?])
        })
    }

    #[test]
    fn answers_in_a_bucket_must_hold_by_themselves_and_be_those_of_rows_alone() {
        let package = package("fr_liveness/0.0.1");
        let golden = package.golden().unwrap();
        let checked = |shift| {
            let mut networks = TestNetworks::default();
            let run = golden_network(&golden, shift);
            let model = networks.add(package.manifest.clone(), all_devices(), run);
            check_rows(&mut machine(&networks), &model, &golden)
        };
        checked(0.0).unwrap();
        let near = checked(1e-3).unwrap_err();
        assert!(matches!(near, DeviceError::BucketMismatch { bucket: 3, .. }), "{near}");
        let far = checked(1.0).unwrap_err();
        assert!(matches!(far, DeviceError::Golden { .. }), "{far}");
    }
}
