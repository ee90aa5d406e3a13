//! Merges chains of affine operations.

use super::drop_dead;
use crate::graph::{Graph, Uses};
use crate::op::{Affine, Op};

/// Replaces `(x × a + b) × c + d` by `x × ac + (bc + d)` if the value between has no other reader.
pub(super) fn merge_affines(mut graph: Graph) -> Graph {
    let uses = Uses::of(&graph);
    for at in 0..graph.nodes.len() {
        let Op::Affine(second) = &graph.nodes[at].op else { continue };
        let source = graph.nodes[at].inputs[0];
        let Some(producer) = uses.sole_producer(source) else { continue };
        let Op::Affine(first) = &graph.nodes[producer].op else { continue };
        let merged = Affine {
            scale: first.scale.zip(&second.scale, |a, c| a * c),
            shift: first.shift.zip(&second.scale, |b, c| b * c).zip(&second.shift, |b, d| b + d),
        };
        graph.nodes[at].op = Op::Affine(merged);
        graph.nodes[at].inputs[0] = graph.nodes[producer].inputs[0];
    }
    drop_dead(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_close, floats, graph_of, model, node, run_on_noise};

    fn constants() -> Vec<crate::onnx::TensorProto> {
        vec![
            floats("one", &[], &[0.4]),
            floats("channels", &[2, 1, 1], &[2.0, -3.0]),
            floats("columns", &[3], &[0.5, 1.5, -1.0]),
        ]
    }

    #[test]
    fn a_chain_of_arithmetic_becomes_one_operation_and_computes_the_same() {
        let nodes = vec![
            node("Sub", &["x", "one"], "a", &[]),
            node("Mul", &["a", "channels"], "b", &[]),
            node("Sub", &["columns", "b"], "c", &[]),
            node("Div", &["c", "channels"], "y", &[]),
        ];
        let graph = graph_of(&model(13, &[1, 2, 2, 3], nodes, constants()));
        let expected = run_on_noise(&graph, 2);
        let graph = merge_affines(graph);
        assert_eq!(graph.nodes.len(), 1);
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-6);
    }

    #[test]
    fn an_affine_with_another_reader_is_not_merged() {
        let nodes = vec![
            node("Sub", &["x", "one"], "a", &[]),
            node("Mul", &["a", "channels"], "b", &[]),
            node("Add", &["a", "b"], "y", &[]),
        ];
        let graph = graph_of(&model(13, &[1, 2, 2, 3], nodes, constants()));
        assert_eq!(merge_affines(graph).nodes.len(), 3);
    }
}
