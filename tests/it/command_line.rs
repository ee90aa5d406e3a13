//! The binary as a user at a terminal runs it.

use std::process::Command;

use crate::support::{config, copy_folder, png, repository, run_menshen, text};

#[test]
fn the_demonstration_gets_every_pair_right() {
    let demo = run_menshen(&["demo", "--json"]);
    assert_eq!(demo.status.code(), Some(0), "{}", text(&demo.stderr));
    let pairs: Vec<serde_json::Value> = serde_json::from_slice(&demo.stdout).unwrap();
    assert!(pairs.len() >= 20);
    assert!(pairs.iter().all(|pair| pair["right"] == true), "{pairs:#?}");
}

#[test]
fn a_profile_shows_every_step_of_the_plan() {
    let profile = run_menshen(&["models", "profile", "fr_liveness", "--batch", "2"]);
    assert_eq!(profile.status.code(), Some(0), "{}", text(&profile.stderr));
    let profile = text(&profile.stdout);
    for word in
        ["batch 2", "GFLOP/s", "planar", "depthwise", "pointwise", "fully connected", "100 %"]
    {
        assert!(profile.contains(word), "{word} in\n{profile}");
    }
    let refused = run_menshen(&["models", "profile", "fr_liveness", "--batch", "0"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--batch"), "{}", text(&refused.stderr));
}

#[test]
fn an_unsupported_precision_and_too_many_threads_are_refused() {
    for (precision, needs) in [("f16", "16-bit floats"), ("tf32", "TF32")] {
        let refused = run_menshen(&["models", "verify", "iris", "--precision", precision]);
        assert!(!refused.status.success());
        assert!(text(&refused.stdout).contains(needs), "{}", text(&refused.stdout));
    }
    let threads = run_menshen(&["models", "verify", "iris", "--threads", "5000"]);
    assert!(!threads.status.success());
    assert!(text(&threads.stderr).contains("at most 1024"), "{}", text(&threads.stderr));
}

#[test]
fn the_devices_of_the_machine_are_listed() {
    let listed = text(&run_menshen(&["devices"]).stdout);
    for word in ["cpu", "portable", "*", "GiB", "CUDA"] {
        assert!(listed.contains(word), "{word} in\n{listed}");
    }
    let json = run_menshen(&["devices", "--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
    let survey: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(survey["cpu"]["cores"].as_u64().unwrap() > 0, "{survey:#}");
    assert!(survey["cpu"]["f32"]["auto"].is_string(), "{survey:#}");
}

#[test]
fn a_network_is_measured_and_compared() {
    let bench = ["bench", "--model", "iris", "--networks-only", "--seconds", "0.01"];
    let json = run_menshen(&[&bench[..], &["--json"]].concat());
    assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let network = &report["networks"][0];
    assert!(network["cosine_distance"].as_f64().unwrap() < 1e-9, "{report:#}");
    let buckets = network["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 5, "{report:#}");
    for bucket in buckets {
        for rate in ["alone_ms", "rows_per_second", "rows_per_second_one_slot"] {
            assert!(bucket[rate].as_f64().unwrap() > 0.0, "{bucket}");
        }
    }
    let table = text(&run_menshen(&bench).stdout);
    assert!(table.contains("iris/3.3.6") && table.contains("rows/s"), "{table}");
    let refused = run_menshen(&["bench", "--seconds", "0"]);
    assert!(text(&refused.stderr).contains("--seconds"), "{}", text(&refused.stderr));
}

#[test]
fn models_are_listed_inspected_and_verified() {
    let list = run_menshen(&["models", "list"]);
    let listed = text(&list.stdout);
    for name in ["yunet", "sface", "fr_liveness", "facemesh", "iris"] {
        assert!(listed.contains(name), "{listed}");
    }
    let inspect = text(&run_menshen(&["models", "inspect", "sface"]).stdout);
    for word in ["Apache-2.0", "conv", "128", "arcface112"] {
        assert!(inspect.to_lowercase().contains(&word.to_lowercase()), "{word} in\n{inspect}");
    }
    let verify = run_menshen(&["models", "verify"]);
    assert_eq!(verify.status.code(), Some(0), "{}", text(&verify.stderr));
    let one = run_menshen(&["models", "verify", "iris", "--models", "models"]);
    assert_eq!(one.status.code(), Some(0), "{}", text(&one.stderr));
    assert!(text(&one.stdout).contains("iris/3.3.6"));
    assert!(!text(&one.stdout).contains("sface"), "{}", text(&one.stdout));
}

#[test]
fn a_model_that_is_not_what_its_manifest_says_is_refused_with_the_reason() {
    let models = tempfile::tempdir().unwrap();
    let version = models.path().join("iris/3.3.6");
    std::fs::create_dir_all(&version).unwrap();
    copy_folder(&config().models.dir.join("iris/3.3.6"), &version);
    let manifest = std::fs::read_to_string(version.join("model.toml")).unwrap();
    let refused = |manifest: String| {
        std::fs::write(version.join("model.toml"), manifest).unwrap();
        let verify =
            run_menshen(&["models", "verify", "--models", models.path().to_str().unwrap()]);
        assert!(matches!(verify.status.code(), Some(1 | 2)), "{verify:?}");
        text(&verify.stdout) + &text(&verify.stderr)
    };
    let licence = manifest.lines().find(|line| line.starts_with("licence")).unwrap();
    for (edited, reason) in [
        (manifest.replace("sha256 = \"b", "sha256 = \"0"), "has sha256 be5cc9a0"),
        (format!("colour_space = 1\n{manifest}"), "unknown field `colour_space`"),
        (manifest.replace(licence, ""), "missing field `licence`"),
        (manifest.replace(licence, "licence = \"CC-BY-NC-4.0\""), "forbids commercial use"),
    ] {
        let printed = refused(edited);
        assert!(printed.contains(reason), "{reason} in\n{printed}");
    }
}

#[test]
fn a_detection_is_drawn_on_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("out.png");
    let picture = "tests/fixtures/faces/person_b_2.jpg";
    let detect = run_menshen(&["detect", picture, "--draw", drawn.to_str().unwrap(), "--json"]);
    assert_eq!(detect.status.code(), Some(0), "{}", text(&detect.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&detect.stdout).unwrap();
    assert_eq!(answer["faces"].as_array().unwrap().len(), 1);
    assert!(std::fs::read(&drawn).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_picture_without_a_face_exits_with_1_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let grey = folder.path().join("grey.png");
    std::fs::write(&grey, png(100, 100, &[99; 30_000])).unwrap();
    let detect = run_menshen(&["detect", grey.to_str().unwrap()]);
    assert_eq!(detect.status.code(), Some(1));
    assert!(text(&detect.stdout).contains("FACE_NOT_FOUND"), "{}", text(&detect.stdout));
}

#[test]
fn wrong_settings_are_refused_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("menshen.toml");
    std::fs::write(&file, "[server]\ncolour = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, word) in [
        (vec!["serve", "--config", file], "colour"),
        (vec!["serve", "--listen", "nowhere"], "listen"),
        (vec!["serve", "--device", "cuda:0", "--listen", "127.0.0.1:0"], "cuda:0"),
        (vec!["serve", "--models", "/nowhere", "--listen", "127.0.0.1:0"], "/nowhere"),
        (vec!["serve", "--fmr", "2"], "policy_fmr"),
        (vec!["models", "inspect", "arcface"], "arcface"),
        (
            vec!["verify", "--server", "127.0.0.1:1", "--portrait", "a", "--live", "b"],
            "cannot read a",
        ),
    ] {
        let run = run_menshen(&arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {}", text(&run.stderr));
        assert!(text(&run.stderr).contains(word), "{arguments:?}: {}", text(&run.stderr));
    }
}

#[test]
fn the_settings_in_force_can_be_printed_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run_menshen(&["serve", "--fmr", "0.001", "--print-config"]);
    let file = folder.path().join("menshen.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = run_menshen(&["serve", "--config", file.to_str().unwrap(), "--print-config"]);
    assert_eq!(text(&again.stdout), text(&printed.stdout));
    assert!(text(&again.stdout).contains("policy_fmr = 0.001"));
}

#[test]
fn a_server_whose_output_nobody_reads_still_stops_cleanly() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let mut server = Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.into_iter().any(|line| line == "ready"));
    // Dropping the lines has closed the pipe.
    let stop = Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(stop.success());
    let stopped = server.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{}", text(&stopped.stderr));
    assert!(!text(&stopped.stderr).contains("panic"), "{}", text(&stopped.stderr));
}

/// Starts `serve`, verifies through the command line, and stops it with SIGTERM.
#[test]
fn serve_prints_its_address_answers_and_stops_on_sigterm() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let mut server = Command::new(env!("CARGO_BIN_EXE_menshen"))
        .current_dir(repository())
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let started: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
    let address = started
        .iter()
        .find_map(|line| line.strip_prefix("gRPC"))
        .unwrap_or_else(|| panic!("{started:?}"))
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();

    let faces = "tests/fixtures/faces";
    let (portrait, live) = (format!("{faces}/person_b_1.jpg"), format!("{faces}/person_b_2.jpg"));
    let verify = ["verify", "--server", &address, "--portrait", &portrait, "--live", &live];
    let passed = run_menshen(&verify);
    assert_eq!(passed.status.code(), Some(0), "{}", text(&passed.stderr));
    assert!(text(&passed.stdout).contains("PASS"));
    let impostor = format!("{faces}/impostor_1.jpg");
    let verify =
        ["verify", "--server", &address, "--portrait", &impostor, "--live", &live, "--json"];
    let failed = run_menshen(&verify);
    assert_eq!(failed.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(answer["decision"], "FAIL");

    let stop = Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(stop.success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(server.wait().unwrap().code(), Some(0), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("stopped"));
}
