//! Convolutions and activations of every shape.

use super::{KernelChoice, assert_as_reference, load};
use crate::Precision;
use crate::fixtures::NetworkBuilder;
use crate::fixtures::{Lcg, float, int, ints};
use crate::graph::Graph;

/// One convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) sides: [usize; 2],
    pub(super) out: usize,
    pub(super) kernel: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) pads: [usize; 4],
}

impl Shape {
    /// Returns a 3×3 convolution with a border of one.
    fn winograd(channels: usize, out: usize, sides: [usize; 2]) -> Self {
        Self { channels, sides, out, kernel: [3, 3], strides: [1, 1], pads: [1; 4] }
    }

    pub(super) fn fits(&self) -> bool {
        let [top, left, bottom, right] = self.pads;
        self.sides[0] + top + bottom >= self.kernel[0]
            && self.sides[1] + left + right >= self.kernel[1]
    }
}

impl NetworkBuilder {
    pub(super) fn convolution(&mut self, from: &str, to: &str, shape: &Shape, groups: usize) {
        let Shape { channels, out, kernel, strides, pads, .. } = *shape;
        let of_group = channels / groups;
        let scale = (3.0 / (of_group * kernel[0] * kernel[1]) as f32).sqrt();
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{part} of {to}"));
        self.noise(&weight, &[out, of_group, kernel[0], kernel[1]], scale);
        self.noise(&bias, &[out], 0.3);
        let attributes = [
            ints("strides", &strides.map(|stride| stride as i64)),
            ints("pads", &pads.map(|pad| pad as i64)),
            int("group", groups as i64),
        ];
        self.push("Conv", &[from, &weight, &bias], to, &attributes);
    }
}

/// Returns a pointwise convolution followed by the given one, which so reads a blocked image.
fn after_pointwise(shape: &Shape, groups: usize) -> Graph {
    let mut draft = NetworkBuilder::default();
    let Shape { channels, .. } = *shape;
    let pointwise =
        Shape { out: channels, kernel: [1, 1], strides: [1, 1], pads: [0; 4], ..*shape };
    draft.convolution("x", "a", &pointwise, 1);
    draft.convolution("a", "y", shape, groups);
    draft.graph(&[channels, shape.sides[0], shape.sides[1]])
}

fn has_step(graph: &Graph, algorithm: &str) -> bool {
    let network = load(graph, KernelChoice::Portable, Precision::F32, 1);
    network.steps().any(|(_, found)| found == algorithm)
}

/// Returns a shape with sides from 1 to 12, kernels from 1 to 7 and uneven borders smaller than the
/// kernel.
pub(super) fn any_shape(random: &mut Lcg) -> Shape {
    let one_to = |random: &mut Lcg, most: usize| 1 + random.below(most);
    let kernel = [one_to(random, 7), one_to(random, 7)];
    let stride = random.pick(&[1, 1, 2]);
    Shape {
        channels: one_to(random, 70),
        sides: [one_to(random, 12), one_to(random, 12)],
        out: one_to(random, 70),
        kernel,
        strides: [stride; 2],
        pads: [0, 1, 0, 1].map(|axis| random.below(kernel[axis])),
    }
}

#[test]
fn dense_convolutions_of_any_shape() {
    let mut random = Lcg::new(1);
    let shapes: Vec<Shape> = (0..200).map(|_| any_shape(&mut random)).filter(Shape::fits).collect();
    assert!(shapes.len() > 100);
    for shape in shapes {
        assert_as_reference(&after_pointwise(&shape, 1), 2, &format!("{shape:?}"));
    }
}

#[test]
fn planar_convolutions_of_any_shape() {
    let mut random = Lcg::new(2);
    for _ in 0..100 {
        let shape = Shape { channels: 1 + random.below(4), ..any_shape(&mut random) };
        // With one pixel of output, the convolution is a matrix product.
        if !shape.fits() || shape.kernel == shape.sides {
            continue;
        }
        let mut draft = NetworkBuilder::default();
        draft.convolution("x", "y", &shape, 1);
        let graph = draft.graph(&[shape.channels, shape.sides[0], shape.sides[1]]);
        assert!(has_step(&graph, "planar"), "{shape:?}");
        assert_as_reference(&graph, 2, &format!("{shape:?}"));
    }
}

