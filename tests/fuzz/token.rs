//! Fuzzes session tokens of callers: only a token that was sealed here is opened.
#![no_main]

mod mutation;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use menshen::trust::{Digest, SessionClaims, SessionId, SessionKeys, SessionTokens, TokenError};
use mutation::mutate;

/// A time at which the genuine token is valid, in Unix milliseconds.
const NOW: u64 = 1_000_000;

struct Sealed {
    tokens: SessionTokens,
    genuine: String,
}

/// The genuine token, sealed once per process: the nonce is random, so the fuzzer cannot learn the
/// token.
static SEALED: LazyLock<Sealed> = LazyLock::new(|| {
    let tokens = SessionTokens::new(Arc::new(SessionKeys::generate().unwrap()), "liveness");
    let claims = SessionClaims {
        session: SessionId::random().unwrap(),
        issued_unix_ms: NOW,
        not_before_unix_ms: NOW,
        expires_unix_ms: NOW + 120_000,
        tenant: "default".to_owned(),
        store: "shop-1".to_owned(),
        device: "camera-1".to_owned(),
        transaction: Digest::of(b"transaction"),
        portrait: Digest::of(b"portrait"),
        portrait_is_chip: true,
        consent: Digest::of(b"consent"),
        policy_fmr: 1e-4,
        actions: ["turn_left", "blink", "nod"].map(str::to_owned).to_vec(),
        is_batch: false,
        attempt: 1,
    };
    let genuine = tokens.seal(&claims).unwrap().expose().clone();
    assert!(tokens.open(&genuine, NOW).is_ok());
    Sealed { tokens, genuine }
});

fn check(token: &str) {
    match SEALED.tokens.open(token, NOW) {
        Ok(_) => assert_eq!(token, SEALED.genuine, "a changed token was opened"),
        Err(TokenError::Forged | TokenError::UnknownKey) => {}
        Err(other) => panic!("{other}: a token that is not genuine was read"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
        // The genuine header and footer around the bytes of the fuzzer.
        let footer = SEALED.genuine.rsplit('.').next().unwrap();
        check(&format!("v4.local.{text}.{footer}"));
    }
    let changed = mutate(SEALED.genuine.clone().into_bytes(), bytes);
    if let Ok(token) = String::from_utf8(changed) {
        check(&token);
    }
    let _ = SessionId::parse(&String::from_utf8_lossy(bytes));
});
