//! Passes: functions from graph to graph. A pass never changes the results of a network.

mod drop_dead;
mod fold_affines;
mod fold_leading_affines;
mod fuse_convolutions;
mod merge_affines;
mod merge_reshapes;
mod sink_transposes;

pub(crate) use drop_dead::drop_dead;
use fold_affines::fold_affines;
use fold_leading_affines::fold_leading_affines;
use fuse_convolutions::fuse_convolutions;
use merge_affines::merge_affines;
use merge_reshapes::merge_reshapes;
use sink_transposes::sink_transposes;

use super::graph::Graph;

/// Runs all passes. Each pass comes after the passes that create opportunities for it.
pub fn optimise(graph: Graph) -> Graph {
    let passes = [
        sink_transposes,
        merge_reshapes,
        merge_affines,
        fold_affines,
        fold_leading_affines,
        fuse_convolutions,
        drop_dead,
    ];
    passes.into_iter().fold(graph, |graph, pass| pass(graph))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fixtures::{
        assert_close, floats, graph_of, ints, longs, model, node, noise, random_graph,
        random_optimised_graph, relative_difference, run, run_on_noise,
    };

    /// Returns a network with work for every pass: channels last, batch norm before and after a
    /// convolution, residual, reshape.
    fn network_for_every_pass() -> Graph {
        let nhwc = [ints("perm", &[0, 2, 3, 1])];
        let nchw = [ints("perm", &[0, 3, 1, 2])];
        let pads = [ints("pads", &[1, 1, 1, 1])];
        let weights = noise(1, 2 * 2 * 9);
        graph_of(&model(
            13,
            &[1, 5, 5, 2],
            vec![
                node("Sub", &["x", "mean"], "centred", &[]),
                node("Mul", &["centred", "factor"], "scaled", &[]),
                node("Transpose", &["scaled"], "t1", &nchw),
                node("Conv", &["t1", "w"], "c1", &pads),
                node("BatchNormalization", &["c1", "g", "b", "m", "v"], "n1", &[]),
                node("Transpose", &["n1"], "t2", &nhwc),
                node("PRelu", &["t2", "slopes"], "p1", &[]),
                node("Transpose", &["p1"], "t3", &nchw),
                node("BatchNormalization", &["t3", "g", "b", "m", "v"], "n3", &[]),
                node("Conv", &["n3", "w"], "c2", &pads),
                node("Transpose", &["c2"], "t4", &nhwc),
                node("Add", &["t4", "p1"], "sum", &[]),
                node("Relu", &["sum"], "r", &[]),
                node("Transpose", &["r"], "t5", &nchw),
                node("BatchNormalization", &["t5", "g", "b", "m", "v"], "n2", &[]),
                node("Flatten", &["n2"], "flat", &[]),
                node("Gemm", &["flat", "fc"], "h", &[]),
                node("Reshape", &["h", "shape"], "y", &[]),
            ],
            vec![
                floats("mean", &[1], &[0.1]),
                floats("factor", &[1], &[1.7]),
                floats("w", &[2, 2, 3, 3], &weights),
                floats("g", &[2], &[1.1, -0.9]),
                floats("b", &[2], &[0.2, 0.3]),
                floats("m", &[2], &[-0.1, 0.4]),
                floats("v", &[2], &[0.8, 1.3]),
                floats("slopes", &[1, 1, 2], &[0.25, -0.5]),
                floats("fc", &[50, 4], &noise(2, 200)),
                longs("shape", &[-1, 2, 2]),
            ],
        ))
    }

    #[test]
    fn all_passes_together_keep_what_a_network_computes() {
        let graph = network_for_every_pass();
        let expected = run_on_noise(&graph, 3);
        let graph = optimise(graph);
        assert_close(&run_on_noise(&graph, 3), &expected, 1e-5);
    }

    #[test]
    fn all_passes_together_keep_what_any_network_computes() {
        for seed in 0..200 {
            let graph = random_graph(seed);
            let input = noise(seed, 2 * graph.input().shape.iter().product::<usize>());
            let expected = run(&graph, 2, &input);
            let found = run(&random_optimised_graph(seed), 2, &input);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = relative_difference(found, expected);
                assert!(off <= 1e-4, "seed {seed}, output {at}: off by {off}");
            }
        }
    }

    #[test]
    fn all_passes_together_leave_the_fused_operations() {
        let counts = optimise(network_for_every_pass()).op_counts();
        let expected =
            [("Affine", 1), ("Conv", 2), ("Linear", 1), ("Reshape", 2), ("Transpose", 1)];
        assert_eq!(counts, BTreeMap::from(expected));
    }
}
