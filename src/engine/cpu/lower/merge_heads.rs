//! Merges small convolutions that read the same image.

use crate::constant::Constant;
use crate::cpu::lanes::LANES;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{Conv, Op, Window};
use crate::passes::drop_dead;

/// Merges sibling heads of a detector into a single convolution; each head then reads its slice of
/// the channels. A head is a convolution to a few channels, perhaps with depthwise convolutions
/// after it. Siblings read the same image. The kernels compute [`LANES`] channels at once, even if
/// a convolution has fewer.
///
/// Only heads whose results are only reshaped or transposed are merged. A convolution cannot read
/// some channels of an image without a copy.
pub(super) fn merge_heads(mut graph: Graph) -> Graph {
    while let Some(heads) = mergeable_heads(&graph) {
        graph = merge(&graph, &heads);
    }
    graph
}

/// A convolution of all channels, then the depthwise convolutions after it.
type Head<'g> = Vec<ConvNode<'g>>;

/// A convolution and the index of its node.
#[derive(Clone, Copy)]
struct ConvNode<'g> {
    at: usize,
    conv: &'g Conv,
}

impl<'g> ConvNode<'g> {
    /// Returns node `at` if it is a convolution without residual, activation and border values.
    fn plain(graph: &'g Graph, at: usize) -> Option<Self> {
        let node = &graph.nodes[at];
        match &node.op {
            Op::Conv(conv) if conv.activation.is_none() && conv.border_values.is_none() => {
                (node.inputs.len() == 1).then_some(Self { at, conv })
            }
            _ => None,
        }
    }

    /// Returns true for depthwise convolutions, also those of a single channel.
    fn is_per_channel(self) -> bool {
        self.conv.groups == self.conv.out_channels() && self.conv.group_channels() == 1
    }
}

/// Returns the head that starts with node `at`.
fn head<'g>(graph: &'g Graph, uses: &Uses, at: usize) -> Option<Head<'g>> {
    let first = ConvNode::plain(graph, at)?;
    let mut head = vec![first];
    let mut last = graph.nodes[at].output;
    while let Some(reader) = uses.sole_reader(last)
        && let Some(next) = ConvNode::plain(graph, reader)
        && next.is_per_channel()
    {
        head.push(next);
        last = graph.nodes[reader].output;
    }
    let is_reshaped =
        |&at: &usize| matches!(graph.nodes[at].op, Op::Reshape | Op::Transpose { .. });
    (first.conv.groups == 1 && uses.readers(last).iter().all(is_reshaped)).then_some(head)
}

/// Returns heads that read the same value with equal windows, if they need fewer blocks of
/// [`LANES`] channels together than apart.
fn mergeable_heads(graph: &Graph) -> Option<Vec<Head<'_>>> {
    let uses = Uses::of(graph);
    let mut candidates: Vec<Vec<Head<'_>>> = Vec::new();
    for head in (0..graph.nodes.len()).filter_map(|at| head(graph, &uses, at)) {
        let key = merge_key(graph, &head);
        match candidates.iter_mut().find(|heads| merge_key(graph, &heads[0]) == key) {
            Some(heads) => heads.push(head),
            None => candidates.push(vec![head]),
        }
    }
    candidates.into_iter().find(|heads| {
        let channels = heads.iter().map(|head| head[0].conv.out_channels());
        let together = channels.clone().sum::<usize>().div_ceil(LANES);
        together < channels.map(|channels| channels.div_ceil(LANES)).sum()
    })
}

/// Returns the value that a head reads, and windows and dilations of its convolutions.
fn merge_key(graph: &Graph, head: &Head<'_>) -> (ValueId, Vec<(Window, [usize; 2])>) {
    let windows = head.iter().map(|node| (node.conv.window, node.conv.dilations));
    (graph.nodes[head[0].at].inputs[0], windows.collect())
}

