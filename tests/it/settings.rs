//! The printed settings, which explain themselves, and `menshen check`, which says whether a start
//! would succeed.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::redis_server::RedisServer;
use crate::support::{config, copy_folder, run_menshen, text};

const KEY: &str = "707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f";

/// A calibration of another embedding model.
const FOREIGN: &str = "space = \"arcface-1-f32-0123456789ab\"
[[calibration]]
id = \"counters\"
pair_type = \"chip-live\"
source = \"own counters\"
impostor_pairs = 4_000_000
genuine_pairs = 20_000
points = [{ fmr = 1e-2, similarity = 0.28 }, { fmr = 1e-5, similarity = 0.5 }]
";

/// A folder with the files of a deployment, for tests to damage.
struct Deployment {
    folder: TempDir,
}

impl Deployment {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        copy_folder(&config().models.dir, &folder.path().join("models"));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a file with a session key and returns its path.
    fn keys(&self, mode: u32) -> String {
        let path = self.write("keys", KEY);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// Replaces `from` in the manifest of a model.
    fn edit(&self, model: &str, from: &str, to: &str) {
        let path = self.path("models").join(model).join("model.toml");
        let manifest = std::fs::read_to_string(&path).unwrap();
        assert!(manifest.contains(from), "{from} in {manifest}");
        std::fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
    }

    /// Runs `command` with this text as configuration file and with the models of this folder.
    fn run(&self, command: &str, settings: &str, flags: &[&str]) -> Output {
        let file = self.write("menshen.toml", settings);
        let models = self.path("models");
        let common = [command, "--config", &file, "--models", models.to_str().unwrap()];
        run_menshen(&[&common[..], &["--listen", "127.0.0.1:0"], flags].concat())
    }

    fn check(&self, settings: &str) -> (Option<i32>, String) {
        let output = self.run("check", settings, &[]);
        assert_eq!(text(&output.stderr), "");
        (output.status.code(), text(&output.stdout))
    }
}

/// Damages a deployment and returns its settings.
type Damage = fn(&Deployment) -> String;

/// Returns the lines about a setting that have this state.
fn lines_of<'a>(printed: &'a str, key: &str, state: &str) -> Vec<&'a str> {
    let is_of_key = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some(key) && words.next() == Some(state)
    };
    printed.lines().filter(is_of_key).collect()
}

fn assert_wrong(printed: &str, key: &str, reason: &str) {
    let found = lines_of(printed, key, "WRONG");
    assert!(found.iter().any(|line| line.contains(reason)), "{key}: {reason} in\n{printed}");
}

#[test]
fn the_check_of_a_good_deployment_names_every_part_and_succeeds() {
    let (code, printed) = Deployment::new().check("");
    assert_eq!(code, Some(0), "{printed}");
    for (key, state) in [
        ("device.device", "cpu"),
        ("models.dir", "5 models"),
        ("models.detector", "yunet/2023mar, f32"),
        ("models.embedder", "sface/2021dec"),
        ("models.mesh", "facemesh/3.3.6"),
        ("models.iris", "iris/3.3.6"),
        ("models.liveness", "fr_liveness/0.0.1"),
        ("verify.calibration", "1e-4"),
        ("liveness.key_file", "not set"),
        ("liveness.replay", "in memory"),
    ] {
        let found = lines_of(&printed, key, "ok");
        assert!(found.len() == 1 && found[0].contains(state), "{key}: {state} in\n{printed}");
    }
    assert!(printed.contains("nothing is wrong"), "{printed}");
}

