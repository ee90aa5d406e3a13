//! Broken input of every kind gets the right typed answer, and nothing panics.

use menshen::proto::v1;
use tonic::Code;
use tonic_types::StatusExt;

use crate::raw;
use crate::support::{
    client, context, embed_request, fixture, http_get, image, panic_count, png, shared_server,
    verify_request,
};

/// Returns the header of a JPEG of 10,000 × 10,000 pixels without any data.
fn hundred_megapixel_jpeg() -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0, 16];
    jpeg.extend_from_slice(b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    jpeg.extend_from_slice(&[0xff, 0xc0, 0, 17, 8]);
    jpeg.extend_from_slice(&10_000_u16.to_be_bytes());
    jpeg.extend_from_slice(&10_000_u16.to_be_bytes());
    jpeg.extend_from_slice(&[3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    jpeg
}

/// Returns a PNG whose header claims 10,000 × 10,000 pixels.
fn hundred_megapixel_png() -> Vec<u8> {
    let mut file = png(10, 10, &[0; 300]);
    file[16..24].copy_from_slice(&[0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10]);
    let crc = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&crc.to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

fn broken_files() -> Vec<(&'static str, Vec<u8>)> {
    let jpeg = fixture("person_a_1.jpg");
    let astronaut = fixture("astronaut.png");
    let mut scrambled = jpeg.clone();
    for byte in scrambled.iter_mut().skip(20).step_by(7) {
        *byte ^= 0x5a;
    }
    vec![
        ("empty", vec![]),
        ("not an image", b"<html><body>no image</body></html>".to_vec()),
        ("one byte", vec![0xff]),
        ("truncated jpeg", jpeg[..jpeg.len() / 2].to_vec()),
        ("jpeg without its end", jpeg[..jpeg.len() - 200].to_vec()),
        ("truncated png", astronaut[..astronaut.len() / 2].to_vec()),
        ("scrambled jpeg", scrambled),
        ("hundred megapixel jpeg", hundred_megapixel_jpeg()),
        ("hundred megapixel png", hundred_megapixel_png()),
        ("gif", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()),
        ("over the file limit", vec![0xff; (8 << 20) + 1]),
    ]
}

#[tokio::test]
async fn a_broken_file_is_an_invalid_argument_that_names_the_field_whatever_the_call() {
    let mut client = client().await;
    for (kind, file) in broken_files() {
        let detect = v1::DetectRequest {
            context: context(),
            image: image(file.clone()),
            source: v1::ImageSource::LivePhoto.into(),
        };
        let embed = embed_request(file.clone(), v1::ImageSource::IdFile);
        let liveness = v1::CheckLivenessRequest { context: context(), image: image(file.clone()) };
        let mut broken_live =
            verify_request("person_b_1.jpg", &["person_b_2.jpg", "person_b_2.jpg"]);
        broken_live.live_photos[1].data = file;
        for (field, refused) in [
            ("image.data", client.detect(detect).await.map(drop)),
            ("image.data", client.embed(embed).await.map(drop)),
            ("image.data", client.check_liveness(liveness).await.map(drop)),
            ("live_photos[1].data", client.verify(broken_live).await.map(drop)),
        ] {
            let status = refused.expect_err(kind);
            assert_eq!(status.code(), Code::InvalidArgument, "{kind}: {status}");
            let fields = status.get_details_bad_request().unwrap().field_violations;
            // A file over its limit makes the whole message of a one-image call too large.
            assert!(fields[0].field == field || fields[0].field == "message", "{kind}: {fields:?}");
        }
    }
    assert_nothing_panicked().await;
}

#[tokio::test]
async fn a_message_over_the_limit_of_its_method_is_refused() {
    let mut client = client().await;
    // Small enough for a Verify, too large for an Embed.
    let request = embed_request(vec![0xff; 20 << 20], v1::ImageSource::IdFile);
    let status = client.embed(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("larger than"), "{status}");
}

#[tokio::test]
async fn a_request_without_its_fields_names_all_of_them() {
    let status = client().await.verify(v1::VerifyRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<String> = status
        .get_details_bad_request()
        .unwrap()
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    assert_eq!(fields, ["context", "portrait_source", "portrait.data", "live_photos"]);
}

#[tokio::test]
async fn unusable_numbers_are_refused() {
    let mut client = client().await;
    for values in [vec![f32::NAN; 128], vec![f32::INFINITY; 128], vec![0.0; 128], vec![1e38; 128]] {
        let side = || {
            let embedding = v1::Embedding { values: values.clone(), space: "any".into() };
            let side = v1::compare_side::Side::Embedding(embedding);
            Some(v1::CompareSide { source: 0, side: Some(side) })
        };
        let request = v1::CompareRequest { context: context(), a: side(), b: side() };
        let status = client.compare(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    for fmr in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0] {
        let mut request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
        request.policy_fmr = Some(fmr);
        assert_eq!(client.verify(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_nothing_panicked().await;
}

#[tokio::test]
async fn extreme_pictures_are_answered() {
    let mut client = client().await;
    let noise: Vec<u8> = (0..300 * 300 * 3_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    for picture in [
        png(1, 1, &[7, 7, 7]),
        png(4096, 1, &[255; 4096 * 3]),
        png(1, 4096, &[0; 4096 * 3]),
        png(300, 300, &noise),
    ] {
        let request = embed_request(picture, v1::ImageSource::LivePhoto);
        let answer = client.embed(request).await.unwrap().into_inner();
        assert!(answer.embedding.is_none());
        assert!(!answer.reasons.is_empty());
    }
    assert_nothing_panicked().await;
}

#[tokio::test]
async fn a_body_that_is_no_message_is_refused() {
    let address = tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap();
    for method in ["Verify", "Compare", "Embed", "Detect", "CheckLiveness"] {
        let status = raw::call(address, method, &[0xff; 40], None).await;
        // gRPC libraries answer this code when a message does not parse.
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
    }
    assert_nothing_panicked().await;
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let address = tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap();
    let status = raw::call(address, "Guess", &[], None).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

async fn assert_nothing_panicked() {
    let (status, text) = http_get(shared_server().http, "/metrics").await;
    assert_eq!(status, 200);
    let counted: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#') && line.contains("panics")).collect();
    assert!(!counted.is_empty(), "panics are counted");
    assert!(counted.iter().all(|line| line.ends_with(" 0")), "{counted:?}");
    assert_eq!(panic_count(), 0);
}
