//! Passive liveness by an ensemble of models, configured by manifests alone.

use std::path::Path;

use menshen::app::App;
use menshen::proto::v1;
use tempfile::TempDir;

use crate::support::{
    client, config, connect, context, copy_folder, fixture, http_get, image, run_menshen, text,
    verify_request,
};

/// A picture to which the default liveness model gives 0.998, and 0.086 with a tighter crop.
const PICTURE: &str = "impostor_2.jpg";

/// Returns a folder with the models of the repository, `near/1` and `pair/1`. `near/1` is the
/// default liveness model with another name and a tighter crop; `pair/1` is the ensemble of both.
fn models_with_ensemble() -> TempDir {
    let models = tempfile::tempdir().unwrap();
    copy_folder(&config().models.dir, models.path());
    let near = models.path().join("near/1");
    std::fs::create_dir_all(&near).unwrap();
    copy_folder(&models.path().join("fr_liveness/0.0.1"), &near);
    replace_in_file(&near.join("model.toml"), "name = \"fr_liveness\"", "name = \"near\"");
    replace_in_file(&near.join("model.toml"), "version = \"0.0.1\"\ntask", "version = \"1\"\ntask");
    replace_in_file(&near.join("model.toml"), "scale = 2.7", "scale = 1.3");
    let pair = models.path().join("pair/1");
    std::fs::create_dir_all(&pair).unwrap();
    std::fs::write(
        pair.join("ensemble.toml"),
        "name = \"pair\"\nversion = \"1\"\nmembers = [\"fr_liveness/0.0.1\", \"near/1\"]\n\
         fusion = \"mean\"\nscore_min = 0.8\nscore_source = \"this test\"\n",
    )
    .unwrap();
    models
}

fn replace_in_file(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

async fn start_with_liveness(models: &TempDir, liveness: &str) -> App {
    let mut config = config();
    config.models.dir = models.path().to_owned();
    config.models.liveness = liveness.to_owned();
    App::start(config).await.unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    text(&run_menshen(arguments).stdout)
}

fn request() -> v1::CheckLivenessRequest {
    v1::CheckLivenessRequest { context: context(), image: image(fixture(PICTURE)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_an_ensemble_judge_as_one_and_are_all_named() {
    let models = models_with_ensemble();
    let alone = client().await.check_liveness(request()).await.unwrap().into_inner();
    let alone = alone.liveness.unwrap().score;
    let app = start_with_liveness(&models, "near").await;
    let near = connect(app.grpc_address()).await.check_liveness(request()).await.unwrap();
    let near = near.into_inner().liveness.unwrap().score;
    app.stop().await;
    assert!(alone > 0.9 && near < 0.5, "{alone} {near}");

    let app = start_with_liveness(&models, "pair/1").await;
    let mut client = connect(app.grpc_address()).await;
    let answer = client.check_liveness(request()).await.unwrap().into_inner();
    let liveness = answer.liveness.unwrap();
    assert!((liveness.score - (alone + near) / 2.0).abs() < 1e-3, "{}", liveness.score);
    assert_eq!(liveness.score_min, 0.8);
    assert_eq!(answer.decision(), v1::Decision::Fail);

    let request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
    let answer = client.verify(request).await.unwrap().into_inner();
    let names: Vec<&str> = answer.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["yunet", "sface", "fr_liveness", "near"]);
    let (_, metrics) = http_get(app.http_address(), "/metrics").await;
    for model in ["fr_liveness/0.0.1", "near/1", "facemesh/3.3.6", "iris/3.3.6"] {
        let mut live = metrics.lines().filter(|line| line.starts_with("menshen_model_live"));
        assert!(live.any(|line| line.contains(model)), "{model} in\n{metrics}");
    }
    app.stop().await;
}

#[test]
fn an_ensemble_is_listed_inspected_and_verified_with_its_members() {
    let models = models_with_ensemble();
    let dir = models.path().to_str().unwrap();
    let list = stdout(&["models", "list", "--models", dir]);
    assert!(
        list.contains("pair/1") && list.contains("mean of fr_liveness/0.0.1, near/1"),
        "{list}"
    );
    let inspect = stdout(&["models", "inspect", "pair", "--models", dir]);
    for word in ["near/1", "fr_liveness/0.0.1", "mean", "0.8: this test"] {
        assert!(inspect.contains(word), "{word} in\n{inspect}");
    }
    let verify = stdout(&["models", "verify", "pair", "--models", dir]);
    for id in ["pair/1", "near/1", "fr_liveness/0.0.1"] {
        assert!(verify.contains(id), "{id} in\n{verify}");
    }
    assert!(!verify.contains("REFUSED") && !verify.contains("sface"), "{verify}");
    replace_in_file(&models.path().join("pair/1/ensemble.toml"), "near/1", "iris/3.3.6");
    let verify = stdout(&["models", "verify", "pair", "--models", dir]);
    let reason = "model iris/3.3.6 is for iris, passive-liveness was asked for";
    assert!(verify.contains("REFUSED") && verify.contains(reason), "{verify}");
}
