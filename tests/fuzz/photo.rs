//! Fuzzes pictures of callers: each is decoded within the limits or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use menshen::image::{ImageSettings, check_format, decode};

const LIMITS: ImageSettings = ImageSettings {
    bytes_max: 64 << 10,
    side_max: 512,
    pixels_max: 256 * 256,
    live_photos_max: 1,
    decoded_max: 1,
};

fuzz_target!(
    // `decode` catches panics of the decoders and returns an error. Only a panic that leaves
    // `decode` is a finding.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| {
        let is_known = check_format(bytes).is_ok();
        if let Ok(image) = decode(bytes, &LIMITS) {
            let [width, height] = [image.width(), image.height()];
            assert!(is_known && bytes.len() <= LIMITS.bytes_max);
            assert!(width.max(height) <= LIMITS.side_max);
            assert!((1..=LIMITS.pixels_max).contains(&(width * height)));
        }
    }
);
