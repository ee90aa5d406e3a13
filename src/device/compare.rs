//! Compares the outputs of any ONNX network with a recording of them.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use thiserror::Error;

use super::DeviceSettings;
use crate::engine::cpu::ThreadTeam;
use crate::engine::{EngineError, ImportError, Network, Precision, import, optimise};

/// Batch sizes that every row is run in. The odd ones are in no manifest.
const BATCH_SIZES: [usize; 5] = [1, 2, 3, 5, 8];

/// The differences between one output and the recorded one.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputComparison {
    pub tensor: String,
    /// Largest difference, relative to the range of the recorded output (largest minus smallest
    /// value).
    pub error: f64,
    /// Largest cosine distance (1 − cosine) between the values of a row and the recorded ones.
    pub cosine_distance: f64,
    /// Largest difference, relative to the same range, between a row alone and in any batch.
    pub batch_difference: f64,
}

/// Why a comparison could not be made.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The recording is not a safetensors file.
    #[error("the recording is not a safetensors file")]
    Recording(#[from] safetensors::SafeTensorError),
    /// The recording has no such tensor, or the tensor has no rows.
    #[error("the recording has no usable tensor {0}")]
    Tensor(String),
    /// The network could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The network failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The operating system could not start a thread.
    #[error("the threads could not be started")]
    Threads(#[from] std::io::Error),
    /// A tensor could not be built.
    #[error("a tensor could not be built")]
    Candle(#[from] candle_core::Error),
}

/// Runs an ONNX network on the CPU over the recorded tensor `input` (`f32` or `u8`, rows first).
/// Compares every output with the recorded tensor `output.<tensor>`, alone and in batches.
///
/// # Errors
/// Returns an error if the recording cannot be read, or if the network is refused or fails. A
/// difference is not an error.
pub fn compare(
    onnx: Bytes,
    recording: &[u8],
    settings: &DeviceSettings,
) -> Result<Vec<OutputComparison>, CompareError> {
    let recording = SafeTensors::deserialize(recording)?;
    let input = read_recorded(&recording, "input")?;
    let row_shape = &input.dims()[1..];
    let graph = optimise(import(onnx, Some(row_shape))?);
    let precision = settings.precision.unwrap_or(Precision::F32);
    let team = Arc::new(ThreadTeam::new(settings.threads().get())?);
    let network = Network::cpu(&graph, settings.kernels, precision, team)?;
    let alone = run_in_batches(&network, &input, 1)?;
    let mut comparisons = Vec::new();
    for (name, alone) in network.output_names().zip(&alone) {
        let expected = values_by_row(&read_recorded(&recording, &format!("output.{name}"))?)?;
        let range = range(&expected);
        comparisons.push(OutputComparison {
            tensor: name.to_owned(),
            error: largest_difference(alone, &expected) / range,
            cosine_distance: largest_cosine_distance(alone, &expected),
            batch_difference: 0.0,
        });
    }
    for batch_size in BATCH_SIZES {
        for (index, batched) in run_in_batches(&network, &input, batch_size)?.iter().enumerate() {
            let range = range(&alone[index]);
            let difference = largest_difference(batched, &alone[index]) / range;
            let worst = &mut comparisons[index].batch_difference;
            *worst = worst.max(difference);
        }
    }
    Ok(comparisons)
}

type OutputValues = Vec<Vec<f32>>;

fn read_recorded(recording: &SafeTensors<'_>, name: &str) -> Result<Tensor, CompareError> {
    let missing = || CompareError::Tensor(name.to_owned());
    let view = recording.tensor(name).map_err(|_| missing())?;
    let dtype = match view.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::U8 => DType::U8,
        _ => return Err(missing()),
    };
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    if tensor.elem_count() == 0 || tensor.rank() < 2 {
        return Err(missing());
    }
    Ok(tensor.to_dtype(DType::F32)?)
}

/// Runs every row of `input` in a batch of `size` with the rows beside it. Returns the values of
/// each row, per output.
fn run_in_batches(
    network: &Network,
    input: &Tensor,
    size: usize,
) -> Result<Vec<OutputValues>, CompareError> {
    let count = input.dims()[0];
    let mut answers = vec![OutputValues::new(); network.output_names().count()];
    for row in 0..count {
        // The row takes another position in each batch, so that no position is special. Its
        // neighbours are the rows beside it; the index wraps around.
        let own = row % size;
        let members: Result<Vec<Tensor>, _> = (0..size)
            .map(|place| input.narrow(0, (row + place + count * size - own) % count, 1))
            .collect();
        let outputs = network.run(&Tensor::cat(&members?, 0)?)?;
        for (answer, output) in answers.iter_mut().zip(outputs) {
            answer.push(output.narrow(0, own, 1)?.flatten_all()?.to_vec1()?);
        }
    }
    Ok(answers)
}

fn values_by_row(tensor: &Tensor) -> Result<OutputValues, CompareError> {
    Ok(tensor.flatten_from(1)?.to_vec2()?)
}

fn range(output: &OutputValues) -> f64 {
    let values = || output.iter().flatten().copied();
    let (least, most) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::MIN, f32::max));
    (f64::from(most) - f64::from(least)).max(f64::MIN_POSITIVE)
}

/// Returns the largest difference: infinite if shapes differ or a value is NaN or infinite.
fn largest_difference(a: &OutputValues, b: &OutputValues) -> f64 {
    let lengths = |output: &OutputValues| output.iter().map(Vec::len).collect::<Vec<_>>();
    if lengths(a) != lengths(b) {
        return f64::INFINITY;
    }
    let differences = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| f64::from(a - b));
    differences.fold(0.0, |worst: f64, difference| {
        if difference.is_finite() { worst.max(difference.abs()) } else { f64::INFINITY }
    })
}

fn largest_cosine_distance(a: &OutputValues, b: &OutputValues) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let distance =
        |(a, b): (&Vec<f32>, &Vec<f32>)| 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    a.iter().zip(b).map(distance).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_range_and_nan_is_infinitely_far() {
        let a = vec![vec![0.0, 10.0], vec![5.0, 5.0]];
        let b = vec![vec![0.0, 10.0], vec![5.0, 6.0]];
        assert_eq!(largest_difference(&a, &b) / range(&a), 0.1);
        assert_eq!(largest_difference(&a, &vec![vec![0.0, 10.0]]), f64::INFINITY);
        assert_eq!(largest_difference(&vec![vec![f32::NAN]], &vec![vec![1.0]]), f64::INFINITY);
    }

    #[test]
    fn a_recording_that_is_none_is_refused() {
        assert!(matches!(
            compare(Bytes::new(), b"junk", &DeviceSettings::default()),
            Err(CompareError::Recording(_))
        ));
    }
}
