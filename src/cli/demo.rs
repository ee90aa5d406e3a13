//! `menshen demo`: starts a server in this process, verifies real portraits and prints a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;

use super::client::{self, FaceClient, call_error, enum_name};
use super::options::SettingOptions;
use super::table::Table;
use super::verify::as_json;
use super::{progress_bar, runtime};
use crate::config::Config;
use crate::proto::v1;

/// Folder with the portraits of this repository.
pub(super) const FACES_DIR: &str = "tests/fixtures/faces";

/// Options of `menshen demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with the portraits. Their file names are those of this repository.
    #[arg(long, value_name = "DIR", default_value = FACES_DIR)]
    faces: PathBuf,
    /// Print the answers as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingOptions,
}

#[derive(Debug, Clone, Copy)]
struct Picture {
    file: &'static str,
    person: &'static str,
    year: &'static str,
}

const fn picture(file: &'static str, person: &'static str, year: &'static str) -> Picture {
    Picture { file, person, year }
}

const PORTRAITS: [Picture; 8] = [
    picture("person_a_1.jpg", "Macron", "2014"),
    picture("person_b_1.jpg", "Ardern", "2018"),
    picture("person_b_2.jpg", "Ardern", "2022"),
    picture("impostor_1.jpg", "Obama", ""),
    picture("impostor_2.jpg", "Sunak", ""),
    picture("astronaut.png", "Collins", ""),
    picture("grace_hopper.jpg", "Hopper", ""),
    picture("person_a_2.jpg", "Macron", "2025"),
];

const LIVE_PHOTOS: [Picture; 5] = [
    picture("person_a_2.jpg", "Macron", "2025"),
    picture("person_b_1.jpg", "Ardern", "2018"),
    picture("person_b_2.jpg", "Ardern", "2022"),
    picture("impostor_1.jpg", "Obama", ""),
    picture("impostor_2.jpg", "Sunak", ""),
];

impl Picture {
    fn title(&self) -> String {
        format!("{} {}", self.person, self.year).trim_end().to_owned()
    }
}

/// One verified pair and the server's answer.
struct Pair {
    portrait: Picture,
    live: Picture,
    answer: v1::VerifyResponse,
}

impl Pair {
    fn is_same_person(&self) -> bool {
        self.portrait.person == self.live.person
    }

    /// The same person must pass and another person must fail; REVIEW and RETRY are wrong.
    fn is_right(&self) -> bool {
        let want = if self.is_same_person() { v1::Decision::Pass } else { v1::Decision::Fail };
        self.answer.decision() == want
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.settings.load_in_process()?;
    crate::telemetry::init_logs(&config.log)?;
    let demonstration = runtime()?.block_on(demonstrate(&args.faces, config))?;
    if args.json {
        println!("{:#}", json(&demonstration.pairs));
    } else {
        print(&demonstration);
    }
    let are_all_right = demonstration.pairs.iter().all(Pair::is_right);
    Ok(if are_all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the demonstration prints.
struct Demonstration {
    /// Lines that describe the server.
    server: Vec<String>,
    pairs: Vec<Pair>,
    /// Time that all pairs took together.
    seconds: f64,
}

async fn demonstrate(faces: &Path, config: Config) -> anyhow::Result<Demonstration> {
    let (app, client) = client::start_in_process(config).await?;
    let started = Instant::now();
    let pairs = verify_all(faces, &client).await?;
    let seconds = started.elapsed().as_secs_f64();
    drop(client);
    let server = app.describe();
    app.stop().await;
    Ok(Demonstration { server, pairs, seconds })
}

/// Verifies all pairs once. Returns the number of pairs and the number of right decisions.
pub(super) async fn count_right(
    faces: &Path,
    client: &FaceClient,
) -> anyhow::Result<(usize, usize)> {
    let pairs = verify_all(faces, client).await?;
    Ok((pairs.len(), pairs.iter().filter(|pair| pair.is_right()).count()))
}

/// Verifies every portrait against every live photograph of another file, all at once.
async fn verify_all(faces: &Path, client: &FaceClient) -> anyhow::Result<Vec<Pair>> {
    let mut calls = JoinSet::new();
    for portrait in PORTRAITS {
        for live in LIVE_PHOTOS.into_iter().filter(|live| live.file != portrait.file) {
            let request = request(faces, portrait, live)?;
            let mut client = client.clone();
            let index = calls.len();
            calls.spawn(async move {
                let answer = client.verify(request).await.map_err(|status| call_error(&status))?;
                anyhow::Ok((index, Pair { portrait, live, answer: answer.into_inner() }))
            });
        }
    }
    let bar = progress_bar(calls.len() as u64, "verifying pairs");
    let mut pairs = Vec::with_capacity(calls.len());
    while let Some(done) = calls.join_next().await {
        pairs.push(done.context("a call was lost")??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    pairs.sort_by_key(|(index, pair)| (!pair.is_same_person(), *index));
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}

fn request(faces: &Path, portrait: Picture, live: Picture) -> anyhow::Result<v1::VerifyRequest> {
    Ok(v1::VerifyRequest {
        context: Some(client::request_context("demo", "demo")),
        portrait: Some(client::read_image(&faces.join(portrait.file))?),
        portrait_source: v1::ImageSource::IdFile.into(),
        live_photos: vec![client::read_image(&faces.join(live.file))?],
        policy_fmr: None,
    })
}

fn print(Demonstration { server, pairs, seconds }: &Demonstration) {
    println!("Menshen demonstration: is the person in the live photo the one in the portrait?\n");
    for line in server {
        println!("  {line}");
    }
    println!();
    let mut table = Table::new(&[
        "portrait",
        "live photo",
        "person",
        ">similarity",
        ">score",
        "decision",
        ">liveness",
        ">ms",
        "",
    ]);
    for pair in pairs {
        table.add_line(cells(pair));
    }
    for line in table.render() {
        println!("  {line}");
    }
    let right_count = pairs.iter().filter(|pair| pair.is_right()).count();
    if let Some(answer) = pairs.first().map(|pair| &pair.answer) {
        let similarity_min = answer.similarity_min.unwrap_or(f64::NAN);
        println!(
            "\n  Passes at similarity {similarity_min:.3}: a false-match rate of {:e}.",
            answer.policy_fmr
        );
        if answer.calibration.as_ref().is_some_and(|calibration| calibration.generic) {
            println!("  Calibrated on public photographs, not on pairs of a deployment.");
        }
    }
    println!(
        "  {right_count} of {} pairs are right; {:.1} verifications a second, sent all at once.",
        pairs.len(),
        pairs.len() as f64 / seconds
    );
}

fn cells(pair: &Pair) -> Vec<String> {
    let answer = &pair.answer;
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    vec![
        pair.portrait.title(),
        pair.live.title(),
        if pair.is_same_person() { "same" } else { "different" }.to_owned(),
        number(answer.similarity, 3),
        number(answer.score100, 0),
        enum_name(answer.decision().as_str_name(), "DECISION_").to_owned(),
        number(answer.liveness.as_ref().map(|liveness| liveness.score), 3),
        number(answer.times.as_ref().map(|times| times.total_ms), 0),
        if pair.is_right() { "✓".to_owned() } else { "✗ wrong".to_owned() },
    ]
}

fn json(pairs: &[Pair]) -> serde_json::Value {
    pairs
        .iter()
        .map(|pair| {
            json!({
                "portrait": pair.portrait.file,
                "live": pair.live.file,
                "same_person": pair.is_same_person(),
                "right": pair.is_right(),
                "answer": as_json(&pair.answer),
            })
        })
        .collect()
}
