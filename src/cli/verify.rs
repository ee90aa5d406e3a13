//! `menshen verify`: one verification by a running server.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::client::{self, RequestOptions, enum_name, reason_line};
use super::runtime;
use crate::proto::v1;

/// Options of `menshen verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    request: RequestOptions,
    /// Live photograph (JPEG or PNG); may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    live: Vec<PathBuf>,
    /// False-match rate to decide at, above 0 and below 1; the server's policy unless given.
    #[arg(long)]
    fmr: Option<f64>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let request = request(args)?;
    let answer = runtime()?.block_on(async {
        let mut client = client::connect_face_client(&args.request.server).await?;
        client::wait_for_answer(client.verify(request)).await
    })?;
    if args.json {
        println!("{:#}", as_json(&answer));
    } else {
        print(&answer);
    }
    let passed = answer.decision() == v1::Decision::Pass;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn request(args: &Args) -> anyhow::Result<v1::VerifyRequest> {
    Ok(v1::VerifyRequest {
        context: Some(args.request.context()),
        portrait: Some(client::read_image(&args.request.portrait)?),
        portrait_source: args.request.portrait_source(),
        live_photos: args
            .live
            .iter()
            .map(|path| client::read_image(path))
            .collect::<anyhow::Result<_>>()?,
        policy_fmr: args.fmr,
    })
}

fn print(answer: &v1::VerifyResponse) {
    println!("decision    {}", enum_name(answer.decision().as_str_name(), "DECISION_"));
    if let Some(similarity) = answer.similarity {
        let limit = answer.similarity_min.map_or(String::new(), |min| {
            format!("  (at least {min:.3} for a false-match rate of {:e})", answer.policy_fmr)
        });
        println!("similarity  {similarity:.3}{limit}");
    }
    if let (Some(score), Some(fmr)) = (answer.score100, answer.similarity_fmr) {
        println!("score       {score:.1} of 100  (false-match rate {fmr:.1e} or less)");
    }
    if let Some(liveness) = &answer.liveness {
        println!("liveness    {:.3}  (at least {:.3})", liveness.score, liveness.score_min);
    }
    for reason in &answer.reasons {
        println!("reason      {}", reason_line(reason));
    }
    if let Some(times) = &answer.times {
        println!("time        {:.1} ms in the server", times.total_ms);
    }
}

/// Returns the answer without pictures as JSON, for scripts.
pub(super) fn as_json(answer: &v1::VerifyResponse) -> serde_json::Value {
    let reasons: Vec<_> = answer
        .reasons
        .iter()
        .map(|reason| {
            json!({
                "code": enum_name(reason.code().as_str_name(), "REASON_CODE_"),
                "subject": reason.subject,
                "value": reason.value,
                "limit": reason.limit,
                "message": reason.message,
            })
        })
        .collect();
    json!({
        "request_id": answer.request_id,
        "decision": enum_name(answer.decision().as_str_name(), "DECISION_"),
        "reasons": reasons,
        "similarity": answer.similarity,
        "similarity_min": answer.similarity_min,
        "score100": answer.score100,
        "similarity_fmr": answer.similarity_fmr,
        "policy_fmr": answer.policy_fmr,
        "liveness": answer.liveness.as_ref().map(|l| json!({
            "score": l.score, "score_min": l.score_min, "passed": l.passed,
        })),
        "matched_live_photo": answer.matched_live_photo,
        "calibration": answer.calibration.as_ref().map(|c| json!({
            "id": c.id, "pair_type": c.pair_type, "generic": c.generic, "fmr_min": c.fmr_min,
        })),
        "models": answer.models.iter().map(|m| format!("{}/{}", m.name, m.version))
            .collect::<Vec<_>>(),
        "total_ms": answer.times.as_ref().map(|times| times.total_ms),
    })
}