#[test]
fn everything_that_is_wrong_is_named_in_one_run() {
    let deployment = Deployment::new();
    deployment.edit("iris/3.3.6", "sha256 = \"b", "sha256 = \"0");
    deployment.edit("facemesh/3.3.6", "\"Apache-2.0\"", "\"CC-BY-NC-4.0\"");
    let (keys, calibration) = (deployment.keys(0o644), deployment.write("own.toml", FOREIGN));
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = format!(
        "[server]\nrequests_max = 0\ncolour = 1\n\
         [models]\ndetector = \"retina\"\nliveness = \"yunet\"\n\
         [device.placement]\narcface = [0]\n\
         [image]\nlive_photos_max = 33\n\
         [verify]\ncalibration = {calibration:?}\n\
         [liveness]\nattempts_max = 11\nkey_file = {keys:?}\n\
         replay = \"redis://user:hunter2@{unused}\"\n"
    );
    let (code, printed) = deployment.check(&settings);
    assert_eq!(code, Some(1), "{printed}");
    for (key, reason) in [
        ("server.colour", "unknown field `colour`"),
        ("image.live_photos_max", "is 33, but must be from 1 to 32"),
        ("liveness.attempts_max", "is 11, but must be from 1 to 10"),
        ("models.detector", "model 'retina' is unknown, there are: facemesh/3.3.6"),
        ("models.liveness", "yunet/2023mar is for face-detection, passive-liveness was asked for"),
        ("models.iris", "iris/3.3.6: iris.onnx has sha256 be5cc9a0"),
        ("models.mesh", "facemesh/3.3.6: licence `CC-BY-NC-4.0` forbids commercial use"),
        ("device.placement", "names model 'arcface'"),
        ("verify.calibration", "is for the space arcface-1-f32-0123456789ab"),
        ("liveness.key_file", "is open to others (mode 644)"),
        ("liveness.replay", "the replay store is unavailable"),
    ] {
        assert_wrong(&printed, key, reason);
    }
    assert_eq!(lines_of(&printed, "models.embedder", "ok").len(), 1, "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn what_the_check_refuses_a_start_refuses_for_the_same_reason() {
    let damages: [(Damage, &str, &str); 6] = [
        (
            |deployment| {
                deployment.edit("sface/2021dec", "sha256 = \"f", "sha256 = \"0");
                String::new()
            },
            "models.embedder",
            "has sha256",
        ),
        (
            |deployment| {
                std::fs::remove_file(deployment.path("models/iris/3.3.6/model.toml")).unwrap();
                String::new()
            },
            "models.dir",
            "iris/3.3.6: cannot read",
        ),
        (
            |deployment| {
                let path = deployment.write("own.toml", FOREIGN);
                format!("[verify]\ncalibration = {path:?}\n")
            },
            "verify.calibration",
            "the live embedding model has sface-2021dec-f32",
        ),
        (
            |_| "[verify]\npolicy_fmr = 1e-9\n".to_owned(),
            "verify.calibration",
            "verify.policy_fmr cannot be used",
        ),
        (
            |deployment| {
                let keys = deployment.write("keys", "no key");
                std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
                let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                format!("[liveness]\nkey_file = {keys:?}\nreplay = \"redis://{refused}\"\n")
            },
            "liveness.key_file",
            "line 1 of the key file",
        ),
        (|_| "[device]\nprecision = \"tf32\"\n".to_owned(), "models.iris", "TF32"),
    ];
    for (damage, key, reason) in damages {
        let deployment = Deployment::new();
        let settings = damage(&deployment);
        let (code, printed) = deployment.check(&settings);
        assert_eq!(code, Some(1), "{printed}");
        assert_wrong(&printed, key, reason);
        let http = ["--http-listen", "127.0.0.1:0"];
        let start = deployment.run("serve", &settings, &http);
        let refused = text(&start.stderr);
        assert_eq!(start.status.code(), Some(2), "{refused}");
        assert!(refused.contains(reason), "{reason} in\n{refused}");
    }
}

#[test]
fn the_part_of_an_unreadable_setting_is_not_checked_and_the_others_are() {
    let deployment = Deployment::new();
    deployment.edit("iris/3.3.6", "sha256 = \"b", "sha256 = \"0");
    let (code, printed) = deployment.check("[device]\nkernels = \"sse\"\n");
    assert_eq!(code, Some(1), "{printed}");
    let allowed = "unknown kernels 'sse': auto, amx, avx512, avx2, neon or portable";
    assert_wrong(&printed, "device.kernels", allowed);
    assert_eq!(lines_of(&printed, "device.device", "-").len(), 1, "{printed}");
    assert_wrong(&printed, "models.iris", "has sha256");
    assert_eq!(lines_of(&printed, "models.embedder", "ok").len(), 1, "{printed}");
}

#[test]
fn a_store_that_answers_and_a_private_key_file_pass() {
    let Some(server) = RedisServer::start() else { return };
    let deployment = Deployment::new();
    let keys = deployment.keys(0o600);
    let settings = format!("[liveness]\nkey_file = {keys:?}\nreplay = \"{}\"\n", server.url());
    let (code, printed) = deployment.check(&settings);
    assert_eq!(code, Some(0), "{printed}");
    assert!(lines_of(&printed, "liveness.replay", "ok")[0].contains("answers"), "{printed}");
    drop(server);
    let (code, printed) = deployment.check(&settings);
    assert_eq!(code, Some(1), "{printed}");
    assert_wrong(&printed, "liveness.replay", "the replay store is unavailable");
}

#[test]
fn the_check_binds_no_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let check = run_menshen(&["check", "--listen", &address, "--http-listen", &address]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
}

#[test]
fn an_unreadable_file_is_reported_as_wrong_and_an_unknown_flag_is_misuse() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("menshen.toml");
    std::fs::write(&broken, "[server").unwrap();
    for file in [Path::new("/nowhere/menshen.toml"), &broken] {
        let check = run_menshen(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(check.status.code(), Some(1), "{}", text(&check.stderr));
        assert_wrong(&text(&check.stdout), "--config", file.to_str().unwrap());
    }
    assert_eq!(run_menshen(&["check", "--print-config"]).status.code(), Some(2));
}

#[test]
fn the_printed_file_explains_every_key_and_hides_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("menshen.toml");
    let settings = "[liveness]\nkey_file = \"/etc/menshen/keys\"\n\
                    replay = \"redis://user:hunter2@valkey:6379\"\n";
    std::fs::write(&file, settings).unwrap();
    let printed = run_menshen(&["serve", "--print-config", "--config", file.to_str().unwrap()]);
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    let printed = text(&printed.stdout);
    assert!(printed.contains("replay = \"redis://redacted@valkey:6379\""), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    let is_key = |line: &str| line.contains(" = ") && !line.starts_with("# ");
    let keys = lines.windows(2).filter(|pair| is_key(pair[1]) || pair[1].starts_with('['));
    assert!(keys.clone().count() > 80, "{printed}");
    for pair in keys {
        assert!(pair[0].starts_with("# "), "nothing explains {}", pair[1]);
    }
}

#[test]
fn an_unknown_word_fails_before_anything_is_printed() {
    for (flags, key) in [
        (vec!["--device", "tpu"], "device.device"),
        (vec!["--precision", "int8"], "device.precision"),
        (vec!["--log", "menshen=loud"], "log.filter"),
    ] {
        let printed = run_menshen(&[&["serve", "--print-config"], &flags[..]].concat());
        assert_eq!(printed.status.code(), Some(2));
        assert_eq!(text(&printed.stdout), "");
        assert!(text(&printed.stderr).contains(key), "{}", text(&printed.stderr));
    }
}
