//! All findings about a file of scores, and their JSON.

use serde_json::{Map, Value, json};

use crate::bounds::{CONFIDENCE, Rate};
use crate::claims::{Claim, Shortfall};
use crate::det::{OperatingPoint, TradeOff};
use crate::rates::{SampleCounts, ThresholdReport};

/// All findings about one file of scores.
#[derive(Debug)]
pub struct Findings<'a> {
    /// Name of the file without its folder.
    pub file: String,
    /// True if the threshold is a default that was not chosen for this system.
    pub is_default_threshold: bool,
    /// True if the JSON and the report include ACER.
    pub with_acer: bool,
    /// The rates at the threshold.
    pub report: ThresholdReport,
    /// Both error rates at all thresholds. `None` unless presentations of both kinds were answered.
    pub trade_off: Option<TradeOff<'a>>,
}

impl Findings<'_> {
    /// Returns the findings as JSON. All rates and bounds are in 0..=1.
    pub fn to_json(&self) -> Value {
        let report = &self.report;
        let apcer = report
            .apcer()
            .map(|(species, rate)| json!({"species": species, "rate": rate_json(rate)}));
        let attacks: Vec<Value> =
            report.attacks.iter().map(|species| counts_json(species, "apcer", "apnrr")).collect();
        let mut all = json!({
            "file": self.file,
            "threshold": report.threshold,
            "threshold_is_default": self.is_default_threshold,
            "confidence_of_each_bound": CONFIDENCE,
            "apcer": apcer,
            "bpcer": report.bpcer().map(rate_json),
            "attacks": attacks,
            "bona_fide": counts_json(&report.bona_fide, "bpcer", "bpnrr"),
            "trade_off": self.trade_off.as_ref().map(trade_off_json),
            "claims": claims_json(report),
        });
        if self.with_acer {
            all["acer"] = json!(report.acer());
        }
        all
    }
}

fn rate_json(rate: Rate) -> Value {
    json!({
        "value": rate.value(),
        "at_least": rate.lower_bound(),
        "at_most": rate.upper_bound(),
        "errors": rate.errors(),
        "presentations": rate.presentations(),
    })
}

fn counts_json(counts: &SampleCounts, error_key: &str, non_response_key: &str) -> Value {
    json!({
        "name": counts.name,
        "presentations": counts.presentations,
        "subjects": counts.subjects,
        "devices": counts.devices,
        error_key: counts.error_rate.map(rate_json),
        non_response_key: counts.non_response_rate.map(rate_json),
    })
}

fn trade_off_json(trade_off: &TradeOff<'_>) -> Value {
    let point = |point: OperatingPoint| {
        let rates = json!({
            "threshold": point.error_rates.threshold,
            "worst": point.error_rates.worst_species,
            "apcer": rate_json(point.error_rates.apcer),
            "bpcer": rate_json(point.error_rates.bpcer),
        });
        (point.key.to_owned(), rates)
    };
    trade_off.operating_points().into_iter().map(point).collect::<Map<_, _>>().into()
}

fn claims_json(report: &ThresholdReport) -> Vec<Value> {
    let claim = |rate: &str, claim: &Claim| {
        json!({
            "rate": rate,
            "limit": claim.limit,
            "supported": claim.is_supported(),
            "shortfalls": claim.shortfalls.iter().map(shortfall_json).collect::<Vec<_>>(),
        })
    };
    let apcer = report.apcer_claims();
    let bpcer = report.bpcer_claims();
    let apcer = apcer.iter().map(|one| claim("apcer", one));
    apcer.chain(bpcer.iter().map(|one| claim("bpcer", one))).collect()
}

fn shortfall_json(shortfall: &Shortfall) -> Value {
    match shortfall {
        Shortfall::TooFew { name, presentations, needed } => {
            json!({"name": name, "presentations": presentations, "error_free_needed": needed})
        }
        Shortfall::TooManyErrors { name, rate } => json!({"name": name, "rate": rate_json(*rate)}),
    }
}