fn merge(graph: &Graph, heads: &[Head<'_>]) -> Graph {
    // Heads are in the order of the nodes. At the first head, the common input is already computed
    // and no head's result has been read yet.
    let first = heads[0][0].at;
    let mut value = graph.nodes[first].inputs[0];
    let mut result = graph.clone();
    let mut merged = Vec::new();
    for position in 0..heads[0].len() {
        let siblings: Vec<ConvNode<'_>> = heads.iter().map(|head| head[position]).collect();
        let mut conv = concatenate(&siblings);
        conv.groups = if position == 0 { 1 } else { conv.out_channels() };
        let sibling = graph.value(graph.nodes[siblings[0].at].output);
        let name = format!("{} and {} more", sibling.name, siblings.len() - 1);
        let shape = [&[conv.out_channels()], &sibling.shape[1..]].concat();
        let output = result.add_value(name, shape);
        merged.push(Node { op: Op::Conv(conv), inputs: vec![value], output });
        value = output;
    }
    let mut start = 0;
    for head in heads {
        let last = head[head.len() - 1];
        result.nodes[last.at].op = Op::Slice { axis: 0, start, step: 1 };
        result.nodes[last.at].inputs = vec![value];
        start += last.conv.out_channels();
    }
    result.nodes.splice(first..first, merged);
    drop_dead(result)
}

/// Returns a convolution with the output channels of all siblings, one sibling after another.
fn concatenate(siblings: &[ConvNode<'_>]) -> Conv {
    let convs = siblings.iter().map(|node| node.conv);
    let channels = convs.clone().map(Conv::out_channels).sum();
    let mut shape = siblings[0].conv.weight.shape().to_vec();
    shape[0] = channels;
    let weight = convs.clone().flat_map(|conv| conv.weight.data()).copied().collect();
    let bias = convs.flat_map(|conv| match &conv.bias {
        Some(bias) => bias.data().to_vec(),
        None => vec![0.0; conv.out_channels()],
    });
    let bias = Some(Constant::new(vec![channels], bias.collect()));
    Conv { weight: Constant::new(shape, weight), bias, ..siblings[0].conv.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fixtures::{NetworkBuilder, int, ints, noise, relative_difference, run};
    use crate::optimise;

    /// Returns a graph in which an image `v` of 20 channels has one head for each number in
    /// `channels`. If `is_deep`, a depthwise convolution follows each head. The operator `then`
    /// reads each result.
    fn heads(channels: &[usize], is_deep: bool, then: &str) -> Graph {
        let mut network = NetworkBuilder::default();
        network.noise("w", &[20, 3, 3, 3], 0.1);
        network.push("Conv", &["x", "w"], "v", &[ints("pads", &[1; 4])]);
        let mut outputs = Vec::new();
        for (at, &channels) in channels.iter().enumerate() {
            let name = |what: &str| format!("{what} {at}");
            let [weight, bias, result, output] = ["weight", "bias", "result", "output"].map(name);
            network.noise(&weight, &[channels, 20, 1, 1], 0.1);
            network.noise(&bias, &[channels], 0.1);
            let inputs = if at == 0 { vec!["v", &weight] } else { vec!["v", &weight, &bias] };
            network.push("Conv", &inputs, &result, &[]);
            let mut last = result;
            if is_deep {
                let [weight, result] = ["depthwise weight", "depthwise result"].map(name);
                network.noise(&weight, &[channels, 1, 3, 3], 0.1);
                let attributes = [ints("pads", &[1; 4]), int("group", channels as i64)];
                network.push("Conv", &[&last, &weight], &result, &attributes);
                last = result;
            }
            match then {
                "Transpose" => {
                    network.push("Transpose", &[&last], &output, &[ints("perm", &[0, 2, 3, 1])]);
                }
                "Flatten" => network.push("Flatten", &[&last], &output, &[]),
                then => network.push(then, &[&last], &output, &[]),
            }
            outputs.push(output);
        }
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        network.imported_graph(&[3, 6, 5], &outputs)
    }

    /// Merges the heads, checks that the results stay the same, and counts the operations.
    fn counts(graph: Graph) -> BTreeMap<&'static str, usize> {
        let input = noise(1, 2 * 3 * 6 * 5);
        let expected = run(&graph, 2, &input);
        let merged = merge_heads(optimise(graph));
        let found = run(&merged, 2, &input);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(relative_difference(found, expected) <= 1e-6);
        }
        merged.op_counts()
    }

    #[test]
    fn heads_merge_into_one_convolution_and_each_reads_a_slice() {
        // A transpose of one channel only moves an axis of size 1, and became a reshape.
        let merged = BTreeMap::from([("Conv", 3), ("Reshape", 2), ("Slice", 4), ("Transpose", 2)]);
        assert_eq!(counts(heads(&[1, 4, 1, 10], true, "Transpose")), merged);
        let merged = BTreeMap::from([("Conv", 2), ("Slice", 3), ("Reshape", 3)]);
        assert_eq!(counts(heads(&[2, 9, 3], false, "Flatten")), merged);
    }

    #[test]
    fn heads_that_fill_their_kernels_or_are_not_reshaped_stay() {
        let full = BTreeMap::from([("Conv", 3), ("Reshape", 2)]);
        assert_eq!(counts(heads(&[16, 32], false, "Flatten")), full);
        let one = BTreeMap::from([("Conv", 3), ("Reshape", 1)]);
        assert_eq!(counts(heads(&[4], true, "Flatten")), one);
        // The activations were fused into the convolutions, which are then no heads.
        let activated = BTreeMap::from([("Conv", 3)]);
        assert_eq!(counts(heads(&[4, 4], false, "Relu")), activated);
    }
}
