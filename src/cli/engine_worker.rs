//! `menshen engine-worker`: runs one network for a benchmark that times several engines.
//!
//! It prints `ready` and the first four and, from the end, the last four numbers of the first
//! output. Then, for every line `N` on standard input, it runs N times and prints N times
//! `wall:cpu` in milliseconds; `cpu` is of the whole process.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
#[cfg(feature = "cuda")]
use candle_core::Tensor;

use super::Common;
use crate::device::DeviceChoice;
#[cfg(feature = "cuda")]
use crate::engine::Network;
use crate::engine::cpu::{CpuNetwork, Crew, KernelChoice};
#[cfg(feature = "cuda")]
use crate::engine::cuda::CudaNetwork;
use crate::engine::{Graph, Precision, import, optimise};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The network.
    model: PathBuf,
    /// Rows of a batch.
    batch: usize,
    /// Threads, this one included.
    #[arg(id = "worker-threads", value_name = "THREADS")]
    threads: usize,
    /// `auto`, `amx`, `avx512`, `avx2`, `neon` or `portable`.
    #[arg(long, default_value = "auto")]
    kernels: KernelChoice,
}

pub(super) fn run(args: &Args, common: &Common) -> anyhow::Result<ExitCode> {
    let precision: Precision = common.precision.as_deref().unwrap_or("f32").parse()?;
    if args.batch == 0 || args.threads == 0 {
        bail!("BATCH and THREADS must be at least 1");
    }
    let path = args.model.display();
    let bytes = std::fs::read(&args.model).with_context(|| format!("cannot read {path}"))?;
    let graph =
        optimise(import(bytes.into(), None).with_context(|| format!("cannot import {path}"))?);
    let input = probe(args.batch * graph.input().shape.iter().product::<usize>());
    match common.device.as_deref().unwrap_or("cpu").parse()? {
        DeviceChoice::Cpu => {
            let crew = Arc::new(Crew::new(args.threads)?);
            let network = CpuNetwork::load(&graph, args.kernels, precision, crew)?;
            let run = |outputs: &mut Vec<f32>| Ok(network.run(&input, args.batch, outputs)?);
            answer(&graph, args.batch, run)
        }
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(numbers) => run_on_gpu(numbers[0], &graph, precision, &input),
        other => {
            bail!("--device must be cpu or, in a build with CUDA support, cuda:0; it is {other}")
        }
    }
}

/// From the host's memory and back, as the peers run.
#[cfg(feature = "cuda")]
fn run_on_gpu(
    number: usize,
    graph: &Graph,
    precision: Precision,
    input: &[f32],
) -> anyhow::Result<ExitCode> {
    let row = &graph.input().shape;
    let batch = input.len() / row.iter().product::<usize>();
    let gpu = crate::device::cuda::open_alone(number)?;
    let device = candle_core::Device::Cuda(gpu.device().clone());
    let network = CudaNetwork::load(graph, gpu, precision, &[batch])?;
    let network = Network::cuda(graph, Arc::new(network));
    let shape = [&[batch], row.as_slice()].concat();
    answer(graph, batch, |outputs| {
        let found = network.run(&Tensor::from_slice(input, shape.as_slice(), &device)?)?;
        outputs.clear();
        for output in found {
            outputs.extend(output.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    })
}

/// Runs once, and then as often as it is asked. `run` writes each output after the other.
fn answer(
    graph: &Graph,
    batch: usize,
    mut run: impl FnMut(&mut Vec<f32>) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let lens = graph.outputs().into_iter().map(|output| output.shape.iter().product());
    let lens: Vec<usize> = lens.collect();
    let mut outputs = vec![0.0; batch * lens.iter().sum::<usize>()];
    run(&mut outputs)?;
    print_ready(&outputs[..batch * lens[0]]);
    for line in std::io::stdin().lock().lines() {
        let count: usize = line?.trim().parse().context("expected a number of runs")?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let (wall, cpu) = (Instant::now(), cpu_ms()?);
            run(&mut outputs)?;
            let wall_ms = wall.elapsed().as_secs_f64() * 1e3;
            times.push(format!("{wall_ms:.5}:{:.5}", cpu_ms()? - cpu));
        }
        println!("{}", times.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The input all engines are given: number i is ((i × 2654435761) >> 7 & 0xffff) / 32768 − 1.
fn probe(len: usize) -> Vec<f32> {
    let number = |i: u64| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..len as u64).map(number).collect()
}

fn print_ready(output: &[f32]) {
    let ends = output.iter().take(4).chain(output.iter().rev().take(4));
    let numbers: Vec<String> = ends.map(|number| format!("{number:.6}")).collect();
    println!("ready {}", numbers.join(" "));
}

/// Processor time of this process, all threads.
fn cpu_ms() -> anyhow::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6)
}
