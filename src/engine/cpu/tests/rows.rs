//! A row's answer depends on the row alone: the same bits at any place of any batch, on any number
//! of threads and in any order of the plan.

use super::{CpuNetwork, KernelChoice, POLICIES, inputs, load, load_with, run, sets_of_turn};
use crate::Precision;
use crate::fixtures::random_optimised_graph;
use crate::graph::Graph;

/// Two times the rows that run together, and one more.
const ROWS_MAX: usize = 17;

/// What each row gives alone, as bits.
struct Alone<'g> {
    /// For messages.
    name: String,
    graph: &'g Graph,
    input: Vec<f32>,
    answers: Vec<Vec<u32>>,
}

impl<'g> Alone<'g> {
    fn of(graph: &'g Graph, seed: u64, kernels: KernelChoice, precision: Precision) -> Self {
        let input = inputs(graph, ROWS_MAX);
        let network = load(graph, kernels, precision, 1);
        let rows = input.chunks_exact(input.len() / ROWS_MAX);
        let answers = rows.map(|row| bits(&run(&network, graph, 1, row).concat())).collect();
        Self { name: format!("seed {seed}, {kernels} for {precision}"), graph, input, answers }
    }

    fn row_len(&self) -> usize {
        self.input.len() / ROWS_MAX
    }

    /// Asserts that a batch of `rows` rows, from number `first` on and round again, gives what
    /// they give alone.
    #[track_caller]
    fn assert_same(&self, network: &CpuNetwork, first: usize, rows: usize) {
        let numbers: Vec<usize> = (0..rows).map(|at| (first + at) % ROWS_MAX).collect();
        let len = self.row_len();
        let input: Vec<&[f32]> =
            numbers.iter().map(|&number| &self.input[number * len..][..len]).collect();
        let outputs = run(network, self.graph, rows, &input.concat());
        for (at, &number) in numbers.iter().enumerate() {
            self.assert_row(&outputs, number, [at, rows]);
        }
    }

    /// Asserts that the answer `at` of `rows` is that of row `number`.
    #[track_caller]
    fn assert_row(&self, outputs: &[Vec<f32>], number: usize, [at, rows]: [usize; 2]) {
        let of_row = outputs.iter().flat_map(|output| {
            let len = output.len() / rows;
            &output[at * len..][..len]
        });
        let is_same = of_row.map(|x| x.to_bits()).eq(self.answers[number].iter().copied());
        assert!(is_same, "{}: row {number} at {at} of {rows}", self.name);
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_gives_the_same_bits_in_any_batch_on_any_number_of_threads() {
    for seed in 200..230 {
        let graph = random_optimised_graph(seed);
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_of_turn(precision, seed) {
                let alone = Alone::of(&graph, seed, kernels, precision);
                for threads in 1..=3 {
                    let network = load(&graph, kernels, precision, threads);
                    // One row runs on all threads; the others are split.
                    for rows in [1, 2, 3 + seed as usize % 14, ROWS_MAX] {
                        alone.assert_same(&network, (seed as usize + threads) % ROWS_MAX, rows);
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
            for kernels in sets_of_turn(precision, seed) {
                let alone = Alone::of(&graph, seed, kernels, precision);
                for policy in &POLICIES[1..] {
                    let network = load_with(&graph, kernels, precision, 1, policy);
                    alone.assert_same(&network, 0, 2 + seed as usize % (ROWS_MAX - 1));
                }
            }
        }
    }
}

#[test]
fn a_row_without_numbers_does_not_reach_its_neighbours() {
    for seed in 260..290 {
        let graph = random_optimised_graph(seed);
        for precision in [Precision::F32, Precision::Bf16] {
            for kernels in sets_of_turn(precision, seed) {
                let alone = Alone::of(&graph, seed, kernels, precision);
                let (len, network) = (alone.row_len(), load(&graph, kernels, precision, 1));
                let mut input = alone.input[..3 * len].to_vec();
                input[len..2 * len].fill(f32::INFINITY);
                let outputs = run(&network, &graph, 3, &input);
                for row in [0, 2] {
                    alone.assert_row(&outputs, row, [row, 3]);
                }
            }
        }
    }
}
