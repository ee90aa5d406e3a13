//! The output of an item depends on the item alone. Its bits are the same at any place of any
//! batch, on any number of threads and in any order of the plan.

use super::{CpuNetwork, KernelChoice, POLICIES, inputs, load, load_with, run, sets_for_seed};
use crate::Precision;
use crate::fixtures::random_optimised_graph;
use crate::graph::Graph;

/// Two times the items that run together, and one more.
const ITEMS_MAX: usize = 17;

/// The output of each item when it runs alone, as bits.
struct SingleItemAnswers<'g> {
    /// Identifies the network in messages.
    name: String,
    graph: &'g Graph,
    input: Vec<f32>,
    answers: Vec<Vec<u32>>,
}

impl<'g> SingleItemAnswers<'g> {
    fn of(graph: &'g Graph, seed: u64, kernels: KernelChoice, precision: Precision) -> Self {
        let input = inputs(graph, ITEMS_MAX);
        let network = load(graph, kernels, precision, 1);
        let items = input.chunks_exact(input.len() / ITEMS_MAX);
        let answers = items.map(|item| bits(&run(&network, graph, 1, item).concat())).collect();
        Self { name: format!("seed {seed}, {kernels} for {precision}"), graph, input, answers }
    }

    fn item_len(&self) -> usize {
        self.input.len() / ITEMS_MAX
    }

    /// Asserts that the items of a batch give the same bits as alone. The batch starts with item
    /// `first`; after the last item it continues with item 0.
    #[track_caller]
    fn assert_same(&self, network: &CpuNetwork, first: usize, items: usize) {
        let indices: Vec<usize> = (0..items).map(|at| (first + at) % ITEMS_MAX).collect();
        let len = self.item_len();
        let input: Vec<&[f32]> =
            indices.iter().map(|&index| &self.input[index * len..][..len]).collect();
        let outputs = run(network, self.graph, items, &input.concat());
        for (at, &index) in indices.iter().enumerate() {
            self.assert_item(&outputs, index, [at, items]);
        }
    }

    /// Asserts that the output at place `at` of a batch of `items` is that of item `index`.
    #[track_caller]
    fn assert_item(&self, outputs: &[Vec<f32>], index: usize, [at, items]: [usize; 2]) {
        let of_item = outputs.iter().flat_map(|output| {
            let len = output.len() / items;
            &output[at * len..][..len]
        });
        let is_same = of_item.map(|x| x.to_bits()).eq(self.answers[index].iter().copied());
        assert!(is_same, "{}: item {index} at {at} of {items}", self.name);
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn an_item_gives_the_same_bits_in_any_batch_on_any_number_of_threads() {
    for seed in 200..230 {
        let graph = random_optimised_graph(seed);
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_for_seed(precision, seed) {
                let expected = SingleItemAnswers::of(&graph, seed, kernels, precision);
                for threads in 1..=3 {
                    let network = load(&graph, kernels, precision, threads);
                    // One item runs on all threads; more items are divided between the threads.
                    for items in [1, 2, 3 + seed as usize % 14, ITEMS_MAX] {
                        expected.assert_same(
                            &network,
                            (seed as usize + threads) % ITEMS_MAX,
                            items,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_order_of_a_plan_changes_no_bit() {
    for seed in 230..260 {
        let graph = random_optimised_graph(seed);
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_for_seed(precision, seed) {
                let expected = SingleItemAnswers::of(&graph, seed, kernels, precision);
                for policy in &POLICIES[1..] {
                    let network = load_with(&graph, kernels, precision, 1, policy);
                    expected.assert_same(&network, 0, 2 + seed as usize % (ITEMS_MAX - 1));
                }
            }
        }
    }
}

#[test]
fn an_item_of_infinities_does_not_change_its_neighbours() {
    for seed in 260..290 {
        let graph = random_optimised_graph(seed);
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_for_seed(precision, seed) {
                let expected = SingleItemAnswers::of(&graph, seed, kernels, precision);
                let (len, network) = (expected.item_len(), load(&graph, kernels, precision, 1));
                let mut input = expected.input[..3 * len].to_vec();
                input[len..2 * len].fill(f32::INFINITY);
                let outputs = run(&network, &graph, 3, &input);
                for item in [0, 2] {
                    expected.assert_item(&outputs, item, [item, 3]);
                }
            }
        }
    }
}
