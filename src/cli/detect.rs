//! `menshen detect`: finds the faces of one picture, judges its quality, and may draw both on it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::json;

use super::client::{self, enum_name, reason_line};
use super::options::SettingOptions;
use super::table::Table;
use super::{draw, runtime};
use crate::proto::v1;

/// Options of `menshen detect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Picture (JPEG or PNG).
    picture: PathBuf,
    /// Address of a server's gRPC listener. Without it, a server is started in this process.
    #[arg(long, conflicts_with_all = ["ConfigFile", "ModelsFolder", "DeviceOptions", "log"])]
    server: Option<String>,
    /// Origin of the picture; each origin has its own quality limits.
    #[arg(long, value_enum, default_value_t = Source::LivePhoto)]
    source: Source,
    /// Write the picture with boxes, points and reasons to this file (PNG).
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Options of the server in this process")]
    in_process: SettingOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    LivePhoto,
    IdFile,
    IdChip,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let image = client::read_image(&args.picture)?;
    let request = v1::DetectRequest {
        context: Some(client::request_context("command-line", "command-line")),
        image: Some(v1::Image { data: image.data.clone() }),
        source: match args.source {
            Source::LivePhoto => v1::ImageSource::LivePhoto,
            Source::IdFile => v1::ImageSource::IdFile,
            Source::IdChip => v1::ImageSource::IdChip,
        }
        .into(),
    };
    let answer = runtime()?.block_on(detect(args, request))?;
    if let Some(path) = &args.draw {
        let drawn = draw::draw_faces(&image.data, &answer)?;
        std::fs::write(path, drawn).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        println!("{:#}", as_json(&answer));
    } else {
        print(&answer);
    }
    let good = !answer.faces.is_empty() && answer.reasons.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn detect(args: &Args, request: v1::DetectRequest) -> anyhow::Result<v1::DetectResponse> {
    if let Some(server) = &args.server {
        let mut client = client::connect_face_client(server).await?;
        return client::wait_for_answer(client.detect(request)).await;
    }
    let config = args.in_process.load_in_process()?;
    crate::telemetry::init_logs(&config.log)?;
    let (app, mut client) = client::start_in_process(config).await?;
    let answer = client::wait_for_answer(client.detect(request)).await?;
    drop(client);
    app.stop().await;
    Ok(answer)
}

fn print(answer: &v1::DetectResponse) {
    let mut faces = Table::new(&["face", ">score", ">x", ">y", ">width", ">height"]);
    for (index, face) in answer.faces.iter().enumerate() {
        let bounds = face.r#box.unwrap_or_default();
        let mut cells = vec![if index == 0 { "main".to_owned() } else { index.to_string() }];
        cells.push(format!("{:.3}", face.detector_score));
        cells.extend([bounds.x, bounds.y, bounds.width, bounds.height].map(|v| format!("{v:.0}")));
        faces.add_line(cells);
    }
    for line in faces.render() {
        println!("{line}");
    }
    if let Some(image) = answer.image.as_ref().filter(|image| !image.checks.is_empty()) {
        println!();
        let mut checks = Table::new(&["measure", ">value", "", ">limit", ""]);
        for check in &image.checks {
            checks.add_line(check_cells(check));
        }
        for line in checks.render() {
            println!("{line}");
        }
    }
    if !answer.reasons.is_empty() {
        println!();
    }
    for reason in &answer.reasons {
        println!("{}", reason_line(reason));
    }
}

fn check_cells(check: &v1::Check) -> Vec<String> {
    let relation = match check.kind() {
        v1::LimitKind::Min => "≥",
        v1::LimitKind::Max => "≤",
        v1::LimitKind::Unspecified => "?",
    };
    vec![
        enum_name(check.measure().as_str_name(), "MEASURE_").to_lowercase().replace('_', " "),
        format!("{:.3}", check.value),
        relation.to_owned(),
        format!("{:.3}", check.limit),
        if check.passed { "✓" } else { "✗" }.to_owned(),
    ]
}

fn as_json(answer: &v1::DetectResponse) -> serde_json::Value {
    let face = |face: &v1::Face| {
        let bounds = face.r#box.unwrap_or_default();
        let points: Vec<_> = [
            face.right_eye,
            face.left_eye,
            face.nose,
            face.right_mouth_corner,
            face.left_mouth_corner,
        ]
        .into_iter()
        .map(Option::unwrap_or_default)
        .map(|point| [point.x, point.y])
        .collect();
        json!({
            "score": face.detector_score,
            "box": [bounds.x, bounds.y, bounds.width, bounds.height],
            "points": points,
        })
    };
    let checks: Vec<_> = answer
        .image
        .iter()
        .flat_map(|image| &image.checks)
        .map(|check| {
            json!({
                "measure": enum_name(check.measure().as_str_name(), "MEASURE_"),
                "value": check.value,
                "limit": check.limit,
                "kind": enum_name(check.kind().as_str_name(), "LIMIT_KIND_"),
                "passed": check.passed,
            })
        })
        .collect();
    json!({
        "faces": answer.faces.iter().map(face).collect::<Vec<_>>(),
        "checks": checks,
        "reasons": answer.reasons.iter().map(reason_line).collect::<Vec<_>>(),
    })
}
