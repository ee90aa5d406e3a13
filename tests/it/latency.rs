//! The time that a caller waits beyond the server's own work.

use std::time::Instant;

use menshen::proto::v1;

use crate::support::{client, embed_request, fixture};

/// Pads a JPEG file to `bytes` with comment segments, which decoders skip.
fn pad_jpeg(mut file: Vec<u8>, bytes: usize) -> Vec<u8> {
    let (marker, rest) = (file[..2].to_vec(), file.split_off(2));
    let mut padded = marker;
    while padded.len() + rest.len() < bytes {
        let length = (bytes - padded.len() - rest.len()).clamp(4, 0xffff) - 2;
        padded.extend([0xff, 0xfe]);
        padded.extend(u16::try_from(length).unwrap().to_be_bytes());
        padded.resize(padded.len() + length - 2, 0);
    }
    padded.extend(rest);
    padded
}

/// Without `TCP_NODELAY` an answer waits for the caller's delayed acknowledgement, which Linux
/// sends after 40 ms. Small windows of HTTP/2 make a picture wait for the server. Half of the calls
/// may be late for other reasons, since other tests use the same cores.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_hardly_longer_than_the_server_says() {
    const DELAYED_ACK_MS: f64 = 40.0;
    let mut client = client().await;
    let file = pad_jpeg(fixture("person_a_1.jpg"), 300 << 10);
    let mut overheads_ms: Vec<f64> = Vec::new();
    for _ in 0..30 {
        let request = embed_request(file.clone(), v1::ImageSource::LivePhoto);
        let v1::EmbedRequest { context, image, source } = request;
        let sent = Instant::now();
        let answer = client.detect(v1::DetectRequest { context, image, source }).await.unwrap();
        let wall_ms = sent.elapsed().as_secs_f64() * 1e3;
        overheads_ms.push(wall_ms - answer.into_inner().times.unwrap().total_ms);
    }
    overheads_ms.sort_by(f64::total_cmp);
    assert!(overheads_ms[15] < DELAYED_ACK_MS / 2.0, "{overheads_ms:.1?}");
}
