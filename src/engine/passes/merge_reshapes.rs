//! Merges chains of reshapes.

use super::drop_dead;
use crate::graph::{Graph, Uses};
use crate::op::Op;

/// Lets a reshape of a reshape read the input of the first one.
pub(super) fn merge_reshapes(mut graph: Graph) -> Graph {
    let uses = Uses::of(&graph);
    for at in 0..graph.nodes.len() {
        if !matches!(graph.nodes[at].op, Op::Reshape) {
            continue;
        }
        // Earlier reshapes are merged already, so the input is the start of the chain.
        let source = graph.nodes[at].inputs[0];
        if let Some(first) = uses.producer(source)
            && matches!(graph.nodes[first].op, Op::Reshape)
        {
            graph.nodes[at].inputs[0] = graph.nodes[first].inputs[0];
        }
    }
    drop_dead(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{graph_of, ints, model, node, run_on_noise};

    #[test]
    fn a_chain_of_reshapes_becomes_one_and_computes_the_same() {
        let nodes = vec![
            node("Flatten", &["x"], "a", &[]),
            node("Unsqueeze", &["a"], "b", &[ints("axes", &[1])]),
            node("Unsqueeze", &["b"], "y", &[ints("axes", &[3])]),
        ];
        let graph = graph_of(&model(9, &[1, 2, 3], nodes, Vec::new()));
        let expected = run_on_noise(&graph, 2);
        let graph = merge_reshapes(graph);
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(graph.outputs()[0].shape, [1, 6, 1]);
        assert_eq!(run_on_noise(&graph, 2), expected);
    }
}
