//! The use-def index of a graph.

use super::{Graph, ValueId};

/// The producer and the readers of each value of a graph. Nodes are indices into
/// [`Graph::nodes`].
pub(crate) struct Uses {
    /// The node that computes each value; `None` for the input.
    producers: Vec<Option<usize>>,
    /// The nodes that read each value, ascending.
    readers: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl Uses {
    pub fn of(graph: &Graph) -> Self {
        let mut uses = Self {
            producers: vec![None; graph.value_count()],
            readers: vec![Vec::new(); graph.value_count()],
            is_output: vec![false; graph.value_count()],
        };
        for (at, node) in graph.nodes.iter().enumerate() {
            uses.producers[node.output.0] = Some(at);
            for input in &node.inputs {
                uses.readers[input.0].push(at);
            }
        }
        for output in graph.output_ids() {
            uses.is_output[output.0] = true;
        }
        uses
    }

    /// Returns the node that computes `value`, or `None` for the input.
    pub fn producer(&self, value: ValueId) -> Option<usize> {
        self.producers[value.0]
    }

    /// Returns the nodes that read `value`, ascending. A node that reads it twice is there twice.
    pub fn readers(&self, value: ValueId) -> &[usize] {
        &self.readers[value.0]
    }

    /// Returns whether `value` is an output of the network.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.is_output[value.0]
    }

    /// Returns the node that reads `value`, if it is the only reader, reads `value` once, and
    /// `value` is no output.
    pub fn sole_reader(&self, value: ValueId) -> Option<usize> {
        match *self.readers(value) {
            [reader] if !self.is_output(value) => Some(reader),
            _ => None,
        }
    }

    /// Returns the node that computes `value`, if `value` has a [sole reader](Self::sole_reader).
    pub fn sole_producer(&self, value: ValueId) -> Option<usize> {
        self.sole_reader(value).and(self.producer(value))
    }

    /// Records that the nodes that compute `a` and `b` swapped their outputs.
    pub fn swap_producers(&mut self, a: ValueId, b: ValueId) {
        self.producers.swap(a.0, b.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NetworkBuilder;

    /// Returns a graph of `a = relu(x)`, `b = a + a`, `c = exp(b)`, with the given outputs.
    fn graph(outputs: &[&str]) -> Graph {
        let mut draft = NetworkBuilder::default();
        draft.push("Relu", &["x"], "a", &[]);
        draft.push("Add", &["a", "a"], "b", &[]);
        draft.push("Exp", &["b"], "c", &[]);
        draft.imported_graph(&[4], outputs)
    }

    #[test]
    fn a_value_knows_its_producer_and_every_read() {
        let graph = graph(&["c"]);
        let uses = Uses::of(&graph);
        let [a, b, c] = [0, 1, 2].map(|at: usize| graph.nodes()[at].output);
        assert_eq!(
            [graph.input_id(), a, b, c].map(|id| uses.producer(id)),
            [None, Some(0), Some(1), Some(2)]
        );
        assert_eq!(uses.readers(graph.input_id()), [0]);
        assert_eq!(uses.readers(a), [1, 1]);
        assert_eq!(uses.readers(c), [0; 0]);
        assert_eq!([a, b, c].map(|id| uses.is_output(id)), [false, false, true]);
    }

    #[test]
    fn a_sole_reader_reads_once_and_a_value_that_is_an_output_has_none() {
        let sole_readers = |outputs: &[&str]| {
            let graph = graph(outputs);
            let uses = Uses::of(&graph);
            let [a, b] = [0, 1].map(|at: usize| graph.nodes()[at].output);
            assert_eq!(uses.sole_producer(b).is_some(), uses.sole_reader(b).is_some());
            [a, b].map(|id| uses.sole_reader(id))
        };
        assert_eq!(sole_readers(&["c"]), [None, Some(2)]);
        assert_eq!(sole_readers(&["c", "b"]), [None, None]);
    }

    #[test]
    fn swapped_producers_keep_their_readers() {
        let graph = graph(&["c"]);
        let mut uses = Uses::of(&graph);
        let [b, c] = [1, 2].map(|at: usize| graph.nodes()[at].output);
        uses.swap_producers(b, c);
        assert_eq!([b, c].map(|id| uses.producer(id)), [Some(2), Some(1)]);
        assert_eq!(uses.readers(b), [2]);
    }
}
