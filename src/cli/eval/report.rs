//! The report of an evaluation as text.

use menshen_evaluation::{
    Claim, ErrorRates, Findings, Rate, SampleCounts, Shortfall, ThresholdReport, TradeOff, percent,
};

use crate::cli::table::Table;

/// Length of the longest bar, in characters.
const BAR_WIDTH: usize = 12;

/// Shown instead of a rate if nothing was judged.
const NO_RATE: &str = "–";

pub(super) fn lines(findings: &Findings<'_>) -> Vec<String> {
    let report = &findings.report;
    let sections = [
        heading_lines(findings),
        attack_lines(&report.attacks),
        bona_fide_lines(&report.bona_fide),
        system_lines(report, findings.with_acer),
        findings.trade_off.as_ref().map_or(Vec::new(), trade_off_lines),
        claims_lines(report),
    ];
    sections
        .into_iter()
        .filter(|section| !section.is_empty())
        .collect::<Vec<_>>()
        .join(&String::new())
}

fn heading_lines(findings: &Findings<'_>) -> Vec<String> {
    let origin = if findings.is_default_threshold { ", the default" } else { "" };
    vec![
        format!("scores     {}: {}", findings.file, findings.report.describe_contents()),
        format!(
            "threshold  {}{origin}: a score at or above it passes as a living person",
            findings.report.threshold
        ),
        "bounds     at least, at most: each holds alone with 95 % confidence (Clopper-Pearson)"
            .to_owned(),
    ]
}

fn attack_lines(species: &[SampleCounts]) -> Vec<String> {
    if species.is_empty() {
        return vec!["There are no attacks in the file: nothing is known about APCER.".to_owned()];
    }
    let headings =
        ["attack species", ">shown", ">answered", ">passed", ">APCER", ">at least", ">at most"];
    let mut table = Table::new(&[&headings[..], &["", ">APNRR", ""]].concat());
    let longest = species.iter().filter_map(|counts| counts.error_rate).map(Rate::upper_bound);
    let longest = longest.fold(0.0, f64::max);
    for (index, counts) in species.iter().enumerate() {
        let mut cells = count_cells(counts);
        let bar = counts.error_rate.map_or(String::new(), |rate| bar(rate, longest));
        let is_worst = index == 0 && counts.error_rate.is_some();
        let mark = if is_worst { "◀ worst" } else { "" };
        cells.extend([bar, rate_cell(counts.non_response_rate), mark.to_owned()]);
        table.add_line(cells);
    }
    table.render()
}

fn bona_fide_lines(counts: &SampleCounts) -> Vec<String> {
    if counts.presentations == 0 {
        let absent =
            "There are no bona fide presentations in the file: nothing is known about BPCER.";
        return vec![absent.to_owned()];
    }
    let headings =
        ["living people", ">shown", ">answered", ">rejected", ">BPCER", ">at least", ">at most"];
    let mut table = Table::new(&[&headings[..], &[">BPNRR"]].concat());
    let mut cells = count_cells(counts);
    cells.push(rate_cell(counts.non_response_rate));
    table.add_line(cells);
    table.render()
}

/// Returns the cells that attacks and bona fide presentations have in common.
fn count_cells(counts: &SampleCounts) -> Vec<String> {
    let answered = counts.error_rate.map_or(0, Rate::presentations);
    let mut cells =
        vec![counts.name.clone(), counts.presentations.to_string(), answered.to_string()];
    let [wrong, lower, upper] = counts.error_rate.map_or([NO_RATE; 3].map(str::to_owned), |rate| {
        [rate.errors().to_string(), percent(rate.lower_bound()), percent(rate.upper_bound())]
    });
    cells.extend([wrong, rate_cell(counts.error_rate), lower, upper]);
    cells
}

/// Returns a bar that is full up to the rate and light up to the rate's upper bound.
fn bar(rate: Rate, longest: f64) -> String {
    let width = |value: f64| (value / longest * BAR_WIDTH as f64).round() as usize;
    let (full, whole) = (width(rate.value()), width(rate.upper_bound()));
    "█".repeat(full) + &"░".repeat(whole.saturating_sub(full))
}

