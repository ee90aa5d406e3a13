//! Folds affine operations into the convolutions after them, border values included.

use super::drop_dead;
use crate::constant::Constant;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{Conv, Op};
use crate::shape::element_count;

/// Maximum ratio of shift to scale. If the shift cancels against the input, folding moves the
/// cancellation into the sum over the taps. This sum then loses as many digits as the ratio has.
/// 1000 roundings of `f32` are 6e-5, and executors must agree within 1e-4.
const SHIFT_PER_SCALE_MAX: f32 = 1e3;

/// Folds each affine operation per channel into all its readers, if every reader is a convolution.
/// With `x × s + t` before the weight `W` and the border value `B`,
///
/// ```text
/// W (x × s + t) + b = (W s) x + (W t + b)     inside the image
/// W B           + b = (W s) B' + (W t + b)    where B' = (B - t) / s
/// ```
///
/// so that the affine operation would map the new border value `B'` to the old one. The operation
/// stays where a scale is 0 or tiny compared with its shift. It also stays if a node of another
/// kind or an output reads its result, since it must be computed in any case.
pub(super) fn fold_leading_affines(mut graph: Graph) -> Graph {
    // From the last to the first: once an affine is folded, the affine before it may have only
    // convolutions as readers.
    for at in (0..graph.nodes.len()).rev() {
        let Some(folded_readers) = folded_readers(&graph, at) else { continue };
        let affine_input = graph.nodes[at].inputs[0];
        for (reader, conv) in folded_readers {
            graph.nodes[reader].op = Op::Conv(conv);
            graph.nodes[reader].inputs[0] = affine_input;
        }
        graph.nodes.remove(at);
    }
    drop_dead(graph)
}

/// Returns the readers of the affine operation `at`, each with the operation folded into it.
/// Returns `None` if `at` cannot be folded into all of its readers.
fn folded_readers(graph: &Graph, at: usize) -> Option<Vec<(usize, Conv)>> {
    let affine_output = graph.nodes[at].output;
    let affine = ChannelAffine::of(graph, &graph.nodes[at])?;
    // Each folded affine moves readers to another value, so the index is of the graph as it is now.
    let uses = Uses::of(graph);
    if uses.is_output(affine_output) {
        return None;
    }
    let folded = |&reader: &usize| {
        let conv = convolution_of(&graph.nodes[reader], affine_output)?;
        Some((reader, affine.fold_into(conv)))
    };
    uses.readers(affine_output).iter().map(folded).collect()
}

/// Returns the convolution of `node` if it convolves `value` and does not add it as a residual.
fn convolution_of(node: &Node, value: ValueId) -> Option<&Conv> {
    let Op::Conv(conv) = &node.op else { return None };
    (!node.inputs[1..].contains(&value)).then_some(conv)
}

