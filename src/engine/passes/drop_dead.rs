//! Drops nodes and values that no output needs.

use crate::graph::{Graph, Node, Output, ValueId};

/// Drops the nodes that no output depends on, and the values of no node. The input stays.
pub(crate) fn drop_dead(graph: Graph) -> Graph {
    let mut is_needed = vec![false; graph.value_count()];
    for id in graph.output_ids() {
        is_needed[id.0] = true;
    }
    for node in graph.nodes.iter().rev() {
        if is_needed[node.output.0] {
            node.inputs.iter().for_each(|input| is_needed[input.0] = true);
        }
    }
    is_needed[graph.input.0] = true;
    let nodes = graph.nodes.into_iter().filter(|node| is_needed[node.output.0]);

    let mut new_ids = vec![ValueId(0); is_needed.len()];
    let mut values = Vec::new();
    for (old, value) in graph.values.into_iter().enumerate().filter(|&(old, _)| is_needed[old]) {
        new_ids[old] = ValueId(values.len());
        values.push(value);
    }
    let new_id = |id: ValueId| new_ids[id.0];
    let nodes = nodes
        .map(|Node { op, inputs, output }| {
            let inputs = inputs.into_iter().map(new_id).collect();
            Node { op, inputs, output: new_id(output) }
        })
        .collect();
    let outputs = graph.outputs.into_iter();
    let outputs = outputs.map(|Output { name, value }| Output { name, value: new_id(value) });
    Graph { values, nodes, input: new_id(graph.input), outputs: outputs.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{graph_of, model, node, run_on_noise};

    #[test]
    fn nodes_that_no_output_needs_are_dropped_and_the_rest_computes_the_same() {
        let nodes = vec![
            node("Relu", &["x"], "a", &[]),
            node("Sigmoid", &["a"], "dead", &[]),
            node("Tanh", &["dead"], "dead too", &[]),
            node("Exp", &["a"], "y", &[]),
        ];
        let graph = graph_of(&model(13, &[1, 4], nodes, Vec::new()));
        let expected = run_on_noise(&graph, 2);
        let graph = drop_dead(graph);
        assert_eq!((graph.nodes.len(), graph.value_count()), (2, 3));
        assert_eq!(run_on_noise(&graph, 2), expected);
    }

    #[test]
    fn the_input_stays_even_when_it_is_the_output() {
        let graph =
            graph_of(&model(13, &[1, 4], vec![node("Identity", &["x"], "y", &[])], Vec::new()));
        assert_eq!(run_on_noise(&drop_dead(graph.clone()), 1), run_on_noise(&graph, 1));
    }
}
