//! Many callers at once: batches form, and every caller gets the answer to its own request.

use menshen::proto::v1;
use tokio::task::JoinSet;

use crate::support::{config, connect, embed_request, fixture, http_get, metric, verify_request};

const PICTURES: [&str; 8] = [
    "person_a_1.jpg",
    "person_a_2.jpg",
    "person_b_1.jpg",
    "person_b_2.jpg",
    "impostor_1.jpg",
    "impostor_2.jpg",
    "astronaut.png",
    "grace_hopper.jpg",
];

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_verifications_at_once_batch_and_are_all_right() {
    let app = menshen::app::App::start(config()).await.unwrap();
    let client = connect(app.grpc_address()).await;
    let pairs = [
        ("person_a_1.jpg", "person_a_2.jpg", v1::Decision::Pass),
        ("person_b_1.jpg", "person_b_2.jpg", v1::Decision::Pass),
        ("person_a_1.jpg", "impostor_1.jpg", v1::Decision::Fail),
        ("grace_hopper.jpg", "impostor_2.jpg", v1::Decision::Fail),
    ];
    let mut calls = JoinSet::new();
    for index in 0..64 {
        let (portrait, live, want) = pairs[index % pairs.len()];
        let mut client = client.clone();
        let request = verify_request(portrait, &[live]);
        calls.spawn(async move {
            let answer = client.verify(request).await.unwrap().into_inner();
            assert_eq!(answer.decision(), want, "{portrait} {live}: {answer:?}");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    let (_, text) = http_get(app.http_address(), "/metrics").await;
    let mean = |model: &str| {
        let sum = metric(&text, &format!("menshen_batch_rows_sum{{lane=\"{model}\"}}"));
        let count = metric(&text, &format!("menshen_batch_rows_count{{lane=\"{model}\"}}"));
        sum / count
    };
    for model in ["yunet", "sface", "fr_liveness"] {
        assert!(mean(model) > 4.0, "{model}: mean batch {} in\n{text}", mean(model));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_faces_get_their_own_embeddings() {
    let mut client = crate::support::client().await;
    let mut alone = Vec::new();
    for name in PICTURES {
        alone.push(embedding(&mut client, name).await);
    }
    let mut calls = JoinSet::new();
    for index in 0..PICTURES.len() * 3 {
        let picture = index % PICTURES.len();
        let mut client = client.clone();
        calls.spawn(async move { (picture, embedding(&mut client, PICTURES[picture]).await) });
    }
    while let Some(call) = calls.join_next().await {
        let (picture, batched) = call.unwrap();
        let pairs = alone[picture].iter().zip(&batched);
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-4, "{}: {difference}", PICTURES[picture]);
    }
}

async fn embedding(client: &mut crate::support::Client, name: &str) -> Vec<f32> {
    let request = embed_request(fixture(name), v1::ImageSource::IdFile);
    let answer = client.embed(request).await.unwrap().into_inner();
    answer.embedding.unwrap().values
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_tickets_are_refused_with_a_retry_hint() {
    use tonic_types::StatusExt;

    let mut config = config();
    config.server.requests_max = 2;
    let app = menshen::app::App::start(config).await.unwrap();
    let client = connect(app.grpc_address()).await;
    let mut calls = JoinSet::new();
    for _ in 0..24 {
        let mut client = client.clone();
        calls.spawn(async move {
            client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"])).await
        });
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(answer) => {
                assert_eq!(answer.into_inner().decision(), v1::Decision::Pass);
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
                assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
                refused += 1;
            }
        }
    }
    assert!(answered >= 2 && refused >= 1, "{answered} answered, {refused} refused");

    // The tickets were returned: the server serves again.
    let mut client = client.clone();
    client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"])).await.unwrap();
    app.stop().await;
}
