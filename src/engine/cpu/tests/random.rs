//! Random networks on every kernel set.

use super::{COSINE_ERROR_MAX, DIFFERENCE_MAX, POLICIES, load, load_with, run, sets};
use crate::Precision;
use crate::fixtures::{self, first_items, inputs, largest_errors, random_optimised_graph};

const BATCHES: [usize; 6] = [1, 2, 3, 5, 8, 9];

/// More items than any schedule runs together. Used for a few networks.
const LARGE_BATCH: usize = 33;

/// Largest `1 - cosine` in bfloat16. An output of these networks may be a few small numbers left
/// after larger ones cancel. That leaves fewer digits than in real networks.
const COSINE_ERROR_MAX_BF16: f64 = 5e-4;

/// Largest `1 - cosine` between two kernel sets that differ only in the order of sums.
const COSINE_ERROR_MAX_BETWEEN_SETS: f64 = 1e-6;

#[test]
fn every_kernel_set_computes_what_the_reference_does() {
    for seed in 0..150 {
        let graph = random_optimised_graph(seed);
        let all = if seed % 25 == 0 { LARGE_BATCH } else { 9 };
        let input = inputs(&graph, all);
        let expected = fixtures::run(&graph, all, &input);
        let batches = [BATCHES[seed as usize % BATCHES.len()], all];
        for kernels in sets(Precision::F32) {
            let policy = &POLICIES[seed as usize / BATCHES.len() % POLICIES.len()];
            let network = load_with(&graph, kernels, Precision::F32, 1, policy);
            for items in batches {
                let expected = first_items(&expected, all, items);
                let found = run(&network, &graph, items, &input[..input.len() / all * items]);
                let (difference, cosine_error) = largest_errors(&found, &expected);
                assert!(
                    difference <= DIFFERENCE_MAX && cosine_error <= COSINE_ERROR_MAX,
                    "seed {seed}, {kernels}, {items} items: {difference:.1e}, {cosine_error:.1e}"
                );
            }
        }
    }
}

#[test]
fn bfloat16_is_close_to_the_reference_and_its_kernel_sets_to_each_other() {
    for seed in 0..60 {
        let graph = random_optimised_graph(seed);
        let all = if seed == 0 { LARGE_BATCH } else { BATCHES[seed as usize % BATCHES.len()] };
        let input = inputs(&graph, all);
        let expected = fixtures::run(&graph, all, &input);
        let mut first: Option<(bool, Vec<Vec<f32>>)> = None;
        for kernels in sets(Precision::Bf16) {
            let network = load(&graph, kernels, Precision::Bf16, 1);
            let found = run(&network, &graph, all, &input);
            let (_, cosine_error) = largest_errors(&found, &expected);
            assert!(
                cosine_error <= COSINE_ERROR_MAX_BF16,
                "seed {seed}, {kernels}: {cosine_error:.1e}"
            );
            // The weights of Winograd's algorithm are `f32`, so it rounds other numbers than direct
            // kernels.
            let is_winograd = network.steps().any(|(_, algorithm)| algorithm == "winograd");
            if let Some((_, first)) = first.as_ref().filter(|(other, _)| *other == is_winograd) {
                let (_, apart) = largest_errors(&found, first);
                assert!(
                    apart <= COSINE_ERROR_MAX_BETWEEN_SETS,
                    "seed {seed}, {kernels}: {apart:.1e}"
                );
            }
            first.get_or_insert((is_winograd, found));
        }
    }
}
