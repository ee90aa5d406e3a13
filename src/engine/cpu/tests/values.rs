//! Values that exist in several layouts, and values that share one.

use super::{assert_as_reference, inputs, largest_errors, load, run, sets};
use crate::Precision;
use crate::fixtures::NetworkBuilder;
use crate::fixtures::{self, int, ints, string};
use crate::graph::Graph;

/// Checks `f32` on every set, and bfloat16, whose kernels read channels in pairs.
#[track_caller]
fn assert_in_every_precision(graph: &Graph, name: &str) {
    assert_as_reference(graph, 3, name);
    let input = inputs(graph, 3);
    let expected = fixtures::run(graph, 3, &input);
    for kernels in sets(Precision::Bf16) {
        let network = load(graph, kernels, Precision::Bf16, 1);
        let (_, cosine_error) = largest_errors(&run(&network, graph, 3, &input), &expected);
        assert!(cosine_error <= 1e-3, "{name}, {kernels}: {cosine_error:.1e}");
    }
}

fn convolution(
    draft: &mut NetworkBuilder,
    from: &str,
    to: &str,
    [out, channels, side]: [usize; 3],
) {
    let weight = format!("weight of {to}");
    draft.noise(
        &weight,
        &[out, channels, side, side],
        (3.0 / (channels * side * side) as f32).sqrt(),
    );
    draft.push("Conv", &[from, &weight], to, &[ints("pads", &[(side / 2) as i64; 4])]);
}

#[test]
fn an_output_may_be_the_input_or_another_output() {
    let mut draft = NetworkBuilder::default();
    convolution(&mut draft, "x", "y", [19, 3, 3]);
    draft.reshape("y", "flat", &[1, -1]);
    draft.push("Flatten", &["x"], "flat input", &[]);
    for (from, to) in [("x", "z"), ("y", "again"), ("flat", "flat again"), ("x", "z again")] {
        draft.push("Identity", &[from], to, &[]);
    }
    let outputs = ["z", "y", "flat", "again", "flat again", "flat input", "z again"];
    assert_in_every_precision(&draft.graph_with(&[3, 5, 4], &outputs), "outputs");
    for shape in [[7].as_slice(), &[3, 4], &[3, 4, 5], &[2, 3, 4, 5]] {
        let mut draft = NetworkBuilder::default();
        draft.push("Identity", &["x"], "y", &[]);
        assert_in_every_precision(&draft.graph(shape), "nothing but the input");
    }
}

#[test]
fn networks_of_vectors() {
    let mut draft = NetworkBuilder::default();
    draft.linear("x", "a", [33, 50]);
    draft.push("Relu", &["a"], "b", &[]);
    draft.linear("b", "c", [33, 33]);
    draft.push("Add", &["c", "a"], "d", &[]);
    draft.push("Concat", &["d", "x"], "e", &[int("axis", 1)]);
    draft.linear("e", "y", [5, 83]);
    assert_in_every_precision(&draft.graph_with(&[50], &["y", "a"]), "vectors");
    let mut draft = NetworkBuilder::default();
    draft.linear("x", "y", [1, 1]);
    assert_in_every_precision(&draft.graph(&[1]), "one number");
}

/// A vector becomes an image, and a convolution needs a border around it.
#[test]
fn a_vector_read_as_an_image_has_the_border_of_its_readers() {
    for channels in [5, 16, 48] {
        let mut draft = NetworkBuilder::default();
        draft.linear("x", "a", [channels, 7]);
        draft.reshape("a", "b", &[1, channels as i64, 1, 1]);
        convolution(&mut draft, "b", "y", [20, channels, 3]);
        let name = format!("{channels} channels");
        assert_in_every_precision(&draft.graph_with(&[7], &["y", "a"]), &name);
        let mut draft = NetworkBuilder::default();
        draft.push("GlobalAveragePool", &["x"], "a", &[]);
        draft.reshape("a", "b", &[1, channels as i64]);
        draft.push("Relu", &["b"], "c", &[]);
        draft.reshape("c", "d", &[1, channels as i64, 1, 1]);
        convolution(&mut draft, "d", "y", [20, channels, 5]);
        convolution(&mut draft, "a", "z", [3, channels, 3]);
        assert_in_every_precision(&draft.graph_with(&[channels, 3, 4], &["y", "z"]), &name);
    }
}

#[test]
fn one_image_is_read_with_several_borders() {
    let mut draft = NetworkBuilder::default();
    convolution(&mut draft, "x", "a", [19, 5, 1]);
    for part in ["scale", "bias", "mean"] {
        draft.noise(part, &[19], 0.5);
    }
    draft.numbers("variance", &[19], &[0.7; 19]);
    let parts = ["a", "scale", "bias", "mean", "variance"];
    draft.push("BatchNormalization", &parts, "normal", &[]);
    convolution(&mut draft, "normal", "b", [8, 19, 5]);
    convolution(&mut draft, "a", "c", [8, 19, 3]);
    convolution(&mut draft, "a", "d", [8, 19, 7]);
    draft.push("MaxPool", &["a"], "e", &[ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])]);
    for outputs in [["b", "c", "d", "e"], ["c", "b", "e", "d"], ["d", "e", "c", "a"]] {
        let graph = draft.clone().graph_with(&[5, 6, 7], &outputs);
        assert_in_every_precision(&graph, &outputs.concat());
    }
}

