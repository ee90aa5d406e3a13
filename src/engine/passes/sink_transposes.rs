//! Moves transposes towards the outputs, so that pairs of them cancel.

use super::drop_dead;
use crate::constant::Constant;
use crate::graph::{Graph, Node, Output, ValueId};
use crate::op::{Activation, Affine, Op};
use crate::shape::{inverse, keeps_order, permute};

/// Runs operations on untransposed values where possible. Networks that were converted from
/// channels-last exports have a transpose before and after each convolution. An operation that
/// treats all axes alike, or whose axes can be renamed, reads the untransposed value instead.
/// Before any other operation the transpose is inserted.
pub(super) fn sink_transposes(graph: Graph) -> Graph {
    let Graph { values, nodes, input, outputs } = graph;
    let views = vec![None; values.len()];
    let graph = Graph { values, nodes: Vec::new(), input, outputs: Vec::new() };
    let mut sinker = TransposeSinker { graph, views, materialised: Vec::new() };
    for node in nodes {
        sinker.push(node);
    }
    for Output { name, value } in outputs {
        let value = sinker.materialise(value);
        sinker.graph.outputs.push(Output { name, value });
    }
    drop_dead(sinker.graph)
}

/// A value of the old graph that no node of the new graph computes: it is a transpose of the value
/// `source` of the new graph.
#[derive(Clone)]
struct TransposedView {
    source: ValueId,
    perm: Vec<usize>,
}

struct TransposeSinker {
    graph: Graph,
    /// For each value of the old graph, its view; `None` if the new graph has the value itself.
    views: Vec<Option<TransposedView>>,
    /// Source, permutation and result of the transposes that were inserted, for reuse.
    materialised: Vec<(ValueId, Vec<usize>, ValueId)>,
}

impl TransposeSinker {
    fn push(&mut self, node: Node) {
        if let Op::Transpose { perm } = &node.op {
            let before = self.view(node.inputs[0]);
            let perm = permute(&before.perm, perm);
            self.views[node.output.0] = Some(TransposedView { source: before.source, perm });
            return;
        }
        let sunk_op = self.common_perm(&node.inputs).and_then(|perm| {
            let op = op_on_source(&node.op, &perm)?;
            Some((op, perm))
        });
        match sunk_op {
            Some((op, perm)) => self.push_sunk(node, op, perm),
            None => self.push_unchanged(node),
        }
    }

    /// Runs the operation on the sources of its inputs. The output becomes a view.
    fn push_sunk(&mut self, node: Node, op: Op, perm: Vec<usize>) {
        let inputs = node.inputs.iter().map(|&input| self.view(input).source).collect();
        let info = self.graph.value(node.output).clone();
        let source = self.graph.add_value(info.name, permute(&info.shape, &inverse(&perm)));
        self.views.push(None);
        self.graph.nodes.push(Node { op, inputs, output: source });
        self.views[node.output.0] = Some(TransposedView { source, perm });
    }

    fn push_unchanged(&mut self, mut node: Node) {
        let is_reshape = matches!(node.op, Op::Reshape);
        for input in &mut node.inputs {
            let view = self.view(*input);
            let same_order = keeps_order(self.graph.shape(view.source), &view.perm);
            *input = match is_reshape && same_order {
                true => view.source,
                false => self.materialise(*input),
            };
        }
        self.graph.nodes.push(node);
    }

    fn view(&self, value: ValueId) -> TransposedView {
        self.views[value.0].clone().unwrap_or_else(|| {
            let rank = self.graph.shape(value).len();
            TransposedView { source: value, perm: (0..rank).collect() }
        })
    }

    /// Returns the permutation that all inputs share, if it is not the identity.
    fn common_perm(&self, inputs: &[ValueId]) -> Option<Vec<usize>> {
        let perm = self.view(*inputs.first()?).perm;
        let all = inputs.iter().all(|&input| self.view(input).perm == perm);
        (all && !perm.is_sorted()).then_some(perm)
    }

    /// Returns a value of the new graph with the elements of `value`; inserts a transpose if
    /// needed.
    fn materialise(&mut self, value: ValueId) -> ValueId {
        let TransposedView { source, perm } = self.view(value);
        if perm.is_sorted() {
            return source;
        }
        let existing =
            self.materialised.iter().find(|(from, by, _)| *from == source && *by == perm);
        if let Some(&(_, _, existing)) = existing {
            return existing;
        }
        let info = self.graph.value(value).clone();
        let output = self.graph.add_value(info.name, info.shape);
        self.views.push(None);
        let op = match keeps_order(self.graph.shape(source), &perm) {
            true => Op::Reshape,
            false => Op::Transpose { perm: perm.clone() },
        };
        self.graph.nodes.push(Node { op, inputs: vec![source], output });
        self.materialised.push((source, perm, output));
        output
    }
}