/// Returns the lines about the whole system.
fn system_lines(report: &ThresholdReport, with_acer: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((worst, rate)) = report.apcer() {
        lines
            .push(format!("APCER  {}, that of the worst species: {worst}", rate_with_bounds(rate)));
    }
    if let Some(rate) = report.bpcer() {
        lines.push(format!("BPCER  {}", rate_with_bounds(rate)));
    }
    let silent: Vec<&str> = report
        .attacks
        .iter()
        .filter(|species| species.error_rate.is_none())
        .map(|species| species.name.as_str())
        .collect();
    if !silent.is_empty() {
        lines.push(format!("Never answered, so in no rate but APNRR: {}", silent.join(", ")));
    }
    if with_acer {
        let acer = report.acer().map_or(NO_RATE.to_owned(), percent);
        lines.push(format!(
            "ACER   {acer}, only to compare with papers: a mean of two errors that hides both"
        ));
    }
    lines
}

fn trade_off_lines(trade_off: &TradeOff<'_>) -> Vec<String> {
    let headings = ["at another threshold", ">threshold", ">rate", ">at most", ">APCER", ">BPCER"];
    let mut table = Table::new(&[&headings[..], &["worst species"]].concat());
    for point in trade_off.operating_points() {
        let ErrorRates { threshold, worst_species, apcer, bpcer } = point.error_rates;
        let threshold =
            if threshold > 1.0 { "above 1".to_owned() } else { format!("{threshold:.4}") };
        let mut cells = vec![point.name.to_owned(), threshold];
        let rates = [
            point.quoted_rate.value(),
            point.quoted_rate.upper_bound(),
            apcer.value(),
            bpcer.value(),
        ];
        cells.extend(rates.map(percent));
        cells.push(worst_species);
        table.add_line(cells);
    }
    let mut lines = table.render();
    lines.push(
        "A threshold chosen on these scores flatters them: prove it on fresh ones.".to_owned(),
    );
    lines
}

fn claims_lines(report: &ThresholdReport) -> Vec<String> {
    let mut lines = vec!["What these presentations support, with 95 % confidence".to_owned()];
    for claim in report.apcer_claims() {
        lines.extend(claim_lines("APCER of every species", "passed", &claim));
    }
    for claim in report.bpcer_claims() {
        lines.extend(claim_lines("BPCER", "were rejected", &claim));
    }
    lines.push("✗ anything about species, cameras and light that are not in the file".to_owned());
    lines.extend(dependence_warning(report));
    lines
}

fn claim_lines(what: &str, wrong: &str, claim: &Claim) -> Vec<String> {
    let mark = if claim.is_supported() { "✓" } else { "✗" };
    let mut lines = vec![format!("{mark} {what} at most {} %", claim.limit * 100.0)];
    lines.extend(claim.shortfalls.iter().map(|shortfall| match shortfall {
        Shortfall::TooFew { name, presentations, needed } => {
            format!("    {name}: {presentations} answered, {needed} without an error are needed")
        }
        Shortfall::TooManyErrors { name, rate } => format!(
            "    {name}: {} of {} {wrong}, so it may be {}",
            rate.errors(),
            rate.presentations(),
            percent(rate.upper_bound())
        ),
    }));
    lines
}

/// Returns a warning if subjects repeat, because the bounds assume independent presentations.
fn dependence_warning(report: &ThresholdReport) -> Option<String> {
    let kinds = || report.attacks.iter().chain([&report.bona_fide]);
    let repeats =
        |counts: &SampleCounts| counts.subjects > 0 && counts.subjects < counts.presentations;
    let fewest = kinds().filter(|counts| repeats(counts)).min_by_key(|counts| counts.subjects)?;
    Some(format!(
        "! Subjects repeat, {} in {} presentations of {}: bounds take them for independent.",
        fewest.subjects, fewest.presentations, fewest.name
    ))
}

fn rate_cell(rate: Option<Rate>) -> String {
    rate.map_or(NO_RATE.to_owned(), |rate| percent(rate.value()))
}

fn rate_with_bounds(rate: Rate) -> String {
    let [value, lower, upper] = [rate.value(), rate.lower_bound(), rate.upper_bound()].map(percent);
    format!("{value} (at least {lower}, at most {upper})")
}