/// Lanes beyond the last channel must hold numbers, because bfloat16 kernels multiply one of them
/// by zero.
#[test]
fn lanes_beyond_the_last_channel_do_no_harm() {
    for channels in [5, 17, 31] {
        let mut draft = NetworkBuilder::default();
        draft.push("Abs", &["x"], "a", &[]);
        draft.push("Div", &["x", "a"], "b", &[]);
        convolution(&mut draft, "b", "y", [9, channels, 3]);
        let name = format!("a quotient of {channels} channels");
        assert_in_every_precision(&draft.graph(&[channels, 6, 5]), &name);
        let mut draft = NetworkBuilder::default();
        draft.numbers("lowest", &[], &[f32::MIN]);
        draft.longs("amounts", &[0, 0, 1, 1, 0, 0, 1, 1]);
        draft.push("Pad", &["x", "amounts", "lowest"], "a", &[]);
        draft.push("MaxPool", &["a"], "b", &[ints("kernel_shape", &[3, 3])]);
        convolution(&mut draft, "b", "y", [9, channels, 1]);
        assert_in_every_precision(&draft.graph(&[channels, 6, 5]), &format!("a pad of {channels}"));
    }
}

#[test]
fn channel_scales_and_upsamplings_with_and_without_a_sum() {
    for channels in [3, 16, 35] {
        for is_first in [false, true] {
            let mut draft = NetworkBuilder::default();
            convolution(&mut draft, "x", "a", [channels, 2, 3]);
            draft.push("GlobalAveragePool", &["a"], "mean", &[]);
            draft.push("Sigmoid", &["mean"], "gate", &[]);
            let factors = if is_first { ["gate", "a"] } else { ["a", "gate"] };
            draft.push("Mul", &factors, "b", &[]);
            draft.push("Add", &["b", "a"], "y", &[]);
            draft.push("Add", &["b", "b"], "z", &[]);
            let name = format!("{channels} {is_first}");
            for outputs in [["y", "a"], ["z", "y"], ["y", "b"], ["b", "z"]] {
                let graph = draft.clone().graph_with(&[2, 6, 4], &outputs);
                assert_in_every_precision(&graph, &name);
            }
        }
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [channels, 2, 3]);
        draft.push(
            "MaxPool",
            &["a"],
            "half",
            &[ints("kernel_shape", &[2, 3]), ints("strides", &[2, 3])],
        );
        draft.numbers("scales", &[4], &[1.0, 1.0, 2.0, 3.0]);
        let attributes = [
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        draft.push("Resize", &["half", "", "scales"], "b", &attributes);
        draft.push("Add", &["b", "a"], "y", &[]);
        draft.push("Add", &["b", "b"], "z", &[]);
        for outputs in [["y", "a"], ["z", "y"], ["y", "b"]] {
            let graph = draft.clone().graph_with(&[2, 6, 9], &outputs);
            assert_in_every_precision(&graph, &format!("{channels} enlarged"));
        }
    }
}

#[test]
fn channels_last_in_and_out() {
    let mut draft = NetworkBuilder::default();
    draft.push("Transpose", &["x"], "a", &[ints("perm", &[0, 3, 1, 2])]);
    convolution(&mut draft, "a", "b", [21, 3, 3]);
    draft.push("Transpose", &["b"], "y", &[ints("perm", &[0, 2, 3, 1])]);
    draft.push("GlobalAveragePool", &["a"], "mean", &[]);
    for outputs in [["y", "b"], ["b", "y"], ["y", "a"], ["mean", "y"]] {
        let graph = draft.clone().graph_with(&[7, 6, 3], &outputs);
        assert_in_every_precision(&graph, &outputs.concat());
    }
}

/// Such operations run as in the reference.
#[test]
fn operations_without_a_kernel_run_between_others() {
    let mut draft = NetworkBuilder::default();
    convolution(&mut draft, "x", "a", [6, 3, 3]);
    draft.push("Softmax", &["a"], "b", &[int("axis", 1)]);
    draft.noise("dilated", &[9, 6, 3, 3], 0.2);
    let attributes = [ints("pads", &[2; 4]), ints("dilations", &[2, 2])];
    draft.push("Conv", &["b", "dilated"], "c", &attributes);
    draft.noise("grouped", &[6, 3, 3, 3], 0.2);
    convolution(&mut draft, "c", "d", [6, 9, 3]);
    draft.push("Conv", &["d", "grouped"], "e", &[int("group", 2)]);
    draft.push("ReduceMax", &["e"], "y", &[ints("axes", &[2, 3]), int("keepdims", 0)]);
    assert_in_every_precision(&draft.graph_with(&[3, 8, 7], &["y", "b"]), "fallbacks");
}
