//! Random networks.

use std::ops::Range;

use super::{Turn, gpu, gpu_with};
use crate::Precision;
use crate::cuda::Gpu;
use crate::fixtures::{self, first_items, inputs, largest_errors, random_optimised_graph};

const BUCKETS: [usize; 3] = [1, 2, 5];

/// One more than the largest bucket, so that two batches run.
const ROWS: usize = 6;

#[test]
fn gpu_random_networks_are_what_the_reference_computes() {
    assert_as_the_reference(&gpu(), 0..60);
}

#[test]
fn gpu_without_cudnn_random_networks_are_what_the_reference_computes() {
    assert_as_the_reference(&gpu_with(Gpu::without_cudnn), 60..120);
}

fn assert_as_the_reference(gpu: &Turn, seeds: Range<u64>) {
    for seed in seeds {
        let graph = random_optimised_graph(seed);
        let input = inputs(&graph, ROWS);
        let expected = fixtures::run(&graph, ROWS, &input);
        for (precision, difference_max, turned_max) in [
            (Precision::F32, 1e-4, 1e-9),
            (Precision::Tf32, 0.1, 1e-3),
            (Precision::F16, 0.05, 1e-4),
        ] {
            let network = gpu.load(&graph, precision, &BUCKETS);
            for rows in [1, 3, ROWS] {
                let found = gpu.run(&graph, &network, &input[..input.len() / ROWS * rows]);
                let (difference, turned) =
                    largest_errors(&found, &first_items(&expected, ROWS, rows));
                assert!(
                    difference <= difference_max && turned <= turned_max,
                    "seed {seed}, {precision}, {rows} rows: {difference:.1e}, {turned:.1e}"
                );
            }
        }
    }
}
