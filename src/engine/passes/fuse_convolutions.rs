//! Fuses residuals and activations into the convolutions before them.

use super::drop_dead;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{BinaryOp, Op};

/// Fuses into each convolution the residual that is added to its result, then the activation after
/// it. The value between two fused nodes must have no other reader. A convolution adds the bias,
/// then the residual, and then applies the activation.
pub(super) fn fuse_convolutions(mut graph: Graph) -> Graph {
    let uses = Uses::of(&graph);
    for at in 0..graph.nodes.len() {
        if let Some(fused) = fused(&graph, &uses, at) {
            // The fused node takes the position of the later node: there the residual is already
            // computed. The convolution's own result had no other reader.
            graph.nodes[at] = fused;
        }
    }
    drop_dead(graph)
}

/// Returns node `at` fused with the convolution before it, if it can be fused.
fn fused(graph: &Graph, uses: &Uses, at: usize) -> Option<Node> {
    let node = &graph.nodes[at];
    // If two convolutions are added, the result of the earlier one becomes the residual of the
    // later one.
    let mut candidates: Vec<usize> =
        node.inputs.iter().filter_map(|&input| uses.sole_producer(input)).collect();
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    candidates.into_iter().find_map(|producer| {
        let conv_node = &graph.nodes[producer];
        let Op::Conv(conv) = &conv_node.op else { return None };
        let is_plain = conv.activation.is_none();
        match &node.op {
            Op::Activation(activation) if is_plain => {
                let mut conv = conv.clone();
                conv.activation = Some(activation.clone());
                let inputs = conv_node.inputs.clone();
                Some(Node { op: Op::Conv(conv), inputs, output: node.output })
            }
            Op::Binary(BinaryOp::Add) if is_plain && conv_node.inputs.len() == 1 => {
                let residual = other_operand(&node.inputs, conv_node.output)?;
                let same_shape = graph.shape(residual) == graph.shape(conv_node.output);
                let inputs = vec![conv_node.inputs[0], residual];
                let op = Op::Conv(conv.clone());
                same_shape.then_some(Node { op, inputs, output: node.output })
            }
            _ => None,
        }
    })
}

fn other_operand(pair: &[ValueId], one: ValueId) -> Option<ValueId> {
    match *pair {
        [a, b] if a == one => Some(b),
        [a, b] if b == one => Some(a),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_close, floats, graph_of, ints, model, node, noise, run_on_noise};
    use crate::onnx::NodeProto;

    fn conv(from: &str, to: &str) -> NodeProto {
        node("Conv", &[from, "w", "b"], to, &[ints("pads", &[1, 1, 1, 1])])
    }

    fn check(nodes: Vec<NodeProto>, expected_counts: &[(&'static str, usize)]) {
        let constants = vec![
            floats("w", &[2, 2, 3, 3], &noise(1, 36)),
            floats("b", &[2], &[0.3, -0.4]),
            floats("slopes", &[2, 1, 1], &[0.5, -0.25]),
        ];
        let graph = graph_of(&model(13, &[1, 2, 4, 4], nodes, constants));
        let expected = run_on_noise(&graph, 2);
        let graph = fuse_convolutions(graph);
        assert_eq!(graph.op_counts().into_iter().collect::<Vec<_>>(), expected_counts);
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-5);
    }

    #[test]
    fn residual_and_activation_become_part_of_the_convolution() {
        let nodes = vec![
            conv("x", "c"),
            node("Add", &["x", "c"], "s", &[]),
            node("PRelu", &["s", "slopes"], "y", &[]),
        ];
        check(nodes, &[("Conv", 1)]);
    }

    #[test]
    fn of_two_added_convolutions_one_becomes_the_residual_of_the_other() {
        let nodes = vec![conv("x", "c"), conv("x", "d"), node("Add", &["c", "d"], "y", &[])];
        check(nodes, &[("Conv", 2)]);
    }

    #[test]
    fn a_residual_after_the_activation_is_not_fused() {
        let nodes = vec![
            conv("x", "c"),
            node("Relu", &["c"], "r", &[]),
            node("Add", &["r", "x"], "y", &[]),
        ];
        check(nodes, &[("Add", 1), ("Conv", 1)]);
    }

    #[test]
    fn a_value_with_another_reader_is_not_fused_away() {
        let nodes = vec![
            conv("x", "c"),
            node("Relu", &["c"], "r", &[]),
            node("Mul", &["r", "c"], "y", &[]),
        ];
        check(nodes, &[("Conv", 1), ("Mul", 1), ("Relu", 1)]);
    }

    #[test]
    fn a_convolution_added_to_itself_is_not_its_own_residual() {
        let nodes = vec![conv("x", "c"), node("Add", &["c", "c"], "y", &[])];
        check(nodes, &[("Add", 1), ("Conv", 1)]);
    }

    #[test]
    fn a_broadcast_sum_is_not_a_residual() {
        let nodes = vec![
            node("GlobalAveragePool", &["x"], "p", &[]),
            conv("x", "c"),
            node("Add", &["c", "p"], "y", &[]),
        ];
        check(nodes, &[("Add", 1), ("Conv", 1), ("GlobalAveragePool", 1)]);
    }
}
