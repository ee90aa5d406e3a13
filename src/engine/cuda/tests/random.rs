//! Tests random networks.

use std::ops::Range;

use super::{ExclusiveGpu, gpu, gpu_with};
use crate::Precision;
use crate::cuda::Gpu;
use crate::fixtures::{self, first_items, inputs, largest_errors, random_optimised_graph};

const BUCKETS: [usize; 3] = [1, 2, 5];

/// One more item than the largest bucket holds, so that two batches run.
const ITEMS: usize = 6;

#[test]
fn gpu_random_networks_compute_what_the_reference_computes() {
    assert_equals_reference(&gpu(), 0..60);
}

#[test]
fn gpu_without_cudnn_random_networks_compute_what_the_reference_computes() {
    assert_equals_reference(&gpu_with(Gpu::without_cudnn), 60..120);
}

fn assert_equals_reference(gpu: &ExclusiveGpu, seeds: Range<u64>) {
    for seed in seeds {
        let graph = random_optimised_graph(seed);
        let input = inputs(&graph, ITEMS);
        let expected = fixtures::run(&graph, ITEMS, &input);
        for (precision, difference_max, cosine_distance_max) in [
            (Precision::F32, 1e-4, 1e-9),
            (Precision::Tf32, 0.1, 1e-3),
            (Precision::F16, 0.05, 1e-4),
        ] {
            let network = gpu.load(&graph, precision, &BUCKETS);
            for items in [1, 3, ITEMS] {
                let found = gpu.run(&graph, &network, &input[..input.len() / ITEMS * items]);
                let (difference, cosine_distance) =
                    largest_errors(&found, &first_items(&expected, ITEMS, items));
                let case = format!("seed {seed}, {precision}, {items} items");
                assert!(
                    difference <= difference_max && cosine_distance <= cosine_distance_max,
                    "{case}: {difference:.1e}, {cosine_distance:.1e}"
                );
            }
        }
    }
}
