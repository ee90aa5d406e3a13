//! A planned network that is warm allocates nothing.
//!
//! A binary of its own because a process has one global allocator, and this one counts: beside
//! other tests it would count theirs. It holds one test for the same reason.
#![expect(unsafe_code, reason = "an allocator is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use menshen::engine::cpu::{CpuNetwork, KernelChoice, ThreadTeam};
use menshen::engine::{Precision, import, optimise};

/// The system's allocator, which counts what it is asked for on any thread.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came. The default methods for zeroed and
// resized memory call these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: what the caller promises.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NETWORKS: [&str; 5] = [
    "yunet/2023mar/face_detection_yunet_2023mar_int8bq.onnx",
    "sface/2021dec/face_recognition_sface_2021dec_int8bq.onnx",
    "facemesh/3.3.6/facemesh.onnx",
    "iris/3.3.6/iris.onnx",
    "fr_liveness/0.0.1/fr_liveness.onnx",
];

/// Three rows on two threads, so that one waits for the other, and one row on both. More rows than
/// run together.
const BATCHES: [usize; 3] = [3, 1, 9];

/// Threads that wait for each other the first time register with the lock they wait at.
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
