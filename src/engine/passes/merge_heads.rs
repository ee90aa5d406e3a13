//! Merges small convolutions that read the same image.

use super::drop_dead;
use crate::constant::Constant;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{Conv, Op, Window};

/// Channels that a CPU kernel computes at once, even if a convolution has fewer.
const KERNEL_CHANNELS: usize = 16;

/// Merges sibling heads of a detector into a single convolution; each head then reads its slice of
/// the channels. A head is a convolution to a few channels, perhaps with depthwise convolutions
/// behind it. Siblings read the same image.
///
/// Only heads whose results are only reshaped or transposed are merged. A convolution cannot read
/// some channels of an image without a copy.
pub(super) fn merge_heads(mut graph: Graph) -> Graph {
    while let Some(heads) = mergeable_heads(&graph) {
        graph = merge(graph, &heads);
    }
    graph
}

/// Indices of nodes: a convolution of all channels, then the depthwise convolutions behind it.
type Head = Vec<usize>;

/// Returns the head that starts with node `at`.
fn head(graph: &Graph, uses: &Uses, at: usize) -> Option<Head> {
    let first = plain_convolution(&graph.nodes[at])?;
    let mut head = vec![at];
    let mut last = graph.nodes[at].output;
    while let Some(next) = uses.sole_reader(last)
        && plain_convolution(&graph.nodes[next]).is_some_and(is_per_channel)
    {
        head.push(next);
        last = graph.nodes[next].output;
    }
    let is_reshaped =
        |&at: &usize| matches!(graph.nodes[at].op, Op::Reshape | Op::Transpose { .. });
    (first.groups == 1 && uses.readers(last).iter().all(is_reshaped)).then_some(head)
}

/// Returns the convolution of a node without residual, activation and border values.
fn plain_convolution(node: &Node) -> Option<&Conv> {
    match &node.op {
        Op::Conv(conv) if conv.activation.is_none() && conv.border_values.is_none() => {
            (node.inputs.len() == 1).then_some(conv)
        }
        _ => None,
    }
}

/// Returns true for depthwise convolutions, also those of a single channel.
fn is_per_channel(conv: &Conv) -> bool {
    conv.groups == conv.out_channels() && conv.group_channels() == 1
}

/// Returns heads that read the same value with equal windows, if they need fewer blocks of
/// [`KERNEL_CHANNELS`] together than apart.
fn mergeable_heads(graph: &Graph) -> Option<Vec<Head>> {
    let uses = Uses::of(graph);
    let mut candidates: Vec<Vec<Head>> = Vec::new();
    for head in (0..graph.nodes.len()).filter_map(|at| head(graph, &uses, at)) {
        let key = merge_key(graph, &head);
        match candidates.iter_mut().find(|heads| merge_key(graph, &heads[0]) == key) {
            Some(heads) => heads.push(head),
            None => candidates.push(vec![head]),
        }
    }
    candidates.into_iter().find(|heads| {
        let channels = heads.iter().map(|head| conv(graph, head[0]).out_channels());
        let together = channels.clone().sum::<usize>().div_ceil(KERNEL_CHANNELS);
        together < channels.map(|channels| channels.div_ceil(KERNEL_CHANNELS)).sum()
    })
}

/// Returns the value that a head reads, and windows and dilations of its convolutions.
fn merge_key(graph: &Graph, head: &Head) -> (ValueId, Vec<(Window, [usize; 2])>) {
    let windows = head.iter().map(|&at| (conv(graph, at).window, conv(graph, at).dilations));
    (graph.nodes[head[0]].inputs[0], windows.collect())
}

fn conv(graph: &Graph, at: usize) -> &Conv {
    match &graph.nodes[at].op {
        Op::Conv(conv) => conv,
        _ => unreachable!("a head is made of convolutions"),
    }
}

fn merge(mut graph: Graph, heads: &[Head]) -> Graph {
    let mut value = graph.nodes[heads[0][0]].inputs[0];
    let mut merged = Vec::new();
    for position in 0..heads[0].len() {
        let parallel_nodes: Vec<usize> = heads.iter().map(|head| head[position]).collect();
        let (mut conv, output) = add_merged_convolution(&mut graph, &parallel_nodes);
        conv.groups = if position == 0 { 1 } else { conv.out_channels() };
        merged.push(Node { op: Op::Conv(conv), inputs: vec![value], output });
        value = output;
    }
    let mut start = 0;
    for head in heads {
        let last = head[head.len() - 1];
        let channels = conv(&graph, last).out_channels();
        graph.nodes[last].op = Op::Slice { axis: 0, start, step: 1 };
        graph.nodes[last].inputs = vec![value];
        start += channels;
    }
    // Heads are in the order of the nodes. At the first head, the common input is already computed
    // and no head's result has been read yet.
    let first = heads[0][0];
    graph.nodes.splice(first..first, merged);
    drop_dead(graph)
}

/// Concatenates the output channels of `nodes`. Returns the convolution and the value for its
/// result.
fn add_merged_convolution(graph: &mut Graph, nodes: &[usize]) -> (Conv, ValueId) {
    let convs: Vec<&Conv> = nodes.iter().map(|&at| conv(graph, at)).collect();
    let channels = convs.iter().map(|conv| conv.out_channels()).sum();
    let mut shape = convs[0].weight.shape().to_vec();
    shape[0] = channels;
    let weight = convs.iter().flat_map(|conv| conv.weight.data()).copied().collect();
    let bias = convs.iter().flat_map(|conv| match &conv.bias {
        Some(bias) => bias.data().to_vec(),
        None => vec![0.0; conv.out_channels()],
    });
    let bias = Some(Constant::new(vec![channels], bias.collect()));
    let merged = Conv { weight: Constant::new(shape, weight), bias, ..convs[0].clone() };
    let first = graph.value(graph.nodes[nodes[0]].output);
    let name = format!("{} and {} more", first.name, nodes.len() - 1);
    let shape = [&[channels], &first.shape[1..]].concat();
    (merged, graph.add_value(name, shape))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fixtures::{NetworkBuilder, int, ints, noise, relative_difference, run};
    use crate::passes::fuse_convolutions;

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
        let merged = merge_heads(fuse_convolutions(graph));
        let found = run(&merged, 2, &input);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(relative_difference(found, expected) <= 1e-6);
        }
        merged.op_counts()
    }

    #[test]
    fn heads_merge_into_one_convolution_and_each_reads_a_slice() {
        let merged = BTreeMap::from([("Conv", 3), ("Slice", 4), ("Transpose", 4)]);
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
