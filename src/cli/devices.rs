//! `menshen devices`: prints which devices this build and this machine have to run networks on.

use std::process::ExitCode;

use super::table::Table;
use crate::device::{CpuSurvey, CudaSurvey, GpuSurvey, KernelSurvey, survey};

/// Options of `menshen devices`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the devices as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let survey = survey();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&survey)?);
        return Ok(ExitCode::SUCCESS);
    }
    let headings = ["device", "model", ">cores", ">memory", "f32 kernels", "bf16 kernels"];
    let mut table = Table::new(&headings);
    table.add_line(cpu_cells(&survey.cpu));
    table.render().iter().for_each(|line| println!("{line}"));
    println!("* taken by `auto`");
    println!();
    cuda_lines(&survey.cuda).for_each(|line| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}

/// Returns the lines about CUDA: the GPUs, the driver's state, and the libraries.
fn cuda_lines(cuda: &CudaSurvey) -> impl Iterator<Item = String> {
    let devices = if cuda.devices.is_empty() { Vec::new() } else { gpu_lines(&cuda.devices) };
    let state = match (&cuda.unusable, &cuda.driver) {
        (Some(why), _) => format!("CUDA: {why}"),
        (None, Some(version)) => format!("CUDA: the driver runs programs up to CUDA {version}"),
        (None, None) => "CUDA: the driver does not report its version".to_owned(),
    };
    let libraries = cuda.libraries.iter().map(|library| {
        let kind = if library.is_optional { ", optional" } else { "" };
        let state = library.missing.as_deref().unwrap_or("found");
        format!("  {}{kind}: {state}", library.name)
    });
    let libraries: Vec<String> = libraries.collect();
    devices.into_iter().chain([state]).chain(libraries)
}

/// Returns a table of the GPUs, then one line for each GPU that cannot be used, with the reason.
fn gpu_lines(devices: &[GpuSurvey]) -> Vec<String> {
    let mut gpus = Table::new(&["device", "model", ">compute", ">memory", ">free", "convolutions"]);
    let unknown = || "unknown".to_owned();
    let memory = |bytes: Option<usize>| bytes.map_or_else(unknown, |known| gibibytes(known as u64));
    for gpu in devices {
        gpus.add_line(vec![
            gpu.device.clone(),
            gpu.model.clone().unwrap_or_else(unknown),
            gpu.capability.clone().unwrap_or_else(unknown),
            memory(gpu.memory_bytes),
            memory(gpu.free_bytes),
            gpu.kernels.to_owned(),
        ]);
    }
    let unusable = devices.iter().filter_map(|gpu| {
        gpu.unusable.as_ref().map(|why| format!("{} cannot be used: {why}", gpu.device))
    });
    gpus.render().into_iter().chain(unusable).collect()
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn cpu_cells(cpu: &CpuSurvey) -> Vec<String> {
    vec![
        "cpu".to_owned(),
        cpu.model.clone(),
        cpu.cores.to_string(),
        cpu.memory_bytes.map_or_else(|| "unknown".to_owned(), gibibytes),
        kernel_names(&cpu.f32),
        kernel_names(&cpu.bf16),
    ]
}

/// Returns the names of the kernels; a star marks the one that `auto` takes.
fn kernel_names(kernels: &KernelSurvey) -> String {
    let name = |name: &&'static str| match kernels.auto {
        Some(auto) if auto == *name => format!("{name}*"),
        _ => (*name).to_owned(),
    };
    kernels.available.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_that_auto_takes_has_a_star() {
        let f32 = KernelSurvey { available: vec!["avx2", "portable"], auto: Some("avx2") };
        let bf16 = KernelSurvey { available: vec!["portable-bf16"], auto: None };
        let model = "a processor".to_owned();
        let cpu = CpuSurvey { model, cores: 2, memory_bytes: Some(3 << 29), f32, bf16 };
        let cells = ["cpu", "a processor", "2", "1.5 GiB", "avx2* portable", "portable-bf16"];
        assert_eq!(cpu_cells(&cpu), cells);
    }

    #[test]
    fn every_gpu_has_its_line_and_one_that_cannot_be_used_says_why() {
        let good = GpuSurvey {
            device: "cuda:0".to_owned(),
            unusable: None,
            model: Some("a GPU".to_owned()),
            capability: Some("9.0".to_owned()),
            memory_bytes: Some(3 << 30),
            free_bytes: Some(1 << 30),
            kernels: "cuDNN",
        };
        let unusable = Some("it is busy".to_owned());
        let (device, free_bytes) = ("cuda:1".to_owned(), None);
        let bad = GpuSurvey { device, unusable, free_bytes, ..good.clone() };
        let lines = gpu_lines(&[good, bad]);
        assert_eq!(lines[2], "cuda:0  a GPU      9.0  3.0 GiB  1.0 GiB  cuDNN");
        assert_eq!(lines[3], "cuda:1  a GPU      9.0  3.0 GiB  unknown  cuDNN");
        assert_eq!(lines[4..], ["cuda:1 cannot be used: it is busy"]);
    }
}