struct ChannelAffine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl ChannelAffine {
    /// Returns the scale and shift of an affine operation on an image, if they can be folded.
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let Op::Affine(affine) = &node.op else { return None };
        let [channels, _, _] = *graph.shape(node.output) else { return None };
        let scale = affine.scale.along(0, channels)?;
        let shift = affine.shift.along(0, channels)?;
        // A scale of 0 is never precise: the ratio is infinite or NaN.
        let is_precise = |(s, t): (&f32, &f32)| (t / s).abs() <= SHIFT_PER_SCALE_MAX;
        scale.iter().zip(&shift).all(is_precise).then_some(Self { scale, shift })
    }

    fn fold_into(&self, conv: &Conv) -> Conv {
        let channels = self.scale.len();
        let group_channels = channels / conv.groups;
        let group_outputs = conv.out_channels() / conv.groups;
        let taps = conv.taps();
        let mut weight = Vec::with_capacity(element_count(conv.weight.shape()));
        let mut bias = Vec::with_capacity(conv.out_channels());
        for (out, kernels) in conv.weight.data().chunks_exact(group_channels * taps).enumerate() {
            let first_channel = out / group_outputs * group_channels;
            let mut sum = conv.bias.as_ref().map_or(0.0, |bias| f64::from(bias.data()[out]));
            for (kernel, channel) in kernels.chunks_exact(taps).zip(first_channel..) {
                let total: f64 = kernel.iter().map(|&w| f64::from(w)).sum();
                sum += total * f64::from(self.shift[channel]);
                weight.extend(kernel.iter().map(|w| w * self.scale[channel]));
            }
            bias.push(sum as f32);
        }
        Conv {
            weight: Constant::new(conv.weight.shape().to_vec(), weight),
            bias: Some(Constant::new(vec![conv.out_channels()], bias)),
            border_values: self.border_values(conv),
            ..conv.clone()
        }
    }

    /// Returns `(B - t) / s`, or `None` if there is no border or all its values are 0.
    fn border_values(&self, conv: &Conv) -> Option<Constant> {
        let old =
            |channel: usize| conv.border_values.as_ref().map_or(0.0, |old| old.data()[channel]);
        let affine = self.scale.iter().zip(&self.shift).enumerate();
        let values: Vec<f32> = affine.map(|(channel, (s, t))| (old(channel) - t) / s).collect();
        let has_border = conv.window.pads != [0; 4] && values.iter().any(|&value| value != 0.0);
        has_border.then(|| Constant::new(vec![values.len()], values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        assert_close, floats, graph_of, input_info, int, ints, model, node, noise, run,
        run_on_noise,
    };
    use crate::onnx::{AttributeProto, NodeProto, TensorProto};
    use crate::passes::{fuse_convolutions, merge_affines};

    fn constants() -> Vec<TensorProto> {
        vec![
            floats("w", &[2, 2, 3, 3], &noise(1, 36)),
            floats("b", &[2], &[0.3, -0.4]),
            floats("depthwise", &[2, 1, 3, 3], &noise(2, 18)),
            floats("two each", &[4, 1, 3, 3], &noise(3, 36)),
            floats("pointwise", &[3, 2, 1, 1], &noise(4, 6)),
            floats("scales", &[2, 1, 1], &[1.5, -0.5]),
            floats("shifts", &[2, 1, 1], &[-2.0, 0.75]),
            floats("with zero", &[2, 1, 1], &[1.5, 0.0]),
            floats("tiny", &[2, 1, 1], &[1e-3, 1.0]),
            floats("columns", &[4], &[1.0, 2.0, 3.0, 4.0]),
            floats("slopes", &[2, 1, 1], &[0.25, 0.1]),
        ]
    }

    fn padded() -> AttributeProto {
        ints("pads", &[1, 1, 1, 1])
    }

    /// Computes `x × scales + shifts` and names the result `to`.
    fn affine_nodes(from: &str, to: &str) -> Vec<NodeProto> {
        let product = format!("{to} product");
        vec![
            node("Mul", &[from, "scales"], &product, &[]),
            node("Add", &[&product, "shifts"], to, &[]),
        ]
    }

    /// Checks that the pass keeps the results of `nodes`, and returns the graph after the pass.
    #[track_caller]
    fn check(nodes: Vec<NodeProto>, expected_counts: &[(&'static str, usize)]) -> Graph {
        let graph = graph_of(&model(13, &[1, 2, 5, 4], nodes, constants()));
        let graph = merge_affines(graph);
        let expected = run_on_noise(&graph, 2);
        let graph = fold_leading_affines(graph);
        assert_eq!(graph.op_counts().into_iter().collect::<Vec<_>>(), expected_counts);
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-5);
        graph
    }

    fn border_values(graph: &Graph) -> Vec<Option<Vec<f32>>> {
        let convs = graph.nodes.iter().filter_map(|node| match &node.op {
            Op::Conv(conv) => {
                Some(conv.border_values.as_ref().map(|values| values.data().to_vec()))
            }
            _ => None,
        });
        convs.collect()
    }

    #[test]
    fn under_a_border_the_affine_is_undone_in_the_border_values() {
        let mut nodes = affine_nodes("x", "a");
        nodes.push(node("Conv", &["a", "w", "b"], "y", &[padded()]));
        let graph = check(nodes, &[("Conv", 1)]);
        assert_eq!(border_values(&graph), [Some(vec![2.0 / 1.5, 1.5])]);
    }

    #[test]
    fn a_border_on_one_side_counts() {
        let mut nodes = affine_nodes("x", "a");
        let attributes = [ints("pads", &[0, 0, 1, 0]), ints("strides", &[2, 1])];
        nodes.push(node("Conv", &["a", "w"], "y", &attributes));
        let graph = check(nodes, &[("Conv", 1)]);
        assert_eq!(border_values(&graph), [Some(vec![2.0 / 1.5, 1.5])]);
    }

    #[test]
    fn without_a_border_there_are_no_border_values() {
        let mut nodes = affine_nodes("x", "a");
        nodes.push(node("Conv", &["a", "w"], "y", &[]));
        assert_eq!(border_values(&check(nodes, &[("Conv", 1)])), [None]);
    }

    #[test]
    fn without_a_shift_the_border_keeps_its_zeros() {
        let nodes = vec![
            node("Mul", &["x", "scales"], "a", &[]),
            node("Conv", &["a", "w", "b"], "y", &[padded()]),
        ];
        assert_eq!(border_values(&check(nodes, &[("Conv", 1)])), [None]);
    }

    #[test]
    fn groups_take_the_scales_of_their_own_channels() {
        for kernels in ["depthwise", "two each"] {
            let mut nodes = affine_nodes("x", "a");
            nodes.push(node("Conv", &["a", kernels], "y", &[padded(), int("group", 2)]));
            check(nodes, &[("Conv", 1)]);
        }
    }

    #[test]
    fn a_residual_block_keeps_reading_the_unscaled_value() {
        let mut nodes = affine_nodes("x", "a");
        nodes.extend([
            node("Conv", &["a", "w", "b"], "c1", &[padded()]),
            node("PRelu", &["c1", "slopes"], "p", &[]),
            node("Conv", &["p", "w"], "c2", &[padded()]),
            node("Add", &["c2", "x"], "y", &[]),
        ]);
        check(nodes, &[("Add", 1), ("Conv", 2), ("PRelu", 1)]);
    }

    #[test]
    fn an_affine_is_folded_into_every_convolution_that_reads_it() {
        let mut nodes = affine_nodes("x", "a");
        nodes.extend([
            node("Conv", &["a", "w", "b"], "c", &[padded()]),
            node("Conv", &["a", "depthwise"], "d", &[padded(), int("group", 2)]),
            node("Add", &["c", "d"], "y", &[]),
        ]);
        check(nodes, &[("Add", 1), ("Conv", 2)]);
    }

    #[test]
    fn an_affine_with_another_reader_stays() {
        let mut nodes = affine_nodes("x", "a");
        nodes.extend([
            node("Conv", &["a", "w"], "c", &[padded()]),
            node("Add", &["a", "c"], "y", &[]),
        ]);
        check(nodes, &[("Add", 1), ("Affine", 1), ("Conv", 1)]);
    }

    #[test]
    fn an_affine_that_is_the_residual_of_a_convolution_stays() {
        let mut nodes = affine_nodes("x", "a");
        nodes.extend([
            node("Conv", &["a", "w"], "c", &[padded()]),
            node("Add", &["a", "c"], "y", &[]),
        ]);
        let graph = graph_of(&model(13, &[1, 2, 5, 4], nodes, constants()));
        let graph = fuse_convolutions(merge_affines(graph));
        let counts = fold_leading_affines(graph).op_counts();
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("Affine", 1), ("Conv", 1)]);
    }

    #[test]
    fn an_affine_that_is_an_output_stays() {
        let mut nodes = affine_nodes("x", "y");
        nodes.push(node("Conv", &["y", "w"], "c", &[padded()]));
        let mut file = model(13, &[1, 2, 5, 4], nodes, constants());
        file.graph.as_mut().unwrap().output.push(input_info("c", &[]));
        let graph = merge_affines(graph_of(&file));
        let counts = fold_leading_affines(graph).op_counts();
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("Affine", 1), ("Conv", 1)]);
    }

    #[test]
    fn two_affines_in_sequence_are_both_folded() {
        let mut nodes = affine_nodes("x", "a");
        nodes.extend(affine_nodes("a", "again"));
        nodes.extend([
            node("Conv", &["a", "w"], "c", &[padded()]),
            node("Conv", &["again", "w"], "d", &[padded()]),
            node("Sub", &["c", "d"], "y", &[]),
        ]);
        let graph = check(nodes, &[("Conv", 2), ("Sub", 1)]);
        // The border values after both affines are ((0 - t) / s - t) / s, after one (0 - t) / s.
        let [once, twice] = [[2.0 / 1.5, 1.5], [(2.0 / 1.5 + 2.0) / 1.5, -1.5]].map(|b| b.to_vec());
        assert_eq!(border_values(&graph), [Some(once), Some(twice)]);
    }

    #[test]
    fn an_input_of_bytes_is_centred_and_scaled_inside_the_convolution() {
        let nodes = vec![
            node("Sub", &["x", "mean"], "a", &[]),
            node("Mul", &["a", "factor"], "b", &[]),
            node("Conv", &["b", "w"], "y", &[padded(), ints("strides", &[2, 2])]),
        ];
        let constants = vec![
            floats("mean", &[1], &[127.5]),
            floats("factor", &[1], &[0.007_812_5]),
            floats("w", &[4, 3, 3, 3], &noise(1, 108)),
        ];
        let graph = graph_of(&model(13, &[1, 3, 6, 8], nodes, constants));
        let graph = merge_affines(graph);
        let bytes: Vec<f32> =
            noise(2, 2 * 3 * 6 * 8).iter().map(|x| (x * 127.5 + 127.5).round()).collect();
        let expected = run(&graph, 2, &bytes);
        let graph = fold_leading_affines(graph);
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(border_values(&graph), [Some(vec![127.5; 3])]);
        assert_close(&run(&graph, 2, &bytes)[0], &expected[0], 1e-5);
    }

    #[test]
    fn an_affine_that_cannot_be_folded_precisely_stays() {
        for scales in ["with zero", "tiny"] {
            let nodes = vec![
                node("Mul", &["x", scales], "m", &[]),
                node("Add", &["m", "shifts"], "a", &[]),
                node("Conv", &["a", "pointwise"], "y", &[]),
            ];
            check(nodes, &[("Affine", 1), ("Conv", 1)]);
        }
    }

    #[test]
    fn an_affine_that_is_not_per_channel_stays() {
        let nodes = vec![
            node("Mul", &["x", "columns"], "a", &[]),
            node("Conv", &["a", "w"], "y", &[padded()]),
        ];
        check(nodes, &[("Affine", 1), ("Conv", 1)]);
    }
}
