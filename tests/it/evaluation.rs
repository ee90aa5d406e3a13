//! `menshen eval pad` as a user at a terminal runs it.

use std::process::{Command, Output};

use crate::support::repository;

const SYNTHETIC: &str = "tests/fixtures/pad_scores_synthetic.csv";

fn run_pad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(["eval", "pad"])
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs the command on a file with these lines.
fn run_pad_on(lines: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scores.csv");
    std::fs::write(&file, lines).unwrap();
    run_pad(&[&[file.to_str().unwrap()], arguments].concat())
}

fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the words behind `start` in the line that begins with it.
fn words_after<'a>(report: &'a str, start: &str) -> Vec<&'a str> {
    let line = report.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("no {start} in\n{report}")).split_whitespace().collect()
}

/// The numbers were counted with `awk -F, '$3 ~ /phone/ && $1 >= 0.5' FILE | wc -l` and similar
/// commands. The bounds come from `scipy.stats.beta.ppf`.
#[test]
fn the_synthetic_scores_are_reported_with_the_worst_species_first() {
    let report = printed(&run_pad(&[SYNTHETIC]));
    assert!(report.contains("250 bona fide presentations, 800 attacks of 5 species"), "{report}");
    assert!(report.contains("0.5, the default"), "{report}");
    let worst = words_after(&report, "paper mask (synthetic)");
    assert_eq!(worst[..9], ["40", "39", "3", "7.69", "%", "2.13", "%", "18.7", "%"], "{report}");
    assert!(worst.ends_with(&["◀", "worst"]), "{report}");
    let species: Vec<&str> = report
        .lines()
        .filter_map(|line| line.split_once(" (synthetic)  "))
        .map(|(n, _)| n)
        .collect();
    assert_eq!(
        species[..5],
        ["paper mask", "phone replay", "bent print", "tablet replay", "print"]
    );
    assert_eq!(
        words_after(&report, "bona fide")[..5],
        ["250", "245", "8", "3.27", "%"],
        "{report}"
    );
    assert!(!report.contains("ACER"), "{report}");
    assert!(!report.contains("NaN"), "{report}");
}

#[test]
fn the_report_says_which_claims_the_scores_cannot_support() {
    let report = printed(&run_pad(&[SYNTHETIC]));
    for line in [
        "✗ APCER of every species at most 5 %",
        "    paper mask (synthetic): 39 answered, 59 without an error are needed",
        "    phone replay (synthetic): 10 of 147 passed, so it may be 11.3 %",
        "✗ APCER of every species at most 1 %",
        "✓ BPCER at most 15 %",
        "✗ anything about species, cameras and light that are not in the file",
    ] {
        assert!(report.lines().any(|printed| printed == line), "{line} in\n{report}");
    }
    let clean = "score,label,species\n".to_owned() + &"0,attack,print\n".repeat(299);
    let report = printed(&run_pad_on(&clean, &[]));
    assert!(report.contains("✓ APCER of every species at most 1 %"), "{report}");
}

#[test]
fn a_threshold_and_acer_are_reported_on_request() {
    let report = printed(&run_pad(&[SYNTHETIC, "--threshold", "0.9", "--acer"]));
    assert!(report.contains("threshold  0.9: "), "{report}");
    assert!(report.contains("ACER   "), "{report}");
    assert_eq!(words_after(&report, "print (synthetic)")[2], "0", "{report}");
}

