//! Each call of `FaceService` on real portraits.

use menshen::proto::v1;

use crate::support::{
    client, config, connect, context, embed_request, fixture, image, png, reason_codes,
    verify_request,
};

const SAME: [(&str, &str); 3] = [
    ("person_a_1.jpg", "person_a_2.jpg"),
    ("person_b_1.jpg", "person_b_2.jpg"),
    ("person_b_2.jpg", "person_b_1.jpg"),
];

const DIFFERENT: [(&str, &str); 6] = [
    ("person_a_1.jpg", "impostor_1.jpg"),
    ("person_a_2.jpg", "impostor_2.jpg"),
    ("person_b_1.jpg", "person_a_2.jpg"),
    ("impostor_1.jpg", "impostor_2.jpg"),
    ("astronaut.png", "person_b_2.jpg"),
    ("grace_hopper.jpg", "person_b_1.jpg"),
];

#[tokio::test]
async fn the_same_person_passes_at_fmr_1e_4() {
    let mut client = client().await;
    for (portrait, live) in SAME {
        let mut request = verify_request(portrait, &[live]);
        request.policy_fmr = Some(1e-4);
        let answer = client.verify(request).await.unwrap().into_inner();
        assert_eq!(answer.decision(), v1::Decision::Pass, "{portrait} {live}: {answer:?}");
        assert_eq!(answer.request_id, "test-1");
        assert_eq!(answer.matched_live_photo, Some(0));
        assert!((answer.similarity_min.unwrap() - 0.425).abs() < 1e-9);
        assert!(answer.similarity.unwrap() >= 0.55);
        assert!(answer.score100.unwrap() > 90.0);
        assert!(answer.liveness.unwrap().passed);
        assert_eq!(reason_codes(&answer.reasons), [v1::ReasonCode::GenericCalibration]);
        assert!(answer.calibration.unwrap().generic);
        assert_eq!(answer.models.len(), 3);
        let times = answer.times.unwrap();
        assert!(times.total_ms > 0.0 && times.detect_ms > 0.0 && times.embed_ms > 0.0);
    }
}

#[tokio::test]
async fn another_person_fails_with_value_and_limit() {
    let mut client = client().await;
    for (portrait, live) in DIFFERENT {
        let answer = client.verify(verify_request(portrait, &[live])).await.unwrap().into_inner();
        assert_eq!(answer.decision(), v1::Decision::Fail, "{portrait} {live}: {answer:?}");
        let reason = &answer.reasons[0];
        assert_eq!(reason.code(), v1::ReasonCode::SimilarityLow);
        assert_eq!(reason.value, answer.similarity);
        assert_eq!(reason.limit, answer.similarity_min);
        assert!(answer.similarity.unwrap() <= 0.32);
    }
}

#[tokio::test]
async fn of_several_live_photos_the_best_is_matched_and_the_others_must_agree() {
    let mut client = client().await;
    let agree = verify_request("person_b_1.jpg", &["person_b_2.jpg", "person_b_2.jpg"]);
    let answer = client.verify(agree).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Pass, "{answer:?}");
    assert_eq!(answer.live_photos.len(), 2);

    let differ = verify_request("person_b_1.jpg", &["person_b_2.jpg", "impostor_1.jpg"]);
    let answer = client.verify(differ).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Fail);
    assert!(
        reason_codes(&answer.reasons).contains(&v1::ReasonCode::LivePhotosDiffer),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_portrait_shown_again_as_the_live_photo_fails() {
    let request = verify_request("person_b_1.jpg", &["person_b_1.jpg"]);
    let answer = client().await.verify(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Fail);
    assert_eq!(answer.reasons[0].code(), v1::ReasonCode::SameImage);
    assert_eq!(answer.reasons[0].subject, "live_photos[0]");
}

#[tokio::test]
async fn a_chip_portrait_of_102_by_126_pixels_passes() {
    let portrait = chip_portrait();
    let mut request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
    request.portrait = image(portrait.clone());
    request.portrait_source = v1::ImageSource::IdChip.into();
    let mut client = client().await;
    let answer = client.verify(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Pass, "{answer:?}");

    request.live_photos = vec![v1::Image { data: portrait }];
    request.portrait = image(fixture("person_b_2.jpg"));
    request.portrait_source = v1::ImageSource::IdFile.into();
    let answer = client.verify(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Retry, "too small for a live photo: {answer:?}");
    assert!(reason_codes(&answer.reasons).contains(&v1::ReasonCode::FaceTooSmall));
}

/// Left edge, top edge and width of head and shoulders in `person_b_1.jpg`. At a width of 102
/// pixels the eyes are 26 pixels apart, as on the chip of an identity card.
const HEAD: [f64; 3] = [90.0, 60.0, 537.0];

/// Returns head and shoulders of the fixture as small as the chip of an identity card stores them.
fn chip_portrait() -> Vec<u8> {
    use menshen::image::{ImageSettings, decode};

    let source = decode(&fixture("person_b_1.jpg"), &ImageSettings::default()).unwrap();
    let (width, height) = (102, 126);
    let [head_left, head_top, head_width] = HEAD;
    let side = head_width / width as f64;
    let source_x = |x: usize| (head_left + x as f64 * side) as usize;
    let source_y = |y: usize| (head_top + y as f64 * side) as usize;
    let mut pixels = vec![0; width * height * 3];
    for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (index % width, index / width);
        let average = |channel: usize| {
            let (mut sum, mut count) = (0, 0);
            for from_y in source_y(y)..source_y(y + 1) {
                for from_x in source_x(x)..source_x(x + 1) {
                    let at = (from_y * source.width() + from_x) * 3 + channel;
                    sum += usize::from(source.pixels()[at]);
                    count += 1;
                }
            }
            u8::try_from(sum / count).unwrap()
        };
        pixel.copy_from_slice(&[average(0), average(1), average(2)]);
    }
    png(width, height, &pixels)
}

