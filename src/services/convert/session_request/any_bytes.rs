//! Smoke fuzzing: any bytes give a valid request or an error. `tests/fuzz` continues where this
//! test ends.

use proptest::prelude::*;
use prost::Message;

use super::law::read_as_every_request;
use super::*;

/// Generates a `Frame` with any values in its fields.
fn any_frame() -> impl Strategy<Value = v1::Frame> {
    let image = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let degrees = prop_oneof![Just(90), any::<u32>()];
    (any::<u32>(), any::<i64>(), image, any::<bool>(), degrees).prop_map(
        |(sequence, capture_unix_ms, image, mirrored, rotation_degrees)| v1::Frame {
            sequence,
            capture_unix_ms,
            image: image.map(|data| v1::Image { data }),
            mirrored,
            rotation_degrees,
        },
    )
}

/// Encodes a valid start and a valid recording.
fn valid_messages(token: String, frames: Vec<v1::Frame>) -> [Vec<u8>; 2] {
    let context = v1::RequestContext {
        store_id: "shop-1".to_owned(),
        consent_reference: "consent/1".to_owned(),
        ..v1::RequestContext::default()
    };
    let start = v1::Start {
        context: Some(context),
        token,
        device_id: "camera-1".to_owned(),
        portrait: Some(v1::Image { data: vec![1, 2, 3] }),
    };
    let recording = v1::EvaluateRequest {
        context: start.context.clone(),
        token: start.token.clone(),
        device_id: start.device_id.clone(),
        portrait: start.portrait.clone(),
        frames,
    };
    let message = Some(v1::run_request::Message::Start(start));
    [v1::RunRequest { message }.encode_to_vec(), recording.encode_to_vec()]
}

#[test]
fn a_start_and_a_recording_that_keep_the_rules_are_taken() {
    let image = Some(v1::Image { data: vec![1] });
    let frame = v1::Frame { image, rotation_degrees: 270, ..v1::Frame::default() };
    let [run, recording] = valid_messages("token".to_owned(), vec![frame]);
    let limits = ImageSettings::default();
    parse_start(v1::RunRequest::decode(&run[..]).unwrap(), &limits).unwrap();
    let recording = v1::EvaluateRequest::decode(&recording[..]).unwrap();
    assert_eq!(parse_evaluate(recording, &limits).unwrap().frames.len(), 1);
}

proptest! {
    // Enough cases to reach every field; takes a second.
    #![proptest_config(ProptestConfig::with_cases(16_384))]

    #[test]
    fn any_bytes_are_read_by_the_rules_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read_as_every_request(&bytes);
    }

    #[test]
    fn any_metadata_of_a_frame_is_read_by_the_rules_or_refused(frame in any_frame()) {
        let message = Some(v1::run_request::Message::Frame(frame));
        read_as_every_request(&v1::RunRequest { message }.encode_to_vec());
    }

    #[test]
    fn whole_messages_with_broken_bytes_are_read_by_the_rules_or_refused(
        token in ".{0,40}",
        frames in prop::collection::vec(any_frame(), 0..5),
        breaks in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        for mut bytes in valid_messages(token, frames) {
            read_as_every_request(&bytes);
            for (at, byte) in &breaks {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            read_as_every_request(&bytes);
            read_as_every_request(&bytes[..end.index(bytes.len())]);
        }
    }
}