#[test]
fn one_kind_of_presentation_alone_is_stated_and_not_drawn() {
    let attacks = "score,label,species\n0.1,attack,print\n";
    let report = printed(&run_pad_on(attacks, &["--acer"]));
    for words in ["no bona fide presentations", "✗ BPCER at most 15 %", "ACER   –"] {
        assert!(report.contains(words), "{words} in\n{report}");
    }
    let people = "score,label,species\n0.9,bona fide,\n";
    assert!(printed(&run_pad_on(people, &[])).contains("no attacks in the file"));
    for lines in [attacks, people] {
        let plot = run_pad_on(lines, &["--plot", "/nowhere/det.svg"]);
        assert_eq!(plot.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&plot.stderr).contains("both kinds"), "{plot:?}");
    }
    let sure = "score,label,species\n1,attack,print\n0.9,bona fide,\n";
    assert_eq!(
        words_after(&printed(&run_pad_on(sure, &[])), "BPCER20, at APCER ≤ 5 %")[0],
        "above"
    );
    let silent = "score,label,species,outcome\n,attack,print,non-response\n0.9,bona fide,,\n";
    let report = printed(&run_pad_on(silent, &[]));
    assert!(report.contains("Never answered, so in no rate but APNRR: print"), "{report}");
    assert!(!report.contains("NaN") && !report.contains("worst"), "{report}");
}

#[test]
fn json_says_what_the_table_says() {
    let report: serde_json::Value =
        serde_json::from_str(&printed(&run_pad(&[SYNTHETIC, "--json", "--acer"]))).unwrap();
    assert_eq!(report["apcer"]["species"], "paper mask (synthetic)");
    assert_eq!(report["apcer"]["rate"]["errors"], 3);
    assert_eq!(report["bpcer"]["presentations"], 245);
    assert_eq!(report["attacks"].as_array().unwrap().len(), 5);
    let at_most = report["attacks"][0]["apcer"]["at_most"].as_f64().unwrap();
    assert!((at_most - 0.186_979_5).abs() < 1e-5, "{at_most}");
    let acer = report["acer"].as_f64().unwrap();
    assert!((acer - (3.0 / 39.0 + 8.0 / 245.0) / 2.0).abs() < 1e-12, "{acer}");
    let bpcer20 = &report["trade_off"]["bpcer20"];
    assert!(bpcer20["apcer"]["value"].as_f64().unwrap() <= 0.05, "{bpcer20}");
    let claims = report["claims"].as_array().unwrap();
    let supported: Vec<bool> = claims.iter().map(|c| c["supported"].as_bool().unwrap()).collect();
    assert_eq!(supported, [false, false, true, true], "{claims:#?}");
}

#[test]
fn the_trade_off_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("det.svg");
    printed(&run_pad(&[SYNTHETIC, "--plot", plot.to_str().unwrap()]));
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    for words in
        ["pad_scores_synthetic.csv", "250 bona fide", "paper mask (synthetic)", "APCER at 0.5"]
    {
        assert!(svg.contains(words), "{words}");
    }
    assert_eq!(svg.matches("<polyline").count(), 6);
}

#[test]
fn a_file_that_cannot_be_evaluated_exits_with_2_and_says_where() {
    let too_many = "score,label,species\n".to_owned() + &"0,attack,print\n".repeat(1_000_001);
    for (lines, words) in [
        ("", "scores.csv: no presentations"),
        ("score,label,species\n", "scores.csv: no presentations"),
        ("score,label\n1,attack\n", "line 1: no column `species`"),
        (
            "score,label,species\n0.5,attack,a\nhigh,attack,a\n",
            "line 3, column 1 (`score`): must be",
        ),
        ("score,label,species\n0.5,attack\n", "line 2: 2 cells, the heading has 3"),
        ("score,label,species\n0.5,\"attack,a\n", "line 2, column 2: has a quote that is never"),
        (&too_many, "more than 1000000 presentations"),
    ] {
        let refused = run_pad_on(lines, &[]);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(words), "{words} in\n{error}");
        assert!(refused.stdout.is_empty());
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_name_what_is_wrong() {
    for (arguments, words) in [
        (vec!["/nowhere.csv"], "cannot read /nowhere.csv"),
        (vec!["tests"], "cannot read tests"),
        (vec![SYNTHETIC, "--threshold", "1.5"], "must be a number from 0 to 1"),
        (vec![SYNTHETIC, "--plot", "/nowhere/det.svg"], "cannot write /nowhere/det.svg"),
        (vec![], "<SCORES>"),
    ] {
        let refused = run_pad(&arguments);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words), "{words} in\n{error}");
    }
}
