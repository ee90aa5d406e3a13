//! A planned network that is warm allocates nothing.
//!
//! The test has a binary of its own, since a process has one global allocator and this one counts
//! the allocations of all tests. For the same reason the binary has one test.
#![expect(unsafe_code, reason = "an allocator is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use menshen::engine::cpu::{CpuNetwork, KernelChoice, ThreadTeam};
use menshen::engine::{Precision, import, optimise};

/// The system's allocator; it counts the allocations of all threads.
struct CountingAllocator;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged. The default methods for
// zeroed and resized memory call these two.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is that of `System.dealloc`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const NETWORKS: [&str; 5] = [
    "yunet/2023mar/face_detection_yunet_2023mar_int8bq.onnx",
    "sface/2021dec/face_recognition_sface_2021dec_int8bq.onnx",
    "facemesh/3.3.6/facemesh.onnx",
    "iris/3.3.6/iris.onnx",
    "fr_liveness/0.0.1/fr_liveness.onnx",
];

/// Batch sizes in rows: three rows, where one of two threads waits for the other; one row on both
/// threads; and more rows than run together.
const BATCHES: [usize; 3] = [3, 1, 9];

/// Runs before counting: a thread registers with a lock the first time it waits there.
const WARM_RUNS: usize = 3;

const COUNTED_RUNS: usize = 3;

#[test]
fn a_warm_network_allocates_nothing() {
    for (file, threads) in NETWORKS.into_iter().flat_map(|file| [(file, 1), (file, 2)]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(file);
        let graph = optimise(import(std::fs::read(path).unwrap().into(), None).unwrap());
        let team = Arc::new(ThreadTeam::new(threads).unwrap());
        let network = CpuNetwork::load(&graph, KernelChoice::Auto, Precision::F32, team).unwrap();
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let output_len: usize = graph.outputs().iter().map(|output| elements(&output.shape)).sum();
        for rows in BATCHES {
            let input = vec![0.5; rows * elements(&graph.input().shape)];
            let mut outputs = vec![0.0; rows * output_len];
            (0..WARM_RUNS).for_each(|_| network.run(&input, rows, &mut outputs).unwrap());
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            (0..COUNTED_RUNS).for_each(|_| network.run(&input, rows, &mut outputs).unwrap());
            let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert!(before > 0, "the counter counts");
            assert_eq!(count, 0, "{file}: {rows} rows on {threads} threads");
        }
    }
}
