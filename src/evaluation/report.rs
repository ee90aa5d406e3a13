//! The findings about a file of scores, and their JSON for programs.

use serde_json::{Map, Value, json};

use crate::bounds::{CONFIDENCE, Rate};
use crate::claims::{Claim, Shortfall};
use crate::det::{OperatingPoint, TradeOff};
use crate::rates::{Counts, Report};

/// All findings about one file of scores.
#[derive(Debug)]
pub struct Findings<'a> {
    /// Name of the file without its folders.
    pub file: String,
    /// Whether the threshold is a default, not one chosen for this system.
    pub is_default_threshold: bool,
    /// Whether the report includes ACER.
    pub with_acer: bool,
    /// The rates at the threshold.
    pub report: Report,
    /// Both errors at all thresholds; unset unless presentations of both kinds were answered.
    pub trade_off: Option<TradeOff<'a>>,
}

impl Findings<'_> {
    /// Returns the findings as JSON. Rates and bounds lie in 0..=1.
    pub fn to_json(&self) -> Value {
        let report = &self.report;
        let apcer = report
            .apcer()
            .map(|(species, rate)| json!({"species": species, "rate": of_rate(rate)}));
        let attacks: Vec<Value> =
            report.attacks.iter().map(|species| of_counts(species, "apcer", "apnrr")).collect();
        let mut all = json!({
            "file": self.file,
            "threshold": report.threshold,
            "threshold_is_default": self.is_default_threshold,
            "confidence_of_each_bound": CONFIDENCE,
            "apcer": apcer,
            "bpcer": report.bpcer().map(of_rate),
            "attacks": attacks,
            "bona_fide": of_counts(&report.bona_fide, "bpcer", "bpnrr"),
            "trade_off": self.trade_off.as_ref().map(of_trade_off),
            "claims": of_claims(report),
        });
        if self.with_acer {
            all["acer"] = json!(report.acer());
        }
        all
    }
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
    let point = |point: OperatingPoint| {
        let errors = json!({
            "threshold": point.errors.threshold,
            "worst": point.errors.worst,
            "apcer": of_rate(point.errors.apcer),
            "bpcer": of_rate(point.errors.bpcer),
        });
        (point.key.to_owned(), errors)
    };
    trade_off.operating_points().into_iter().map(point).collect::<Map<_, _>>().into()
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