/// Returns the operation on the sources that equals `op` on their transposes by `perm`, or `None`
/// if there is none.
fn op_on_source(op: &Op, perm: &[usize]) -> Option<Op> {
    let back = inverse(perm);
    let constant = |c: &Constant| c.transpose(&back);
    let axis = |axis: usize| perm[axis];
    Some(match op {
        Op::Activation(Activation::PRelu(slopes)) => {
            Op::Activation(Activation::PRelu(constant(slopes)))
        }
        Op::Activation(_) | Op::Binary(_) => op.clone(),
        Op::Affine(Affine { scale, shift }) => {
            Op::Affine(Affine { scale: constant(scale), shift: constant(shift) })
        }
        Op::Pad { before, after, value } => {
            Op::Pad { before: permute(before, &back), after: permute(after, &back), value: *value }
        }
        Op::Concat { axis: a } => Op::Concat { axis: axis(*a) },
        Op::Slice { axis: a, start, step } => {
            Op::Slice { axis: axis(*a), start: *start, step: *step }
        }
        Op::Softmax { axis: a } => Op::Softmax { axis: axis(*a) },
        Op::Reduce { reduction, axes } => {
            let mut axes: Vec<usize> = axes.iter().map(|&a| axis(a)).collect();
            axes.sort_unstable();
            Op::Reduce { reduction: *reduction, axes }
        }
        Op::Expand => Op::Expand,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        assert_close, float, floats, graph_of, int, ints, longs, model, node, noise, run_on_noise,
    };
    use crate::onnx::{NodeProto, TensorProto};

    fn nhwc(from: &str, to: &str) -> NodeProto {
        node("Transpose", &[from], to, &[ints("perm", &[0, 2, 3, 1])])
    }

    fn nchw(from: &str, to: &str) -> NodeProto {
        node("Transpose", &[from], to, &[ints("perm", &[0, 3, 1, 2])])
    }

    fn constants() -> Vec<TensorProto> {
        vec![
            floats("slopes", &[1, 1, 3], &[0.1, 0.2, 0.3]),
            floats("columns", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
            floats("w", &[3, 3, 1, 1], &noise(1, 9)),
            longs("borders", &[0, 1, 0, 0, 0, 0, 2, 3]),
        ]
    }

    fn check(nodes: Vec<NodeProto>, transposes: usize) {
        let graph = graph_of(&model(13, &[1, 2, 4, 3], nodes, constants()));
        let expected = run_on_noise(&graph, 2);
        let graph = sink_transposes(graph);
        let left = graph.op_counts().get("Transpose").copied().unwrap_or(0);
        assert_eq!(left, transposes, "{:?}", graph.op_counts());
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-6);
    }

    #[test]
    fn pairs_around_elementwise_operations_cancel() {
        let nodes = vec![
            nchw("x", "a"),
            node("Conv", &["a", "w"], "b", &[]),
            nhwc("b", "c"),
            node("PRelu", &["c", "slopes"], "d", &[]),
            node("Mul", &["d", "columns"], "e", &[]),
            node("Add", &["e", "c"], "f", &[]),
            nchw("f", "g"),
            node("Conv", &["g", "w"], "y", &[]),
        ];
        check(nodes, 1);
    }

    #[test]
    fn pads_and_concatenations_name_the_axes_of_the_source() {
        let nodes = vec![
            nchw("x", "a"),
            node("Relu", &["a"], "b", &[]),
            node("Pad", &["b", "borders"], "c", &[]),
            node("Concat", &["c", "c"], "d", &[int("axis", 3)]),
            node("Softmax", &["d"], "e", &[int("axis", 1)]),
            node("ReduceMean", &["e"], "f", &[ints("axes", &[2])]),
            nhwc("f", "y"),
        ];
        check(nodes, 0);
    }

    #[test]
    fn values_of_different_permutations_are_materialised_before_they_meet() {
        let nodes = vec![
            node("Transpose", &["x"], "a", &[ints("perm", &[0, 1, 3, 2])]),
            node("Transpose", &["a"], "b", &[ints("perm", &[0, 1, 3, 2])]),
            node("LeakyRelu", &["b"], "c", &[float("alpha", 0.5)]),
            nhwc("c", "d"),
            node("Add", &["d", "d"], "e", &[]),
            nchw("e", "f"),
            node("Add", &["f", "x"], "g", &[]),
            node("Flatten", &["a"], "h", &[]),
            node("Flatten", &["g"], "i", &[]),
            node("Add", &["h", "i"], "y", &[]),
        ];
        check(nodes, 1);
    }

    #[test]
    fn a_transpose_that_moves_unit_axes_only_is_a_reshape() {
        let nodes = vec![
            node("GlobalAveragePool", &["x"], "a", &[]),
            nhwc("a", "b"),
            node("Flatten", &["b"], "y", &[]),
        ];
        check(nodes, 0);
    }
}
