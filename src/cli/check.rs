//! `menshen check`: prints everything that is wrong with what a start reads.

use std::process::ExitCode;

use super::table::Table;
use super::{runtime, serve};
use crate::app::{Finding, FindingState, check};
use crate::config::{ParsedConfig, Refusal};
use crate::telemetry::causes;

/// Options of `menshen check`: those of `menshen serve` that set something.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: serve::ServeOptions,
}

struct ReportLine {
    key: String,
    state: &'static str,
    message: String,
}

const WRONG: &str = "WRONG";

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let lines = match args.options.read() {
        Ok(reading) => inspect(&reading)?,
        Err(error) => vec![ReportLine::new("--config", WRONG, &causes(&error))],
    };
    let mut table = Table::new(&["setting", "", ""]);
    for ReportLine { key, state, message } in &lines {
        table.add_line(vec![key.clone(), (*state).to_owned(), message.clone()]);
    }
    for line in table.render() {
        println!("{line}");
    }
    let wrong = lines.iter().filter(|line| line.state == WRONG).count();
    if wrong == 0 {
        println!(
            "nothing is wrong; only a start tries the ports, the GPUs and the models' goldens"
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{wrong} wrong: a start would fail");
    Ok(ExitCode::FAILURE)
}

/// Returns a line for each refused setting, then a line for each part of a start that settings
/// name.
fn inspect(reading: &ParsedConfig) -> anyhow::Result<Vec<ReportLine>> {
    let mut lines: Vec<ReportLine> =
        reading.refusals.iter().map(ReportLine::from_refusal).collect();
    let refused: Vec<String> =
        reading.refusals.iter().map(|refusal| refusal.key().to_owned()).collect();
    let findings = runtime()?.block_on(check(&reading.config, &refused));
    lines.extend(findings.iter().map(ReportLine::from_finding));
    Ok(lines)
}

impl ReportLine {
    /// Replaces line breaks by spaces: messages of parsers have several lines.
    fn new(key: &str, state: &'static str, message: &str) -> Self {
        let words: Vec<&str> = message.split_whitespace().collect();
        Self { key: key.to_owned(), state, message: words.join(" ") }
    }

    fn from_refusal(refusal: &Refusal) -> Self {
        let message = match refusal {
            Refusal::Unreadable { reason, .. } => reason.clone(),
            Refusal::OutOfRange(violation) => {
                format!("is {}, but must be {}", violation.value, violation.rule)
            }
            Refusal::Variable(_) => refusal.to_string(),
        };
        Self::new(refusal.key(), WRONG, &message)
    }

    fn from_finding(finding: &Finding) -> Self {
        match &finding.state {
            FindingState::Valid(message) => Self::new(finding.key, "ok", message),
            FindingState::Invalid(error) => Self::new(finding.key, WRONG, &causes(error)),
            FindingState::NotChecked => {
                Self::new(finding.key, "-", "not checked: one of its settings is refused")
            }
        }
    }
}
