//! The report of an evaluation as a program reads it.

use serde_json::{Map, Value, json};

use super::Findings;
use super::report::points;
use crate::liveness::evaluation::{CONFIDENCE, Claim, Counts, Rate, Report, Shortfall, TradeOff};

pub(super) fn of(findings: &Findings<'_>) -> Value {
    let report = &findings.report;
    let apcer =
        report.apcer().map(|(species, rate)| json!({"species": species, "rate": of_rate(rate)}));
    let attacks: Vec<Value> =
        report.attacks.iter().map(|species| of_counts(species, "apcer", "apnrr")).collect();
    let mut all = json!({
        "file": findings.file,
        "threshold": report.threshold,
        "threshold_is_default": findings.is_default_threshold,
        "confidence_of_each_bound": CONFIDENCE,
        "apcer": apcer,
        "bpcer": report.bpcer().map(of_rate),
        "attacks": attacks,
        "bona_fide": of_counts(&report.bona_fide, "bpcer", "bpnrr"),
        "trade_off": findings.trade_off.as_ref().map(of_trade_off),
        "claims": of_claims(report),
    });
    if findings.with_acer {
        all["acer"] = json!(report.acer());
    }
    all
}

fn of_rate(rate: Rate) -> Value {
    json!({
        "value": rate.value(),
        "at_least": rate.lower(),
        "at_most": rate.upper(),
        "errors": rate.errors(),
        "presentations": rate.presentations(),
    })
}

fn of_counts(counts: &Counts, errors: &str, non_responses: &str) -> Value {
    json!({
        "name": counts.name,
        "presentations": counts.presentations,
        "subjects": counts.subjects,
        "devices": counts.devices,
        errors: counts.errors.map(of_rate),
        non_responses: counts.non_responses.map(of_rate),
    })
}

fn of_trade_off(trade_off: &TradeOff<'_>) -> Value {
    let point = |point: super::report::Point| {
        let errors = json!({
            "threshold": point.errors.threshold,
            "worst": point.errors.worst,
            "apcer": of_rate(point.errors.apcer),
            "bpcer": of_rate(point.errors.bpcer),
        });
        (point.key.to_owned(), errors)
    };
    points(trade_off).into_iter().map(point).collect::<Map<_, _>>().into()
}

fn of_claims(report: &Report) -> Vec<Value> {
    let claim = |rate: &str, claim: &Claim| {
        json!({
            "rate": rate,
            "limit": claim.limit,
            "supported": claim.is_supported(),
            "shortfalls": claim.shortfalls.iter().map(of_shortfall).collect::<Vec<_>>(),
        })
    };
    let apcer = report.apcer_claims();
    let bpcer = report.bpcer_claims();
    let apcer = apcer.iter().map(|one| claim("apcer", one));
    apcer.chain(bpcer.iter().map(|one| claim("bpcer", one))).collect()
}

fn of_shortfall(shortfall: &Shortfall) -> Value {
    match shortfall {
        Shortfall::TooFew { name, presentations, needed } => {
            json!({"name": name, "presentations": presentations, "error_free_needed": needed})
        }
        Shortfall::TooManyErrors { name, rate } => json!({"name": name, "rate": of_rate(*rate)}),
    }
}
