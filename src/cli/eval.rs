//! `menshen eval`: how good a system is, from scores that were recorded elsewhere.

mod report;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use menshen_evaluation::{
    Evaluation, FILE_BYTES_MAX, Findings, Presentation, Score, plot, read_scores,
};

use super::Common;

/// The threshold without `--threshold`: the middle, which no system chose for itself.
const THRESHOLD: f64 = 0.5;

/// What to evaluate.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Judge presentation attack detection by ISO/IEC 30107-3 from a CSV file of scores.
    Pad(Args),
}

/// Options of `menshen eval pad`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scores of labelled presentations: columns `score` (0 to 1, the probability of a live
    /// person), `label` (`bona fide` or `attack`) and `species` (empty for bona fide); optional
    /// `subject`, `device`, `presentation` (unique) and `outcome` (`response` or `non-response`).
    scores: PathBuf,
    /// A score at or above it passes.
    #[arg(long, value_name = "SCORE", value_parser = score)]
    threshold: Option<Score>,
    /// Write the detection error trade-off (DET) to this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Also give ACER, to compare with papers: a mean that hides the worst species.
    #[arg(long)]
    acer: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, _: &Common) -> anyhow::Result<ExitCode> {
    let Command::Pad(args) = command;
    let evaluation = Evaluation::new(presentations(&args.scores)?);
    let threshold = args.threshold.or(Score::new(THRESHOLD)).expect("the default is a probability");
    let findings = Findings {
        file: args.scores.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        is_default_threshold: args.threshold.is_none(),
        with_acer: args.acer,
        report: evaluation.report_at(threshold),
        trade_off: evaluation.trade_off(),
    };
    if let Some(path) = &args.plot {
        draw(&findings, path)?;
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

fn presentations(path: &Path) -> anyhow::Result<Vec<Presentation>> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file of any size is seen to be too large.
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    read_scores(&bytes).with_context(|| path.display().to_string())
}

fn draw(findings: &Findings<'_>, path: &Path) -> anyhow::Result<()> {
    let trade_off = findings
        .trade_off
        .as_ref()
        .context("--plot needs answered presentations of both kinds, bona fide and attack")?;
    std::fs::write(path, plot::draw_svg(&findings.file, &findings.report, trade_off))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn score(text: &str) -> Result<Score, &'static str> {
    text.parse().ok().and_then(Score::new).ok_or("must be a number from 0 to 1")
}
