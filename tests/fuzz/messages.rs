//! Fuzzes messages of callers, frame metadata included: each is accepted by the rules or refused.
#![no_main]

mod mutation;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use menshen::proto::v1;
use menshen::services::read_as_every_request;
use mutation::mutate;
use prost::Message;

/// One valid message of each kind.
static GENUINE: LazyLock<[Vec<u8>; 5]> = LazyLock::new(|| {
    let context = Some(v1::RequestContext {
        store_id: "shop-1".to_owned(),
        consent_reference: "consent/1".to_owned(),
        ..v1::RequestContext::default()
    });
    let image = Some(v1::Image { data: vec![0xff, 0xd8, 0xff, 0xe0] });
    let frame = v1::Frame {
        sequence: 1,
        capture_unix_ms: 1_800_000_000_000,
        image: image.clone(),
        mirrored: true,
        rotation_degrees: 90,
    };
    let create = v1::CreateSessionRequest {
        context: context.clone(),
        device_id: "camera-1".to_owned(),
        transaction_id: "transaction-1".to_owned(),
        portrait_sha256: vec![7; 32],
        policy_fmr: Some(1e-4),
        ..v1::CreateSessionRequest::default()
    };
    let start = v1::Start {
        context: context.clone(),
        token: "v4.local.token".to_owned(),
        device_id: create.device_id.clone(),
        portrait: image.clone(),
    };
    let evaluate = v1::EvaluateRequest {
        context: context.clone(),
        token: start.token.clone(),
        device_id: start.device_id.clone(),
        portrait: image,
        frames: vec![frame.clone(), v1::Frame { sequence: 2, ..frame.clone() }],
    };
    let run = |message| v1::RunRequest { message: Some(message) }.encode_to_vec();
    [
        create.encode_to_vec(),
        run(v1::run_request::Message::Start(start)),
        run(v1::run_request::Message::Frame(frame)),
        evaluate.encode_to_vec(),
        v1::GetResultRequest { context, session_id: "0".repeat(32) }.encode_to_vec(),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    read_as_every_request(bytes);
    for genuine in &*GENUINE {
        read_as_every_request(&mutate(genuine.clone(), bytes));
    }
});
