//! Tests with the networks of this repository.

use super::{COSINE_ERROR_MAX, DIFFERENCE_MAX, load, run, sets};
use crate::Precision;
use crate::fixtures::{self, inputs, largest_errors, network_of};

/// Two items, one for each thread.
const ITEMS: usize = 2;

/// Largest `1 - cosine` in bfloat16. The inputs are noise, on which no network was trained.
const COSINE_ERROR_MAX_BF16: f64 = 2e-3;

/// Compares a network with the reference on noise in `range`.
fn assert_as_the_reference(file: &str, range: [f32; 2]) {
    let graph = network_of(file);
    let [min, max] = range;
    let noise = inputs(&graph, ITEMS);
    let input: Vec<f32> = noise.iter().map(|x| min + (x + 1.0) / 2.0 * (max - min)).collect();
    let expected = fixtures::run(&graph, ITEMS, &input);
    for precision in [Precision::F32, Precision::Bf16] {
        for kernels in sets(precision) {
            let network = load(&graph, kernels, precision, 2);
            let slow: Vec<_> =
                network.steps().filter(|&(_, algorithm)| algorithm == "reference").collect();
            assert!(slow.is_empty(), "{file}: {slow:?}");
            let found = run(&network, &graph, ITEMS, &input);
            let (difference, cosine_error) = largest_errors(&found, &expected);
            let is_close = match precision {
                Precision::F32 => difference <= DIFFERENCE_MAX && cosine_error <= COSINE_ERROR_MAX,
                _ => cosine_error <= COSINE_ERROR_MAX_BF16,
            };
            assert!(
                is_close,
                "{file}, {kernels} for {precision}: {difference:.1e}, {cosine_error:.1e}"
            );
        }
    }
}

#[test]
fn yunet_runs_as_in_the_reference() {
    assert_as_the_reference("yunet/2023mar/face_detection_yunet_2023mar_int8bq.onnx", [0.0, 255.0]);
}

#[test]
fn sface_runs_as_in_the_reference() {
    assert_as_the_reference(
        "sface/2021dec/face_recognition_sface_2021dec_int8bq.onnx",
        [0.0, 255.0],
    );
}

#[test]
fn facemesh_runs_as_in_the_reference() {
    assert_as_the_reference("facemesh/3.3.6/facemesh.onnx", [0.0, 1.0]);
}

#[test]
fn iris_runs_as_in_the_reference() {
    assert_as_the_reference("iris/3.3.6/iris.onnx", [0.0, 1.0]);
}

#[test]
fn fr_liveness_runs_as_in_the_reference() {
    assert_as_the_reference("fr_liveness/0.0.1/fr_liveness.onnx", [0.0, 255.0]);
}
