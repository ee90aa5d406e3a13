//! Steps in bands of rows give the same bits as steps on whole images.

use super::{BandPolicy, KernelChoice, Policy, inputs, load_with, run, sets_for_seed};
use crate::Precision;
use crate::fixtures::NetworkBuilder;
use crate::fixtures::{int, ints};
use crate::graph::Graph;

use super::shapes::Shape;

const NONE: Policy = Policy {
    bands: BandPolicy { image_bytes_min: usize::MAX, kept_bytes_max: 0 },
    ..Policy::DEFAULT
};

/// Bands of a few rows, and bands that hold the whole image.
const BANDS: [BandPolicy; 3] = [
    BandPolicy { image_bytes_min: 0, kept_bytes_max: 12 << 10 },
    BandPolicy { image_bytes_min: 0, kept_bytes_max: 40 << 10 },
    BandPolicy { image_bytes_min: 0, kept_bytes_max: usize::MAX },
];

/// The beginning of a detector. It has every step that can run in bands, with strides, uneven
/// borders, a residual and numbers of channels that do not fill a block.
fn detector_beginning(sides: [usize; 2]) -> Graph {
    let mut draft = NetworkBuilder::default();
    let shape = |channels, out, kernel, stride, pads| Shape {
        channels,
        sides,
        out,
        kernel: [kernel; 2],
        strides: [stride; 2],
        pads,
    };
    draft.convolution("x", "a", &shape(3, 20, 3, 2, [1; 4]), 1);
    draft.push("Relu", &["a"], "b", &[]);
    draft.convolution("b", "c", &shape(20, 12, 1, 1, [0; 4]), 1);
    draft.convolution("c", "d", &shape(12, 12, 3, 1, [1; 4]), 12);
    draft.noise("slopes", &[12, 1, 1], 0.3);
    draft.push("PRelu", &["d", "slopes"], "e", &[]);
    let pool = [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1; 4])];
    draft.push("MaxPool", &["e"], "f", &pool);
    // `f` is read twice, so a chain ends there and the next one begins.
    draft.convolution("f", "g", &shape(12, 40, 1, 1, [0; 4]), 1);
    draft.convolution("g", "h", &shape(40, 40, 5, 1, [2; 4]), 40);
    draft.convolution("h", "i", &shape(40, 12, 3, 1, [0, 1, 2, 1]), 1);
    draft.push("Add", &["i", "f"], "j", &[]);
    draft.convolution("j", "k", &shape(12, 12, 3, 2, [0, 0, 1, 1]), 12);
    draft.push("MaxPool", &["k"], "y", &[ints("kernel_shape", &[2, 2])]);
    draft.graph(&[3, sides[0], sides[1]])
}

/// A network with a border that is not zero: the batch norm before the second convolution is folded
/// into that convolution.
fn bordered() -> Graph {
    let mut draft = NetworkBuilder::default();
    let pads = |pad: i64| [ints("pads", &[pad; 4])];
    draft.noise("first", &[18, 3, 3, 3], 0.3);
    draft.push("Conv", &["x", "first"], "a", &pads(1));
    draft.push("Relu", &["a"], "b", &[]);
    for (name, number) in [("scale", 0.9), ("shift", 0.4), ("mean", 0.2), ("variance", 1.2)] {
        draft.numbers(name, &[18], &[number; 18]);
    }
    draft.push("BatchNormalization", &["b", "scale", "shift", "mean", "variance"], "c", &[]);
    draft.noise("second", &[18, 1, 3, 3], 0.3);
    draft.push("Conv", &["c", "second"], "d", &[ints("pads", &[1; 4]), int("group", 18)]);
    draft.noise("third", &[10, 18, 1, 1], 0.3);
    draft.push("Conv", &["d", "third"], "y", &[]);
    draft.graph(&[3, 21, 9])
}

#[test]
fn bands_give_the_same_bits_as_whole_images() {
    let mut graphs: Vec<Graph> =
        [[64, 24], [41, 33], [23, 50]].into_iter().map(detector_beginning).collect();
    graphs.push(bordered());
    for (seed, graph) in graphs.iter().enumerate() {
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_for_seed(precision, seed as u64) {
                let input = inputs(graph, 3);
                let apart = load_with(graph, kernels, precision, 1, &NONE);
                let expected = run(&apart, graph, 3, &input);
                for (bands, threads) in BANDS.iter().flat_map(|bands| [(bands, 1), (bands, 2)]) {
                    let policy = Policy { bands: *bands, ..Policy::DEFAULT };
                    let network = load_with(graph, kernels, precision, threads, &policy);
                    let count = network.steps().filter(|(_, name)| *name == "bands").count();
                    // AMX has its own kernels for dense convolutions, which do not run in bands.
                    let least = usize::from(kernels != KernelChoice::Amx);
                    assert!(count >= least, "graph {seed}, {kernels}: {count} of {bands:?}");
                    for items in [3, 1] {
                        let input = &input[..input.len() / 3 * items];
                        let found = run(&network, graph, items, input);
                        let (found, expected) = (&found[0], &expected[0]);
                        assert_eq!(found.len(), expected.len() / 3 * items);
                        assert!(
                            found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                            "graph {seed}, {kernels} for {precision}, {items} items, {bands:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn small_images_and_images_read_twice_are_not_in_bands() {
    let graph = detector_beginning([64, 24]);
    let network =
        |policy: &Policy| load_with(&graph, KernelChoice::Portable, Precision::F32, 1, policy);
    let bands = |policy: &Policy| -> Vec<String> {
        let network = network(policy);
        let bands = network.steps().filter(|(_, name)| *name == "bands");
        bands.map(|(label, _)| label.to_owned()).collect()
    };
    assert!(bands(&Policy::DEFAULT).is_empty(), "images of some kilobytes");
    let all = Policy { bands: BANDS[2], ..Policy::DEFAULT };
    assert_eq!(
        bands(&all),
        ["Conv 3×3/2 3→20 @64×24 … MaxPool 3×3", "Conv 1×1/1 12→40 @16×6 … MaxPool 2×2",]
    );
    assert!(bands(&NONE).is_empty());
}
