//! The whole pipeline compared with OpenCV and ONNX Runtime on the same pictures.

use std::collections::BTreeMap;

use menshen::proto::v1;
use serde::Deserialize;

use crate::support::{client, context, embed_request, fixture, image, repository};

#[derive(Deserialize)]
struct Golden {
    pictures: BTreeMap<String, GoldenPicture>,
}

#[derive(Deserialize)]
struct GoldenPicture {
    width: u32,
    height: u32,
    /// x, y, width, height, five points, score.
    faces: Vec<Vec<f32>>,
    sface: Vec<f32>,
    fr_liveness: Vec<f64>,
}

fn golden() -> Golden {
    let path = repository().join("tests/fixtures/golden_pipeline.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn overlap(face: &v1::Face, golden: &[f32]) -> f32 {
    let own = face.r#box.unwrap();
    let (right, bottom) = (golden[0] + golden[2], golden[1] + golden[3]);
    let width = (own.x + own.width).min(right) - own.x.max(golden[0]);
    let height = (own.y + own.height).min(bottom) - own.y.max(golden[1]);
    let both = width.max(0.0) * height.max(0.0);
    both / (own.width * own.height + golden[2] * golden[3] - both)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test]
async fn faces_and_embeddings_agree_with_opencv() {
    let mut client = client().await;
    let mut embeddings = Vec::new();
    for (name, golden) in golden().pictures {
        let request = embed_request(fixture(&name), v1::ImageSource::IdFile);
        let detect = v1::DetectRequest {
            context: context(),
            image: request.image.clone(),
            source: request.source,
        };
        let faces = client.detect(detect).await.unwrap().into_inner().faces;
        assert_eq!(faces.len(), golden.faces.len(), "{name}");
        for known in &golden.faces {
            let best = faces.iter().map(|face| overlap(face, known)).fold(0.0, f32::max);
            assert!(best >= 0.9, "{name}: overlap {best}");
        }
        let answer = client.embed(request).await.unwrap().into_inner();
        let report = answer.image.as_ref().unwrap();
        assert_eq!((report.width, report.height), (golden.width, golden.height));
        let embedding = answer.embedding.unwrap_or_else(|| panic!("{name}: {:?}", answer.reasons));
        let same = cosine(&embedding.values, &golden.sface);
        assert!(same >= 0.98, "{name}: cosine {same} with the golden embedding");
        embeddings.push((name, embedding.values));
    }
    assert_pairs_separate(&embeddings);
}

fn assert_pairs_separate(embeddings: &[(String, Vec<f32>)]) {
    for (index, (name, embedding)) in embeddings.iter().enumerate() {
        for (other_name, other) in &embeddings[index + 1..] {
            let similarity = cosine(embedding, other);
            let same = name.starts_with("person") && name[..8] == other_name[..8];
            let right = if same { similarity >= 0.55 } else { similarity <= 0.32 };
            assert!(right, "{name} {other_name}: {similarity}");
        }
    }
}

#[tokio::test]
async fn liveness_agrees_with_onnx_runtime() {
    let mut client = client().await;
    let mut compared = 0;
    for (name, golden) in golden().pictures {
        let request = v1::CheckLivenessRequest { context: context(), image: image(fixture(&name)) };
        let answer = client.check_liveness(request).await.unwrap().into_inner();
        // Small portraits are no live photographs. Quality refuses them before the network runs.
        let Some(liveness) = answer.liveness else { continue };
        let difference = (liveness.score - golden.fr_liveness[0]).abs();
        assert!(difference <= 0.02, "{name}: {} and {}", liveness.score, golden.fr_liveness[0]);
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} pictures were compared");
}
