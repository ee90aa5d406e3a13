//! `menshen eval`: evaluates a system by scores that were recorded elsewhere.

mod report;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use menshen_evaluation::{
    Evaluation, FILE_BYTES_MAX, Findings, Presentation, Score, plot, read_scores,
};

/// Threshold without `--threshold`: the middle of the scale, which no system chose for itself.
const THRESHOLD_DEFAULT: f64 = 0.5;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Evaluate presentation attack detection (PAD) by ISO/IEC 30107-3 from a CSV file of scores.
    Pad(Args),
}

/// Options of `menshen eval pad`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// CSV file with one line per presentation. Required columns: `score` (0 to 1, the probability
    /// of a live person), `label` (`bona fide` or `attack`) and `species` (empty for bona fide).
    /// Optional columns: `subject`, `device`, `presentation` (unique) and `outcome` (`response` or
    /// `non-response`).
    scores: PathBuf,
    /// Lowest score that passes, 0 to 1; 0.5 unless given.
    #[arg(long, value_name = "SCORE", value_parser = parse_score)]
    threshold: Option<Score>,
    /// Write the detection error trade-off (DET) to this file (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Also print ACER, for comparison with papers: a mean that hides the worst species.
    #[arg(long)]
    acer: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Pad(args) = command;
    let evaluation = Evaluation::new(read_presentations(&args.scores)?);
    let threshold =
        args.threshold.or(Score::new(THRESHOLD_DEFAULT)).expect("the default is a probability");
    let findings = Findings {
        file: args.scores.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        is_default_threshold: args.threshold.is_none(),
        with_acer: args.acer,
        report: evaluation.report_at(threshold),
        trade_off: evaluation.trade_off(),
    };
    if let Some(path) = &args.plot {
        write_plot(&findings, path)?;
    }
    if args.json {
        println!("{:#}", findings.to_json());
    } else {
        for line in report::lines(&findings) {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read_presentations(path: &Path) -> anyhow::Result<Vec<Presentation>> {
    let mut bytes = Vec::new();
    // One byte more than the limit, so that a file of any size is recognised as too large.
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    read_scores(&bytes).with_context(|| path.display().to_string())
}

fn write_plot(findings: &Findings<'_>, path: &Path) -> anyhow::Result<()> {
    let trade_off = findings
        .trade_off
        .as_ref()
        .context("--plot needs answered presentations of both kinds, bona fide and attack")?;
    std::fs::write(path, plot::draw_svg(&findings.file, &findings.report, trade_off))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn parse_score(text: &str) -> Result<Score, &'static str> {
    text.parse().ok().and_then(Score::new).ok_or("must be a number from 0 to 1")
}