#[test]
fn depthwise_convolutions_of_any_shape() {
    let mut random = Lcg::new(3);
    for _ in 0..200 {
        let shape = any_shape(&mut random);
        let channels = shape.channels.max(2);
        let strides = [1 + random.below(3), 1 + random.below(3)];
        let shape = Shape { channels, out: channels, strides, ..shape };
        if shape.fits() {
            let graph = after_pointwise(&shape, channels);
            assert!(has_step(&graph, "depthwise"), "{shape:?}");
            assert_as_reference(&graph, 2, &format!("{shape:?}"));
        }
    }
}

/// Images just above and just below the fewest pixels for Winograd's algorithm, in extreme shapes.
#[test]
fn winograd_begins_where_it_pays() {
    for (sides, is_winograd) in [
        ([4, 10], true),
        ([1, 40], true),
        ([40, 1], true),
        ([5, 8], true),
        ([1, 41], true),
        ([1, 39], false),
        ([39, 1], false),
        ([3, 13], false),
        ([6, 6], false),
    ] {
        let graph = after_pointwise(&Shape::winograd(32, 32, sides), 1);
        assert_eq!(has_step(&graph, "winograd"), is_winograd, "{sides:?}");
        assert_as_reference(&graph, 2, &format!("{sides:?}"));
        for [channels, out] in [[31, 32], [32, 31]] {
            let graph = after_pointwise(&Shape::winograd(channels, out, sides), 1);
            assert!(!has_step(&graph, "winograd"));
        }
    }
}

#[test]
fn winograd_of_any_sides_and_channels() {
    for height in 1..=20 {
        let width = (7 * height) % 20 + 1;
        let (channels, out) = (32 + (11 * height) % 39, 32 + (17 * height) % 39);
        for sides in [[height, width], [width + 20, height]] {
            let shape = Shape::winograd(channels, out, sides);
            assert_as_reference(&after_pointwise(&shape, 1), 2, &format!("{shape:?}"));
        }
    }
}

/// Enough tiles for several passes, with numbers of blocks for which kernel sets use different
/// passes.
#[test]
fn winograd_in_several_passes() {
    for (channels, sides) in [(64, [20, 24]), (112, [20, 21]), (48, [33, 35])] {
        let shape = Shape::winograd(channels, channels, sides);
        let graph = after_pointwise(&shape, 1);
        assert!(has_step(&graph, "winograd"));
        assert_as_reference(&graph, 1, &format!("{shape:?}"));
    }
}

const ACTIVATIONS: [&str; 10] = [
    "Relu",
    "PRelu",
    "LeakyRelu",
    "Sigmoid",
    "Clip",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Exp",
    "Abs",
];

