//! `menshen devices`: what this build and machine have to run networks on.

use std::process::ExitCode;

use super::table::Table;
use crate::device::{CpuSurvey, KernelSurvey, survey};

/// Options of `menshen devices`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON.
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
    table.row(cpu_row(&survey.cpu));
    for line in table.lines() {
        println!("{line}");
    }
    println!("* taken by `auto`");
    println!("CUDA: {}", survey.cuda);
    Ok(ExitCode::SUCCESS)
}

fn cpu_row(cpu: &CpuSurvey) -> Vec<String> {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    vec![
        "cpu".to_owned(),
        cpu.model.clone(),
        cpu.cores.to_string(),
        cpu.memory_bytes.map_or_else(|| "unknown".to_owned(), gib),
        kernels(&cpu.f32),
        kernels(&cpu.bf16),
    ]
}

/// The names, that of `auto` with a star.
fn kernels(kernels: &KernelSurvey) -> String {
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
    fn what_auto_takes_has_a_star() {
        let f32 = KernelSurvey { available: vec!["avx2", "portable"], auto: Some("avx2") };
        let bf16 = KernelSurvey { available: vec!["portable-bf16"], auto: None };
        let model = "a processor".to_owned();
        let cpu = CpuSurvey { model, cores: 2, memory_bytes: Some(3 << 29), f32, bf16 };
        let row = ["cpu", "a processor", "2", "1.5 GiB", "avx2* portable", "portable-bf16"];
        assert_eq!(cpu_row(&cpu), row);
    }
}