#[tokio::test]
async fn a_policy_the_calibration_cannot_support_is_refused() {
    let mut client = client().await;
    for fmr in [1e-5, 1e-9, 0.5] {
        let mut request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
        request.policy_fmr = Some(fmr);
        let refused = client.verify(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{fmr}: {refused}");
        assert!(refused.message().contains("policy_fmr"), "{refused}");
    }
}

#[tokio::test]
async fn a_deployment_that_demands_its_own_row_and_has_none_gets_review() {
    let mut config = config();
    config.verify.own_pair_type_required = true;
    let app = menshen::app::App::start(config).await.unwrap();
    let mut client = connect(app.grpc_address()).await;
    let request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
    let answer = client.verify(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Review);
    assert_eq!(reason_codes(&answer.reasons), [v1::ReasonCode::Uncalibrated]);
    assert_eq!((answer.score100, answer.calibration), (None, None));
    app.stop().await;
}

#[tokio::test]
async fn compare_takes_images_and_embeddings() {
    let mut client = client().await;
    let embed = |name| embed_request(fixture(name), v1::ImageSource::IdFile);
    let a = client.embed(embed("person_a_1.jpg")).await.unwrap().into_inner();
    let embedding = a.embedding.unwrap();
    assert_eq!(embedding.values.len(), 128);
    let norm: f32 = embedding.values.iter().map(|v| v * v).sum();
    assert!((norm - 1.0).abs() < 1e-5);

    let side = |side| {
        Some(v1::CompareSide { source: v1::ImageSource::LivePhoto.into(), side: Some(side) })
    };
    let by_embedding = v1::compare_side::Side::Embedding(embedding.clone());
    let by_image = v1::compare_side::Side::Image(v1::Image { data: fixture("person_a_2.jpg") });
    let request =
        v1::CompareRequest { context: context(), a: side(by_embedding), b: side(by_image) };
    let answer = client.compare(request.clone()).await.unwrap().into_inner();
    assert!(answer.similarity.unwrap() >= 0.55, "{answer:?}");
    assert!(answer.a.is_none() && answer.b.is_some());

    let foreign = v1::Embedding { space: "somebody-else".into(), ..embedding };
    let request =
        v1::CompareRequest { a: side(v1::compare_side::Side::Embedding(foreign)), ..request };
    let refused = client.compare(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn a_model_that_is_not_live_is_not_found_and_the_live_one_answers() {
    let mut client = client().await;
    for (model, found) in
        [("sface", true), ("sface/2021dec", true), ("arcface", false), ("sface/1", false)]
    {
        let mut request = embed_request(fixture("person_b_1.jpg"), v1::ImageSource::IdFile);
        request.context.as_mut().unwrap().model = model.into();
        match client.embed(request).await {
            Ok(_) => assert!(found, "{model}"),
            Err(refused) => {
                assert!(!found, "{model}: {refused}");
                assert_eq!(refused.code(), tonic::Code::NotFound);
            }
        }
    }
}

#[tokio::test]
async fn passive_liveness_passes_a_portrait_photograph() {
    let request =
        v1::CheckLivenessRequest { context: context(), image: image(fixture("person_a_2.jpg")) };
    let answer = client().await.check_liveness(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Pass, "{answer:?}");
    assert!(answer.liveness.unwrap().score > 0.9);
}

#[tokio::test]
async fn a_picture_without_a_face_and_one_with_two_are_answers_with_reasons() {
    let mut client = client().await;
    let grey = png(200, 200, &[128; 200 * 200 * 3]);
    let answer =
        client.embed(embed_request(grey, v1::ImageSource::LivePhoto)).await.unwrap().into_inner();
    assert_eq!(reason_codes(&answer.reasons), [v1::ReasonCode::FaceNotFound]);
    assert!(answer.embedding.is_none());

    let two = side_by_side("person_b_1.jpg", "person_b_2.jpg");
    let answer = client
        .embed(embed_request(two.clone(), v1::ImageSource::LivePhoto))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reason_codes(&answer.reasons), [v1::ReasonCode::MultipleFaces], "{answer:?}");
    assert_eq!(answer.image.unwrap().faces_found, 2);

    let mut request = verify_request("person_b_1.jpg", &[]);
    request.live_photos = vec![v1::Image { data: two }];
    let answer = client.verify(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Retry);
}

fn side_by_side(left: &str, right: &str) -> Vec<u8> {
    use menshen::image::{ImageSettings, RgbImage, decode};

    let limits = ImageSettings::default();
    let [left, right]: [RgbImage; 2] =
        [left, right].map(|name| decode(&fixture(name), &limits).unwrap());
    let height = left.height().min(right.height());
    let line = |image: &RgbImage, y: usize| {
        let bytes = image.width() * 3;
        image.pixels()[y * bytes..(y + 1) * bytes].to_vec()
    };
    let pixels: Vec<u8> =
        (0..height).flat_map(|y| [line(&left, y), line(&right, y)].concat()).collect();
    png(left.width() + right.width(), height, &pixels)
}
