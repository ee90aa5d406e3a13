//! Tests the networks of this repository.

use super::{gpu, gpu_with};
use crate::Precision;
use crate::cuda::Gpu;
use crate::fixtures::{self, inputs, largest_errors, network_of};

const ITEMS: usize = 2;

/// `min` and `max` are the range of the inputs.
fn assert_equals_reference(file: &str, [min, max]: [f32; 2]) {
    let graph = network_of(file);
    let noise = inputs(&graph, ITEMS);
    let input: Vec<f32> = noise.iter().map(|x| min + (x + 1.0) / 2.0 * (max - min)).collect();
    let expected = fixtures::run(&graph, ITEMS, &input);
    for without_cudnn in [false, true] {
        let gpu = if without_cudnn { gpu_with(Gpu::without_cudnn) } else { gpu() };
        for (precision, cosine_distance_max) in [(Precision::F32, 1e-6), (Precision::F16, 1e-3)] {
            let network = gpu.load(&graph, precision, &[1, ITEMS]);
            let (_, cosine_distance) =
                largest_errors(&gpu.run(&graph, &network, &input), &expected);
            assert!(
                cosine_distance <= cosine_distance_max,
                "{file} in {precision}: {cosine_distance:.1e}"
            );
        }
    }
}

#[test]
fn gpu_yunet_runs_as_in_the_reference() {
    assert_equals_reference("yunet/2023mar/face_detection_yunet_2023mar_int8bq.onnx", [0.0, 255.0]);
}

#[test]
fn gpu_sface_runs_as_in_the_reference() {
    assert_equals_reference(
        "sface/2021dec/face_recognition_sface_2021dec_int8bq.onnx",
        [0.0, 255.0],
    );
}

#[test]
fn gpu_facemesh_runs_as_in_the_reference() {
    assert_equals_reference("facemesh/3.3.6/facemesh.onnx", [0.0, 1.0]);
}

#[test]
fn gpu_iris_runs_as_in_the_reference() {
    assert_equals_reference("iris/3.3.6/iris.onnx", [0.0, 1.0]);
}

#[test]
fn gpu_fr_liveness_runs_as_in_the_reference() {
    assert_equals_reference("fr_liveness/0.0.1/fr_liveness.onnx", [0.0, 255.0]);
}