fn push_activation(
    draft: &mut NetworkBuilder,
    activation: &str,
    channels: usize,
    from: &str,
    to: &str,
) {
    let name = |part: &str| format!("{part} of {to}");
    let mut inputs = vec![from.to_owned()];
    let mut attributes = Vec::new();
    match activation {
        "PRelu" => {
            inputs.push(name("slopes"));
            draft.noise(&name("slopes"), &[channels, 1, 1], 0.5);
        }
        "Clip" => {
            draft.numbers(&name("min"), &[], &[-0.25]);
            draft.numbers(&name("max"), &[], &[0.5]);
            inputs.extend([name("min"), name("max")]);
        }
        "LeakyRelu" => attributes.push(float("alpha", 0.1)),
        "HardSigmoid" => attributes.extend([float("alpha", 0.3), float("beta", 0.4)]),
        _ => {}
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    draft.push(activation, &inputs, to, &attributes);
}

#[test]
fn every_activation_behind_every_convolution_and_residual() {
    let dense = Shape { kernel: [3, 2], pads: [1, 0, 1, 1], ..Shape::winograd(37, 37, [6, 7]) };
    let vector = Shape { kernel: [6, 7], pads: [0; 4], ..dense };
    let cases = [(dense, 1), (Shape::winograd(37, 37, [6, 7]), 1), (dense, 37), (vector, 1)];
    for activation in ACTIVATIONS {
        for (shape, groups) in cases {
            for has_residual in [false, true] {
                let mut draft = NetworkBuilder::default();
                draft.convolution("x", "a", &Shape { kernel: [1, 1], pads: [0; 4], ..dense }, 1);
                draft.convolution("a", "b", &shape, groups);
                let last = if has_residual {
                    draft.convolution("a", "c", &shape, groups);
                    draft.push("Add", &["c", "b"], "sum", &[]);
                    "sum"
                } else {
                    "b"
                };
                push_activation(&mut draft, activation, 37, last, "y");
                let name = format!("{activation} {shape:?} {groups} {has_residual}");
                assert_as_reference(&draft.graph(&[37, 6, 7]), 2, &name);
            }
        }
    }
}

#[test]
fn every_activation_alone() {
    for activation in ACTIVATIONS {
        for input in [[19, 3, 5], [32, 1, 1]] {
            let mut draft = NetworkBuilder::default();
            push_activation(&mut draft, activation, input[0], "x", "y");
            assert_as_reference(&draft.graph(&input), 3, activation);
        }
        let mut draft = NetworkBuilder::default();
        push_activation(
            &mut draft,
            if activation == "PRelu" { "Abs" } else { activation },
            1,
            "x",
            "a",
        );
        draft.push("Sqrt", &["x"], "b", &[]);
        draft.push("Exp", &["a"], "y", &[]);
        assert_as_reference(&draft.graph(&[4, 9]), 3, activation);
    }
}

#[test]
fn pools_with_and_without_borders() {
    let mut random = Lcg::new(4);
    for _ in 0..60 {
        let kernel = [1 + random.below(4), 1 + random.below(4)];
        let pads = [0, 1, 0, 1].map(|axis| random.below(kernel[axis]));
        let shape = Shape { kernel, pads, ..any_shape(&mut random) };
        if !shape.fits() {
            continue;
        }
        for (op, counts_border) in [("MaxPool", 0), ("AveragePool", 0), ("AveragePool", 1)] {
            let mut attributes = vec![
                ints("kernel_shape", &kernel.map(|size| size as i64)),
                ints("strides", &shape.strides.map(|stride| stride as i64)),
                ints("pads", &pads.map(|pad| pad as i64)),
            ];
            if op == "AveragePool" {
                attributes.push(int("count_include_pad", counts_border));
            }
            let mut draft = NetworkBuilder::default();
            draft.push(op, &["x"], "y", &attributes);
            let graph = draft.graph(&[shape.channels, shape.sides[0], shape.sides[1]]);
            assert_as_reference(&graph, 2, &format!("{op} {shape:?}"));
        }
    }
}

/// The heads of a detector are merged: channels of one image go to separate outputs.
#[test]
fn merged_heads_read_their_channels_of_one_image() {
    let mut draft = NetworkBuilder::default();
    let sides = [7, 5];
    let shape = |channels, out, kernel, pad| Shape {
        channels,
        sides,
        out,
        kernel: [kernel; 2],
        strides: [1, 1],
        pads: [pad; 4],
    };
    draft.convolution("x", "v", &shape(3, 20, 3, 1), 1);
    for (at, channels) in [1, 4, 9, 10].into_iter().enumerate() {
        let [a, b] = ["a", "b"].map(|name| format!("{name}{at}"));
        draft.convolution("v", &a, &shape(20, channels, 1, 0), 1);
        draft.convolution(&a, &b, &shape(channels, channels, 3, 1), channels);
        match at {
            0 => draft.push("Flatten", &[&b], &format!("y{at}"), &[]),
            _ => draft.push("Transpose", &[&b], &format!("y{at}"), &[ints("perm", &[0, 2, 3, 1])]),
        }
    }
    let graph = draft.graph_with(&[3, 7, 5], &["y0", "y1", "y2", "y3"]);
    let network = load(&graph, KernelChoice::Portable, Precision::F32, 1);
    assert_eq!(network.steps().filter(|(label, _)| label.starts_with("Conv")).count(), 3);
    assert!(network.steps().all(|(_, algorithm)| algorithm != "reference"));
    assert_as_reference(&graph, 3, "heads");
}
