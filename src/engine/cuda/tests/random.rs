//! Random networks.

use super::gpu;
use crate::engine::Precision;
use crate::engine::fixtures::{self, first_rows, inputs, random_optimised_graph, worst};

const BUCKETS: [usize; 3] = [1, 2, 5];

/// One more than the largest bucket, so that two batches run.
const ROWS: usize = 6;

#[test]
fn gpu_random_networks_are_what_the_reference_computes() {
    let gpu = gpu();
    for seed in 0..60 {
        let graph = random_optimised_graph(seed);
        let input = inputs(&graph, ROWS);
        let expected = fixtures::run(&graph, ROWS, &input);
        for (precision, difference_max, turned_max) in
            [(Precision::F32, 1e-4, 1e-9), (Precision::F16, 0.05, 1e-4)]
        {
            let network = gpu.load(&graph, precision, &BUCKETS);
            for rows in [1, 3, ROWS] {
                let found = gpu.run(&graph, &network, &input[..input.len() / ROWS * rows]);
                let (difference, turned) = worst(&found, &first_rows(&expected, ROWS, rows));
                assert!(
                    difference <= difference_max && turned <= turned_max,
                    "seed {seed}, {precision}, {rows} rows: {difference:.1e}, {turned:.1e}"
                );
            }
        }
    }
}
