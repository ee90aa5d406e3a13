//! Tests reductions by one thread and by one block, whichever of them the plan would choose.

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use half::f16;

use super::{ExclusiveGpu, gpu};
use crate::cuda::element_type::ElementType;
use crate::cuda::plan::{LaunchContext, Work};
use crate::cuda::work::{Reduce, ReductionScope, Softmax};
use crate::fixtures::{self, NetworkBuilder, int, ints, noise, relative_difference};
use crate::op::Reduction;

const ITEMS: usize = 3;

/// Results of each item.
const RESULTS: usize = 4;

/// Lengths around the number of threads of a warp and of a block.
const LENGTHS: [usize; 5] = [1, 31, 256, 257, 5000];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Reduce(Reduction),
    Softmax,
}

const KINDS: [Kind; 5] = [
    Kind::Reduce(Reduction::Mean),
    Kind::Reduce(Reduction::Sum),
    Kind::Reduce(Reduction::Max),
    Kind::Reduce(Reduction::L2),
    Kind::Softmax,
];

#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    length: usize,
    /// True if the elements of one result are neighbours in memory. Otherwise the results are.
    is_contiguous: bool,
    scope: ReductionScope,
    element_type: ElementType,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in KINDS {
        for length in LENGTHS {
            for is_contiguous in [false, true] {
                for scope in [ReductionScope::Thread, ReductionScope::Block] {
                    for element_type in [ElementType::F32, ElementType::F16] {
                        cases.push(Case { kind, length, is_contiguous, scope, element_type });
                    }
                }
            }
        }
    }
    cases
}

impl Case {
    fn shape(&self) -> [usize; 2] {
        if self.is_contiguous { [RESULTS, self.length] } else { [self.length, RESULTS] }
    }

    fn axis(&self) -> usize {
        usize::from(self.is_contiguous)
    }

    fn item_len(&self) -> usize {
        RESULTS * self.length
    }

    /// Returns the offset of element `index` of a result.
    fn offset(&self, item: usize, result: usize, index: usize) -> usize {
        let within = match self.is_contiguous {
            true => result * self.length + index,
            false => index * RESULTS + result,
        };
        item * self.item_len() + within
    }

    /// Returns numbers that both types represent exactly.
    fn input(&self) -> Vec<f32> {
        let noise = noise(7, ITEMS * self.item_len());
        noise.into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
    }

    fn work(&self) -> Box<dyn Work> {
        let [first, second] = self.shape();
        match self.kind {
            Kind::Reduce(reduction) => {
                let axes = [self.axis()];
                let work = Reduce::new(
                    reduction,
                    &[first, second],
                    &[second, 1],
                    &axes,
                    self.element_type,
                );
                Box::new(work.with_scope(self.scope, self.element_type))
            }
            Kind::Softmax => {
                let inner = if self.is_contiguous { 1 } else { RESULTS };
                let sizes = [RESULTS / inner, self.length, inner];
                Box::new(
                    Softmax::new(sizes, self.element_type)
                        .with_scope(self.scope, self.element_type),
                )
            }
        }
    }

    /// Returns the results of the reference.
    fn expected(&self, input: &[f32]) -> Vec<f32> {
        let mut draft = NetworkBuilder::default();
        let axis = self.axis() as i64 + 1;
        let axes = [ints("axes", &[axis])];
        match self.kind {
            Kind::Reduce(Reduction::Mean) => draft.push("ReduceMean", &["x"], "y", &axes),
            Kind::Reduce(Reduction::Sum) => draft.push("ReduceSum", &["x"], "y", &axes),
            Kind::Reduce(Reduction::Max) => draft.push("ReduceMax", &["x"], "y", &axes),
            Kind::Reduce(Reduction::L2) => draft.push("ReduceL2", &["x"], "y", &axes),
            Kind::Softmax => draft.push("Softmax", &["x"], "y", &[int("axis", axis)]),
        }
        let graph = draft.graph(&self.shape());
        fixtures::run(&graph, input.len() / self.item_len(), input).remove(0)
    }

    /// Returns the results of the GPU.
    fn run(&self, gpu: &ExclusiveGpu, input: &[f32]) -> Vec<f32> {
        let items = input.len() / self.item_len();
        let len = match self.kind {
            Kind::Reduce(_) => items * RESULTS,
            Kind::Softmax => input.len(),
        };
        let stream = gpu.gpu.stream();
        let x = stream.clone_htod(&to_bytes(input, self.element_type)).unwrap();
        let y =
            stream.alloc_zeros::<u8>(to_bytes(&vec![0.0; len], self.element_type).len()).unwrap();
        let [from, to] = [&x, &y].map(|memory| memory.device_ptr(stream).0);
        let gpu = &gpu.gpu;
        let context =
            LaunchContext { gpu, items, constants: 0, x: vec![from], y: to, workspace: 0 };
        self.work().enqueue(&context).unwrap();
        let found = stream.clone_dtoh(&y).unwrap();
        stream.synchronize().unwrap();
        to_numbers(&found, self.element_type)
    }
}

fn to_bytes(numbers: &[f32], element_type: ElementType) -> Vec<u8> {
    match element_type {
        ElementType::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_ne_bytes()).collect(),
        ElementType::F32 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
    }
}

fn to_numbers(bytes: &[u8], element_type: ElementType) -> Vec<f32> {
    match element_type {
        ElementType::F16 => {
            bytes.chunks(2).map(|x| f16::from_ne_bytes([x[0], x[1]]).to_f32()).collect()
        }
        ElementType::F32 => {
            bytes.chunks(4).map(|x| f32::from_ne_bytes([x[0], x[1], x[2], x[3]])).collect()
        }
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn gpu_threads_and_blocks_compute_what_the_reference_computes() {
    let gpu = gpu();
    for case in cases() {
        let input = case.input();
        let difference = relative_difference(&case.run(&gpu, &input), &case.expected(&input));
        // One thread adds 5000 squares, one after another.
        let difference_max = match case.element_type {
            ElementType::F32 => 1e-4,
            ElementType::F16 => 1e-3,
        };
        assert!(difference <= difference_max, "{case:?}: {difference:.1e}");
    }
}

#[test]
fn gpu_reduced_items_have_the_same_bits_alone_and_in_a_batch() {
    let gpu = gpu();
    for case in cases() {
        let input = case.input();
        let items = input.chunks(case.item_len());
        let alone: Vec<f32> = items.flat_map(|item| case.run(&gpu, item)).collect();
        assert_eq!(bits(&alone), bits(&case.run(&gpu, &input)), "{case:?}");
    }
}

#[test]
fn gpu_nan_reaches_its_own_result_and_no_other() {
    let gpu = gpu();
    for case in cases() {
        let mut input = case.input();
        input[case.offset(1, 2, case.length / 2)] = f32::NAN;
        let found = case.run(&gpu, &input);
        for (item, result) in (0..ITEMS).flat_map(|item| (0..RESULTS).map(move |r| (item, r))) {
            let at = match case.kind {
                Kind::Reduce(_) => item * RESULTS + result,
                Kind::Softmax => case.offset(item, result, 0),
            };
            assert_eq!(found[at].is_nan(), (item, result) == (1, 2), "{case:?}");
        }
    }
}
