//! The whole server on a GPU, or on the emulated driver, compared with the server on the CPU.

use menshen::app::App;
use menshen::proto::v1;

use crate::support::{client, config, connect, embed_request, fixture, verify_request};

const PORTRAITS: [&str; 3] = ["person_a_1.jpg", "person_b_1.jpg", "impostor_1.jpg"];

fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

async fn embedding(client: &mut crate::support::Client, name: &str) -> Vec<f32> {
    let request = embed_request(fixture(name), v1::ImageSource::IdFile);
    let answer = client.embed(request).await.unwrap().into_inner();
    answer.embedding.unwrap_or_else(|| panic!("{name}: {:?}", answer.reasons)).values
}

/// `distance_max` limits 1 − cosine of embeddings. `score_max` limits the difference of liveness
/// scores.
async fn assert_answers_as_the_cpu(precision: &str, distance_max: f64, score_max: f64) {
    let mut cpu = client().await;
    let mut config = config();
    config.device.device = "cuda:0".parse().unwrap();
    config.device.precision = Some(precision.parse().unwrap());
    let app = App::start(config).await.unwrap();
    let mut gpu = connect(app.grpc_address()).await;
    for name in PORTRAITS {
        let (known, found) = (embedding(&mut cpu, name).await, embedding(&mut gpu, name).await);
        let distance = cosine_distance(&known, &found);
        assert!(distance <= distance_max, "{name} in {precision}: {distance:.1e}");
    }
    for (portrait, live) in [(PORTRAITS[1], "person_b_2.jpg"), (PORTRAITS[1], "impostor_2.jpg")] {
        let known = cpu.verify(verify_request(portrait, &[live])).await.unwrap().into_inner();
        let found = gpu.verify(verify_request(portrait, &[live])).await.unwrap().into_inner();
        assert_eq!(found.decision(), known.decision(), "{live} in {precision}");
        let score = |answer: &v1::VerifyResponse| answer.liveness.as_ref().unwrap().score;
        let difference = (score(&found) - score(&known)).abs();
        assert!(difference <= score_max, "{live} in {precision}: {difference:.1e}");
    }
    drop(gpu);
    app.stop().await;
}

#[tokio::test]
async fn gpu_the_server_answers_as_on_the_cpu_in_f32() {
    assert_answers_as_the_cpu("f32", 1e-6, 1e-4).await;
}

#[tokio::test]
async fn gpu_the_server_decides_as_on_the_cpu_in_tf32() {
    assert_answers_as_the_cpu("tf32", 0.1, 0.02).await;
}

/// On the same input the networks are within 1e-3 (`engine::cuda`). In `f16` another one of two
/// neighbouring detector cells with similar scores may win. The points and the crop then move by a
/// pixel, which moved one of these portraits by 0.047.
#[tokio::test]
async fn gpu_the_server_decides_as_on_the_cpu_in_f16() {
    assert_answers_as_the_cpu("f16", 0.1, 0.02).await;
}
