//! Networks that are captured once and replayed.

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::cuda_backend::cudarc::driver::sys;

use super::gpu;
use crate::Precision;
use crate::cuda::{PictureHeader, PixelFormat, free_bytes};
use crate::fixtures::{self, float, graph_of, model, node};
use crate::fixtures::{inputs, relative_difference};

/// A graph whose input is an image of six pixels.
fn graph() -> crate::graph::Graph {
    let nodes = vec![node("LeakyRelu", &["x"], "y", &[float("alpha", 0.25)])];
    graph_of(&model(16, &[1, 3, 2, 3], nodes, Vec::new()))
}

const FORMAT: PixelFormat = PixelFormat {
    width: 3,
    height: 2,
    is_channels_last: false,
    source: [2, 1, 0],
    mean: [10.0, 20.0, 30.0],
    scale: [1.0, 0.5, 2.0],
};

/// Width and height of two pictures: one that fills the input, and one of two pixels side by side.
const PICTURES: [(u32, u32); 2] = [(3, 2), (2, 1)];

/// Returns the upload of the pictures, and the values of the network's input.
fn pictures() -> (Vec<u8>, Vec<f32>) {
    let mut start = (PICTURES.len() * PictureHeader::BYTES) as u32;
    let mut table = Vec::new();
    let mut pixels = Vec::new();
    let mut input = Vec::new();
    for (width, height) in PICTURES {
        table.extend(PictureHeader { start, width, height }.bytes());
        let bytes = width * height * 3;
        let byte = |offset: u32| (start + offset) as u8;
        pixels.extend((0..bytes).map(byte));
        for (channel, source) in FORMAT.source.into_iter().enumerate() {
            for (y, x) in (0..2).flat_map(|y| (0..3).map(move |x| (y, x))) {
                let offset = (y * width + x) * 3 + source as u32;
                let pixel = if x < width && y < height { byte(offset) } else { 0 };
                input.push((f32::from(pixel) - FORMAT.mean[channel]) * FORMAT.scale[channel]);
            }
        }
        start += bytes;
    }
    ([table, pixels].concat(), input)
}

#[test]
fn gpu_pixels_become_the_input_and_a_replayed_graph_computes_what_steps_do() {
    let (gpu, graph) = (gpu(), graph());
    let stream = gpu.gpu.stream();
    let (pictures, input) = pictures();
    for precision in [Precision::F32, Precision::F16] {
        let network = gpu.load(&graph, precision, &[2]);
        let expected = fixtures::run(&graph, 2, &input);
        let uploaded = stream.clone_htod(&pictures).unwrap();
        let address = uploaded.device_ptr(stream).0;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).unwrap();
        network.enqueue_steps(2).unwrap();
        let captured = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
        for _ in 0..2 {
            network.enqueue_pictures(2, address, 2, &FORMAT).unwrap();
            captured.launch().unwrap();
            let found = stream.clone_dtoh(network.results()).unwrap();
            stream.synchronize().unwrap();
            assert!(relative_difference(&found, &expected[0]) < 1e-3, "{found:?}");
        }
    }
}

#[test]
fn gpu_memory_of_a_dropped_network_is_freed() {
    let (gpu, graph) = (gpu(), fixtures::random_optimised_graph(3));
    let context = gpu.gpu.stream().context();
    let free = || {
        gpu.gpu.stream().synchronize().unwrap();
        free_bytes(context).unwrap()
    };
    let network = gpu.load(&graph, Precision::F32, &[2]);
    let held = network.memory_bytes();
    gpu.run(&graph, &network, &inputs(&graph, 2));
    drop(network);
    let before = free();
    for _ in 0..20 {
        drop(gpu.run(&graph, &gpu.load(&graph, Precision::F32, &[2]), &inputs(&graph, 2)));
    }
    // The driver may allocate memory for itself.
    let leaked = before.saturating_sub(free());
    assert!(leaked < held, "{leaked} bytes were not freed, a network holds {held}");
}
