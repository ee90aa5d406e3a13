//! Runs one network for `benches/peers/run`, which times several engines. `worker.py` states the
//! protocol: `ready` with the first four and, from the end, the last four numbers of the first
//! output; then, for every line `N` on standard input, N runs and their times as `wall:cpu` in
//! milliseconds, where `cpu` is of the whole process.

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

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one network for a benchmark of several engines.
#[derive(Debug, Parser)]
struct Args {
    /// The network, an ONNX file.
    model: PathBuf,
    /// Rows of a batch.
    batch: NonZeroUsize,
    /// Threads on the CPU, this one included.
    threads: NonZeroUsize,
    /// `f32`, `bf16` (CPU), `tf32` or `f16` (GPU).
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// `auto`, `amx`, `avx512`, `avx2`, `neon` or `portable`.
    #[arg(long, default_value = "auto")]
    kernels: KernelChoice,
    /// Run on this GPU, by its number, in a build with CUDA support.
    #[arg(long, value_name = "NUMBER")]
    gpu: Option<usize>,
}

/// Runs the network once. The results are each output for all rows, one output after the other.
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

/// Answers each line of `counts` on `answers`.
fn run(args: &Args, counts: impl BufRead, mut answers: impl Write) -> anyhow::Result<()> {
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
    writeln!(answers, "ready {}", ends(&outputs[..batch * lens[0]]))?;
    for line in counts.lines() {
        let count: usize = line?.trim().parse().context("expected a number of runs")?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let (wall, cpu) = (Instant::now(), cpu_ms());
            infer(&mut outputs)?;
            let wall_ms = wall.elapsed().as_secs_f64() * 1e3;
            times.push(format!("{wall_ms:.5}:{:.5}", cpu_ms() - cpu));
        }
        writeln!(answers, "{}", times.join(" "))?;
    }
    Ok(())
}

fn on_cpu(args: &Args, graph: &Graph) -> anyhow::Result<Infer> {
    let team = Arc::new(ThreadTeam::new(args.threads.get())?);
    let network = CpuNetwork::load(graph, args.kernels, args.precision, team)?;
    let (input, batch) = (probe(graph, args.batch.get()), args.batch.get());
    Ok(Box::new(move |outputs| Ok(network.run(&input, batch, outputs)?)))
}

/// From the host's memory and back, as the peers run.
#[cfg(feature = "cuda")]
fn on_gpu(number: usize, args: &Args, graph: &Graph) -> anyhow::Result<Infer> {
    let gpu = menshen::device::open_gpu_alone(number)?;
    let device = Device::Cuda(gpu.device().clone());
    let batch = args.batch.get();
    let network = CudaNetwork::load(graph, gpu, args.precision, &[batch])?;
    let input = probe(graph, batch);
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

/// The input all engines are given: number i is ((i × 2654435761) >> 7 & 0xffff) / 32768 − 1.
fn probe(graph: &Graph, batch: usize) -> Vec<f32> {
    let len = batch * graph.input().shape.iter().product::<usize>();
    let number = |i: u64| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..len as u64).map(number).collect()
}

/// The first four numbers from the front, and the last four from the back.
fn ends(output: &[f32]) -> String {
    let numbers = output.iter().take(4).chain(output.iter().rev().take(4));
    numbers.map(|number| format!("{number:.6}")).collect::<Vec<_>>().join(" ")
}

/// Processor time of this process, all threads.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the worker answers for a batch of two, on one thread.
    fn answers(options: &[&str], counts: &str) -> anyhow::Result<String> {
        let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/models/iris/3.3.6/iris.onnx");
        let args = ["engine_worker", iris, "2", "1"].into_iter().chain(options.iter().copied());
        let mut answers = Vec::new();
        run(&Args::parse_from(args), counts.as_bytes(), &mut answers)?;
        Ok(String::from_utf8(answers)?)
    }

    fn numbers(ready: &str) -> Vec<f32> {
        let numbers = ready.trim().strip_prefix("ready ").expect("it is ready");
        numbers.split(' ').map(|number| number.parse().unwrap()).collect()
    }

    #[test]
    fn it_says_what_it_computed_and_how_long_it_took() {
        let answers = answers(&["--kernels", "portable"], "3\n").unwrap();
        let [ready, times] = answers.lines().collect::<Vec<_>>()[..] else { panic!("{answers}") };
        let numbers = numbers(ready);
        assert_eq!(numbers.len(), 8, "{ready}");
        assert!(numbers.iter().all(|number| number.is_finite()), "{ready}");
        let times: Vec<f64> = times.split([' ', ':']).map(|time| time.parse().unwrap()).collect();
        assert!(times.len() == 6 && times.iter().all(|&time| time >= 0.0), "{times:?}");
    }

    #[test]
    fn lines_that_are_no_counts_and_precisions_without_kernels_are_errors() {
        assert!(answers(&[], "many\n").is_err());
        let error = answers(&["--precision", "f16"], "").unwrap_err().to_string();
        assert!(error.contains("16-bit floats"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_refuses_gpus() {
        let error = answers(&["--gpu", "0"], "").unwrap_err().to_string();
        assert!(error.contains("no CUDA support"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn gpu_the_engine_worker_computes_what_that_on_the_cpu_does() {
        let [found, known] =
            [&["--gpu", "0"][..], &[]].map(|options| numbers(&answers(options, "").unwrap()));
        for (found, known) in found.iter().zip(known) {
            assert!((found - known).abs() <= 1e-3 * known.abs().max(1.0), "{found}, {known}");
        }
    }
}
