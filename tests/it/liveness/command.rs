//! `menshen liveness` as a user at a terminal runs it.

use std::process::Output;

use menshen::app::App;
use menshen_puppet::{Actor, film};

use super::sessions::PORTRAIT;
use super::{live_config, models, puppet};
use crate::support::{run_menshen, shared_server, text};

const FACES: &str = "tests/fixtures/faces";

/// Runs a session against the server that all tests share.
fn liveness(options: &[&str]) -> Output {
    let server = shared_server().grpc.to_string();
    let portrait = format!("{FACES}/{PORTRAIT}");
    let mut arguments = vec!["liveness", "--server", &server, "--portrait", &portrait];
    arguments.extend(options);
    run_menshen(&arguments)
}

/// Returns a folder with frames of a person who looks into the camera and does nothing.
fn person_at_rest() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let puppet = puppet(PORTRAIT);
    let actor = Actor::new(3, puppet.turn_yaws());
    for (index, frame) in film(&puppet, &actor.track(2000, 10), 3).iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index:03}.jpg")), &frame.jpeg).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    folder
}

fn assert_prints(run: &Output, code: i32, lines: &[&str]) {
    let (out, error) = (text(&run.stdout), text(&run.stderr));
    assert_eq!(run.status.code(), Some(code), "{out}{error}");
    for line in lines {
        assert!(out.contains(line), "{line} in\n{out}{error}");
    }
}

#[test]
fn a_photograph_before_the_camera_is_prompted_and_does_not_pass() {
    let photo = format!("{FACES}/person_b_2.jpg");
    let run = liveness(&["--camera-simulated", &photo]);
    assert_prints(&run, 1, &["attempt 1 of 3", "prompt      look straight into the camera"]);
    assert_prints(&run, 1, &["decision    FAIL", "assurance   STREAM", "LIVENESS_FAILED"]);
}

#[test]
fn a_folder_of_frames_is_run_as_a_stream_and_as_a_recording() {
    let folder = person_at_rest();
    let frames = folder.path().to_str().unwrap();
    let streamed = liveness(&["--frames", frames]);
    assert_prints(
        &streamed,
        1,
        &["prompt      look straight", "decision    RETRY", "assurance   STREAM"],
    );
    let recorded = liveness(&["--frames", frames, "--batch"]);
    assert_prints(&recorded, 1, &["actions     ", "decision    ", "assurance   BATCH", "(0 done)"]);
    assert!(!text(&recorded.stdout).contains("PASS"), "{}", text(&recorded.stdout));
}

#[test]
fn a_server_that_tells_all_has_its_checks_printed() {
    let (models, folder) = (models(), person_at_rest());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(App::start(live_config(&models))).unwrap();
    let server = app.grpc_address().to_string();
    let (frames, portrait) = (folder.path().to_str().unwrap(), format!("{FACES}/{PORTRAIT}"));
    let run = run_menshen(&[
        "liveness",
        "--server",
        &server,
        "--portrait",
        &portrait,
        "--frames",
        frames,
        "--batch",
    ]);
    assert_prints(
        &run,
        1,
        &["SESSION_EXPIRED", "frames.per_second", "(at least 7.500)", "similarity  "],
    );
    runtime.block_on(app.stop());
}

#[test]
fn each_run_is_a_transaction_of_its_own_unless_it_is_named() {
    let photo = format!("{FACES}/person_b_2.jpg");
    for _ in 0..4 {
        assert_prints(&liveness(&["--camera-simulated", &photo]), 1, &["attempt 1 of 3"]);
    }
    let named = ["--camera-simulated", &photo, "--transaction", "from-the-terminal"];
    for attempt in ["attempt 1 of 3", "attempt 2 of 3", "attempt 3 of 3"] {
        assert_prints(&liveness(&named), 1, &[attempt]);
    }
    let refused = liveness(&named);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("its 3 sessions"), "{}", text(&refused.stderr));
}

#[test]
fn unusable_options_are_named_and_exit_with_2() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--frames", "/nowhere"], "cannot read /nowhere"),
        (&["--frames", empty], "holds no .jpg"),
        (&["--camera-simulated", "/nowhere.jpg"], "cannot read /nowhere.jpg"),
        (&[], "--frames"),
        (&["--frames", empty, "--camera-simulated", "a.jpg"], "cannot be used with"),
        (&["--frames", empty, "--fps", "0"], "must be from 1 to 60"),
    ];
    for (options, word) in cases {
        let run = liveness(options);
        assert_eq!(run.status.code(), Some(2), "{options:?}: {}", text(&run.stderr));
        assert!(text(&run.stderr).contains(word), "{options:?}: {}", text(&run.stderr));
    }
    let photo = format!("{FACES}/person_b_2.jpg");
    for (arguments, word) in [
        (["liveness", "--portrait", "/nowhere.jpg", "--camera-simulated", &photo], "/nowhere.jpg"),
        (["liveness", "--portrait", &photo, "--camera-simulated", &photo], "no server answers"),
    ] {
        let run = run_menshen(&[&arguments[..], &["--server", "127.0.0.1:1"]].concat());
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        assert!(text(&run.stderr).contains(word), "{arguments:?}: {}", text(&run.stderr));
    }
    let store = liveness(&["--camera-simulated", &photo, "--store", "a b"]);
    assert_eq!(store.status.code(), Some(2));
    assert!(text(&store.stderr).contains("context.store_id"), "{}", text(&store.stderr));
}
