//! Runs one network for `benches/peers/run`, which times several engines.
//!
//! `worker.py` states the protocol. The worker prints `ready` with the first four values of the
//! first output, and then its last four, the very last one first. For every line `N` on standard
//! input it runs the network N times and prints N times as `wall:cpu` in milliseconds, where `cpu`
//! is the time of the whole process.

use std::io::{BufRead, Write, stdin, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
#[cfg(feature = "cuda")]
use candle_core::{Device, Tensor};
use clap::Parser;
use menshen::engine::cpu::{CpuNetwork, KernelChoice, ThreadTeam};
#[cfg(feature = "cuda")]
use menshen::engine::cuda::CudaNetwork;
use menshen::engine::{Graph, Precision, import, optimise};

/// The same allocator as the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one network for a benchmark of several engines.
#[derive(Debug, Parser)]
struct Args {
    /// Network, an ONNX file.
    model: PathBuf,
    /// Rows of a batch.
    batch: NonZeroUsize,
    /// Threads on the CPU, the main thread included.
    threads: NonZeroUsize,
    /// Precision: `f32`, `bf16` (CPU), `tf32` or `f16` (GPU).
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Kernels on the CPU: `auto`, `amx`, `avx512`, `avx2`, `neon` or `portable`.
    #[arg(long, default_value = "auto")]
    kernels: KernelChoice,
    /// Run on the GPU with this CUDA ordinal, in a build with CUDA support.
    #[arg(long, value_name = "NUMBER")]
    gpu: Option<usize>,
}

/// Runs the network once and writes the results: each output for all rows, one output after the
/// other.
type Infer = Box<dyn FnMut(&mut [f32]) -> anyhow::Result<()>>;

fn main() -> ExitCode {
    match run(&Args::parse(), stdin().lock(), stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the benchmark reads errors there")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

/// Replies to each line of `requests` on `replies`.
fn run(args: &Args, requests: impl BufRead, mut replies: impl Write) -> anyhow::Result<()> {
    let path = args.model.display();
    let bytes = std::fs::read(&args.model).with_context(|| format!("cannot read {path}"))?;
    let graph = import(bytes.into(), None).with_context(|| format!("cannot import {path}"))?;
    let graph = optimise(graph);
    let mut infer = match args.gpu {
        None => on_cpu(args, &graph)?,
        Some(number) => on_gpu(number, args, &graph)?,
    };
    let lens = graph.outputs().into_iter().map(|output| output.shape.iter().product());
    let lens: Vec<usize> = lens.collect();
    let batch = args.batch.get();
    let mut outputs = vec![0.0; batch * lens.iter().sum::<usize>()];
    infer(&mut outputs)?;
    writeln!(replies, "ready {}", first_and_last(&outputs[..batch * lens[0]]))?;
    for line in requests.lines() {
        let count: usize = line?.trim().parse().context("expected a number of runs")?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let (wall, cpu) = (Instant::now(), cpu_ms());
            infer(&mut outputs)?;
            let wall_ms = wall.elapsed().as_secs_f64() * 1e3;
            times.push(format!("{wall_ms:.5}:{:.5}", cpu_ms() - cpu));
        }
        writeln!(replies, "{}", times.join(" "))?;
    }
    Ok(())
}

fn on_cpu(args: &Args, graph: &Graph) -> anyhow::Result<Infer> {
    let team = Arc::new(ThreadTeam::new(args.threads.get())?);
    let network = CpuNetwork::load(graph, args.kernels, args.precision, team)?;
    let (input, batch) = (noise_input(graph, args.batch.get()), args.batch.get());
    Ok(Box::new(move |outputs| Ok(network.run(&input, batch, outputs)?)))
}

/// Returns a run on a GPU, from host memory and back, as the peers run.
#[cfg(feature = "cuda")]
fn on_gpu(number: usize, args: &Args, graph: &Graph) -> anyhow::Result<Infer> {
    let gpu = menshen::device::open_gpu_alone(number)?;
    let device = Device::Cuda(gpu.device().clone());
    let batch = args.batch.get();
    let network = CudaNetwork::load(graph, gpu, args.precision, &[batch])?;
    let input = noise_input(graph, batch);
    let shape = [&[batch], graph.input().shape.as_slice()].concat();
    Ok(Box::new(move |outputs| {
        let rows = Tensor::from_slice(&input, shape.as_slice(), &device)?;
        outputs.copy_from_slice(&rows.apply_op1_no_bwd(&network)?.to_vec1()?);
        Ok(())
    }))
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(number: usize, _: &Args, _: &Graph) -> anyhow::Result<Infer> {
    anyhow::bail!("GPU {number}: this build has no CUDA support (feature `cuda`)")
}

/// Returns the input that every engine is given. Value i is:
///
/// `((i × 2654435761) >> 7 & 0xffff) / 32768 − 1`
fn noise_input(graph: &Graph, batch: usize) -> Vec<f32> {
    let len = batch * graph.input().shape.iter().product::<usize>();
    let number = |i: u64| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..len as u64).map(number).collect()
}

/// Formats the first four values and the last four, the very last one first.
fn first_and_last(output: &[f32]) -> String {
    let numbers = output.iter().take(4).chain(output.iter().rev().take(4));
    numbers.map(|number| format!("{number:.6}")).collect::<Vec<_>>().join(" ")
}

/// Returns the CPU time of this process, all threads, in milliseconds.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the replies of the worker for a batch of two, on one thread.
    fn replies(options: &[&str], requests: &str) -> anyhow::Result<String> {
        let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/models/iris/3.3.6/iris.onnx");
        let args = ["engine_worker", iris, "2", "1"].into_iter().chain(options.iter().copied());
        let mut replies = Vec::new();
        run(&Args::parse_from(args), requests.as_bytes(), &mut replies)?;
        Ok(String::from_utf8(replies)?)
    }

    fn numbers(ready: &str) -> Vec<f32> {
        let numbers = ready.trim().strip_prefix("ready ").expect("it is ready");
        numbers.split(' ').map(|number| number.parse().unwrap()).collect()
    }

    #[test]
    fn it_replies_with_outputs_and_times() {
        let replies = replies(&["--kernels", "portable"], "3\n").unwrap();
        let [ready, times] = replies.lines().collect::<Vec<_>>()[..] else { panic!("{replies}") };
        let numbers = numbers(ready);
        assert_eq!(numbers.len(), 8, "{ready}");
        assert!(numbers.iter().all(|number| number.is_finite()), "{ready}");
        let times: Vec<f64> = times.split([' ', ':']).map(|time| time.parse().unwrap()).collect();
        assert!(times.len() == 6 && times.iter().all(|&time| time >= 0.0), "{times:?}");
    }

    #[test]
    fn lines_without_a_count_and_precisions_without_kernels_are_errors() {
        assert!(replies(&[], "many\n").is_err());
        let error = replies(&["--precision", "f16"], "").unwrap_err().to_string();
        assert!(error.contains("16-bit floats"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_refuses_gpus() {
        let error = replies(&["--gpu", "0"], "").unwrap_err().to_string();
        assert!(error.contains("no CUDA support"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn gpu_the_engine_worker_computes_what_the_cpu_computes() {
        let [found, known] =
            [&["--gpu", "0"][..], &[]].map(|options| numbers(&replies(options, "").unwrap()));
        for (found, known) in found.iter().zip(known) {
            assert!((found - known).abs() <= 1e-3 * known.abs().max(1.0), "{found}, {known}");
        }
    }
}
