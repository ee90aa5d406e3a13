//! Tests of the planned executor against the reference, on guarded memory.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bands;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod emulator;
mod items;
mod models;
mod random;
mod shapes;
mod values;

use std::sync::Arc;

use super::kernels::KernelSet;
use super::lower::BandPolicy;
use super::schedule::Policy;
use super::{CpuNetwork, KernelChoice, ThreadTeam};
use crate::Precision;
use crate::fixtures::{self, inputs, largest_errors};
use crate::graph::Graph;

/// Returns the kernel sets that this processor runs, with AMX emulated by [`emulator`] if needed.
fn sets(precision: Precision) -> Vec<KernelChoice> {
    KernelChoice::SETS
        .into_iter()
        .filter(|&choice| kernel_set(choice, precision).is_some())
        .collect()
}

/// Returns the kernel sets for one of many networks. An emulated instruction takes a thousand times
/// as long as a real one, so emulated kernels run only for every fifth network.
fn sets_for_seed(precision: Precision, seed: u64) -> Vec<KernelChoice> {
    let mut sets = sets(precision);
    let is_turn = |choice: KernelChoice| choice != KernelChoice::Amx || seed.is_multiple_of(5);
    sets.retain(|&choice| is_turn(choice) || choice.select(precision).is_ok());
    sets
}

fn kernel_set(choice: KernelChoice, precision: Precision) -> Option<&'static KernelSet> {
    match (choice.select(precision), choice, precision) {
        (Ok(kernels), ..) => Some(kernels),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        (Err(_), KernelChoice::Amx, Precision::Bf16) => emulator::amx(),
        _ => None,
    }
}

/// The default policy, and three others. The second runs all items together at each step with
/// weights, as in large networks. The third puts as many steps as possible in bands of few rows, as
/// on large images. The fourth also gives every value its own memory, with guards on all sides.
const POLICIES: [Policy; 4] = [
    Policy::DEFAULT,
    Policy { light_weights_bytes_max: 0, light_uses_min: usize::MAX, ..Policy::DEFAULT },
    Policy { bands: NARROW, ..Policy::DEFAULT },
    Policy {
        light_weights_bytes_max: 0,
        light_uses_min: usize::MAX,
        shares_memory: false,
        bands: NARROW,
    },
];

const NARROW: BandPolicy = BandPolicy { image_bytes_min: 0, kept_bytes_max: 8 << 10 };

fn load(graph: &Graph, kernels: KernelChoice, precision: Precision, threads: usize) -> CpuNetwork {
    load_with(graph, kernels, precision, threads, &Policy::DEFAULT)
}

fn load_with(
    graph: &Graph,
    kernels: KernelChoice,
    precision: Precision,
    threads: usize,
    policy: &Policy,
) -> CpuNetwork {
    let team = Arc::new(ThreadTeam::new(threads).unwrap());
    let kernels = kernel_set(kernels, precision).unwrap();
    CpuNetwork::load_with(graph, kernels, team, policy).unwrap()
}

/// NaNs before and after the caller's input and outputs.
const GUARD: usize = 64;

/// Runs `items` items on poisoned memory, and returns each output for all items.
#[track_caller]
fn run(network: &CpuNetwork, graph: &Graph, items: usize, input: &[f32]) -> Vec<Vec<f32>> {
    let lens: Vec<usize> =
        graph.outputs().iter().map(|o| items * o.shape.iter().product::<usize>()).collect();
    let len: usize = lens.iter().sum();
    let mut outputs = vec![f32::NAN; GUARD + len + GUARD];
    let input = [&[f32::NAN; GUARD], input, &[f32::NAN; GUARD]].concat();
    network.poison();
    network
        .run(&input[GUARD..input.len() - GUARD], items, &mut outputs[GUARD..GUARD + len])
        .unwrap();
    network.assert_guards_intact();
    let (before, behind) = (&outputs[..GUARD], &outputs[GUARD + len..]);
    assert!(before.iter().chain(behind).all(|x| x.is_nan()), "beside the caller's outputs");
    let mut from = GUARD;
    let outputs = lens.iter().map(|len| {
        from += len;
        outputs[from - len..from].to_vec()
    });
    outputs.collect()
}

/// Asserts that a planned network in `f32` gives the results of the reference.
#[track_caller]
fn assert_as_reference(graph: &Graph, items: usize, name: &str) {
    let input = inputs(graph, items);
    let expected = fixtures::run(graph, items, &input);
    for kernels in sets(Precision::F32) {
        let network = load(graph, kernels, Precision::F32, 1);
        let (difference, cosine_error) =
            largest_errors(&run(&network, graph, items, &input), &expected);
        assert!(
            difference <= DIFFERENCE_MAX && cosine_error <= COSINE_ERROR_MAX,
            "{name}, {kernels}: {difference:.1e}, {cosine_error:.1e}"
        );
    }
}

/// Largest difference of `f32` from the reference, relative to the largest number.
const DIFFERENCE_MAX: f32 = 1e-4;

/// Largest `1 - cosine` in `f32`.
const COSINE_ERROR_MAX: f64 = 1e-9;
