use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::trust::Digest;
use crate::trust::keys::{KEY_A, KEY_B, keys};

const NOW: u64 = 1_790_000_000_000;
const LIFE: u64 = 120_000;

fn tokens(lines: &[&str]) -> SessionTokens {
    SessionTokens::new(Arc::new(keys(lines)), "test")
}

fn claims() -> SessionClaims {
    SessionClaims {
        session: SessionId::parse("000102030405060708090a0b0c0d0e0f").unwrap(),
        issued_unix_ms: NOW,
        not_before_unix_ms: NOW,
        expires_unix_ms: NOW + LIFE,
        tenant: "north".to_owned(),
        store: "shop-7".to_owned(),
        device: "tablet-1".to_owned(),
        transaction: keys(&[KEY_A]).transaction_digests("north", "42").primary,
        portrait: Digest::of(b"portrait"),
        portrait_is_chip: false,
        consent: Digest::of(b"consent"),
        policy_fmr: 1e-4,
        actions: vec!["TURN_LEFT".to_owned(), "BLINK".to_owned(), "NOD".to_owned()],
        is_batch: false,
        attempt: 1,
    }
}

fn sealed() -> String {
    sealed_with(|_| ())
}

/// Returns the token of a session with changed claims.
fn sealed_with(change: fn(&mut SessionClaims)) -> String {
    let mut claims = claims();
    change(&mut claims);
    tokens(&[KEY_A]).seal(&claims).unwrap().expose().clone()
}

fn presented() -> PresentedBinding<'static> {
    let portrait = Digest::of(b"portrait");
    PresentedBinding { tenant: "north", store: "shop-7", device: "tablet-1", portrait }
}

/// Seals any text as if it were a payload.
fn forge(payload: &str) -> String {
    let keys = keys(&[KEY_A]);
    let footer = keys.primary().footer.as_bytes();
    LocalToken::encrypt(&keys.primary().sealing_key, payload.as_bytes(), Some(footer), None)
        .unwrap()
}

#[test]
fn a_token_opens_to_what_was_sealed() {
    assert!(tokens(&[KEY_A]).open(&sealed(), NOW).unwrap() == claims());
}

#[test]
fn the_token_says_its_key_and_nothing_of_its_claims() {
    let token = sealed();
    assert!(token.starts_with("v4.local."));
    let untrusted = UntrustedToken::<Local, V4>::try_from(&token).unwrap();
    assert_eq!(untrusted.untrusted_footer(), keys(&[KEY_A]).primary().footer.as_bytes());
    let text = String::from_utf8_lossy(untrusted.untrusted_message()).into_owned();
    assert!(!text.contains("TURN") && !text.contains("shop"));
    assert_ne!(token, sealed(), "two seals of the same claims differ");
}

#[test]
fn a_token_outlives_a_rotation_and_ends_with_its_key() {
    let token = sealed();
    assert!(tokens(&[KEY_B, KEY_A]).open(&token, NOW).is_ok());
    assert!(tokens(&[KEY_A, KEY_B]).open(&token, NOW).is_ok());
    assert_eq!(tokens(&[KEY_B]).open(&token, NOW), Err(TokenError::UnknownKey));
    let newer = tokens(&[KEY_B, KEY_A]).seal(&claims()).unwrap();
    assert_eq!(tokens(&[KEY_A]).open(newer.expose(), NOW), Err(TokenError::UnknownKey));
}

#[test]
fn a_token_under_the_name_of_another_key_is_forged() {
    let (a, b) = (keys(&[KEY_A]), keys(&[KEY_B]));
    let footer = Some(a.primary().footer.as_bytes());
    let token = LocalToken::encrypt(&b.primary().sealing_key, b"{}", footer, None).unwrap();
    assert_eq!(tokens(&[KEY_A]).open(&token, NOW), Err(TokenError::Forged));
}

#[test]
fn a_token_without_its_key_id_is_forged() {
    let token = sealed();
    let (bare, _) = token.rsplit_once('.').unwrap();
    for token in [bare.to_owned(), format!("{bare}.")] {
        assert_eq!(tokens(&[KEY_A]).open(&token, NOW), Err(TokenError::Forged));
    }
}

#[test]
fn a_token_of_another_audience_is_refused() {
    let other = SessionTokens::new(Arc::new(keys(&[KEY_A])), "other");
    assert_eq!(other.open(&sealed(), NOW), Err(TokenError::WrongAudience));
}

#[test]
fn a_token_lives_from_its_start_less_skew_to_its_end() {
    let open = |now| tokens(&[KEY_A]).open(&sealed(), now).map(|_| ());
    assert_eq!(open(NOW - SKEW_MS - 1), Err(TokenError::NotYetValid));
    assert_eq!(open(NOW - SKEW_MS), Ok(()));
    assert_eq!(open(NOW + LIFE - 1), Ok(()));
    assert_eq!(open(NOW + LIFE), Err(TokenError::Expired));
    assert_eq!(open(u64::MAX), Err(TokenError::Expired));
}

#[test]
fn a_claim_is_remembered_until_every_clock_calls_the_token_expired() {
    assert_eq!(claims().claim_ttl(NOW), Duration::from_millis(LIFE + SKEW_MS));
    assert_eq!(claims().claim_ttl(u64::MAX), Duration::from_millis(1));
}

#[test]
fn a_sealed_text_that_is_no_claims_is_refused() {
    for payload in ["x", "{}", "{\"audience\":\"test\",\"claims\":{}}", "[1]"] {
        assert_eq!(tokens(&[KEY_A]).open(&forge(payload), NOW), Err(TokenError::Forged));
    }
}

#[test]
fn claims_too_long_for_a_token_are_not_sealed() {
    let long = SessionClaims { device: "d".repeat(TOKEN_BYTES_MAX), ..claims() };
    assert_eq!(tokens(&[KEY_A]).seal(&long).map(|_| ()), Err(TokenError::TooLong));
    assert_eq!(
        tokens(&[KEY_A]).open(&forge(&" ".repeat(TOKEN_BYTES_MAX)), NOW),
        Err(TokenError::Forged)
    );
}

/// Opens a token at `now` and checks its binding against the presented values.
fn run(token: &str, now: u64, shown: &PresentedBinding<'_>) -> Result<(), TokenError> {
    tokens(&[KEY_A]).open(token, now).and_then(|claims| claims.check_binding(shown))
}

/// A token that must be refused with `reason`, and the token that would be accepted instead.
struct Attack {
    reason: TokenError,
    now: u64,
    shown: PresentedBinding<'static>,
    token: String,
    right: String,
}

fn attacks() -> [Attack; 7] {
    let honest = presented();
    let attack = |reason, token, right| Attack { reason, now: NOW, shown: honest, token, right };
    let foreign = |field, shown, change: fn(&mut SessionClaims)| Attack {
        shown,
        ..attack(TokenError::WrongBinding(field), sealed(), sealed_with(change))
    };
    let (late, later) = (NOW + LIFE, sealed_with(|claims| claims.expires_unix_ms += 1));
    let portrait = Digest::of(b"another");
    [
        attack(TokenError::Forged, tampered(), sealed()),
        attack(TokenError::UnknownKey, sealed_under(KEY_B), sealed()),
        Attack { now: late, ..attack(TokenError::Expired, sealed(), later) },
        foreign(BoundField::Tenant, PresentedBinding { tenant: "south", ..honest }, |claims| {
            claims.tenant = "south".to_owned();
        }),
        foreign(BoundField::Store, PresentedBinding { store: "shop-8", ..honest }, |claims| {
            claims.store = "shop-8".to_owned();
        }),
        foreign(BoundField::Device, PresentedBinding { device: "", ..honest }, |claims| {
            claims.device.clear();
        }),
        foreign(BoundField::Portrait, PresentedBinding { portrait, ..honest }, |claims| {
            claims.portrait = Digest::of(b"another");
        }),
    ]
}

/// Returns a token with one symbol exchanged.
fn tampered() -> String {
    let token = sealed();
    let (before, rest) = token.split_at(token.len() / 2);
    let symbol = if rest.starts_with('A') { 'B' } else { 'A' };
    format!("{before}{symbol}{}", &rest[1..])
}

fn sealed_under(key: &str) -> String {
    tokens(&[key]).seal(&claims()).unwrap().expose().clone()
}

#[test]
fn a_session_runs_only_by_its_token_in_its_time_where_it_was_created_and_with_its_portrait() {
    assert_eq!(run(&sealed(), NOW, &presented()), Ok(()));
    for Attack { reason, now, shown, token, right } in attacks() {
        assert_eq!(run(&token, now, &shown), Err(reason));
        assert_eq!(run(&right, now, &shown), Ok(()), "{reason}");
    }
}

#[test]
fn session_ids_are_random_and_read_as_they_are_printed() {
    let (one, two) = (SessionId::random().unwrap(), SessionId::random().unwrap());
    assert_ne!(one, two);
    assert_eq!(SessionId::parse(&one.to_string()), Some(one));
    for text in ["", "00", "zz0102030405060708090a0b0c0d0e0f", &"0".repeat(34)] {
        assert_eq!(SessionId::parse(text), None, "{text}");
    }
}

#[test]
fn claims_and_tokens_are_not_printed() {
    let printed = format!("{:?}", claims());
    assert!(printed.contains("00010203") && !printed.contains("shop-7"), "{printed}");
    let token = tokens(&[KEY_A]).seal(&claims()).unwrap();
    assert_eq!(format!("{token:?}"), "Secret(redacted)");
}

proptest! {
    #[test]
    fn any_claims_open_to_what_was_sealed(
        names in proptest::array::uniform3("\\PC{0,64}"),
        policy_fmr in 1e-9..1.0_f64,
        actions in proptest::collection::vec("[A-Z_]{1,16}", 0..6),
        attempt: u32,
    ) {
        let [tenant, store, device] = names;
        let claims = SessionClaims {
            tenant, store, device, policy_fmr, actions, attempt, ..claims()
        };
        let tokens = tokens(&[KEY_A]);
        let token = tokens.seal(&claims).unwrap();
        prop_assert!(tokens.open(token.expose(), NOW).unwrap() == claims);
    }

    #[test]
    fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = sealed().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Bytes that are not UTF-8 cannot arrive: a protobuf string refuses them.
        if let Ok(token) = String::from_utf8(bytes) {
            prop_assert!(tokens(&[KEY_A]).open(&token, NOW).is_err());
        }
    }

    #[test]
    fn any_other_symbol_in_place_of_one_is_refused(
        at: prop::sample::Index,
        symbol in "[A-Za-z0-9_.-]",
    ) {
        let token = sealed();
        let at = at.index(token.len());
        let changed = format!("{}{symbol}{}", &token[..at], &token[at + 1..]);
        prop_assume!(changed != token);
        prop_assert!(tokens(&[KEY_A]).open(&changed, NOW).is_err());
    }

    #[test]
    fn any_truncation_is_refused(at: prop::sample::Index) {
        let token = sealed();
        let cut = &token[..at.index(token.len())];
        prop_assert!(tokens(&[KEY_A]).open(cut, NOW).is_err());
        prop_assert!(tokens(&[KEY_A]).open(&token[cut.len() + 1..], NOW).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>, body in "[A-Za-z0-9_-]{0,200}") {
        let tokens = tokens(&[KEY_A, KEY_B]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let genuine = sealed();
        let (_, footer) = genuine.rsplit_once('.').unwrap();
        for token in [
            text.clone(),
            format!("v4.local.{text}"),
            format!("v4.local.{body}.{body}"),
            format!("v4.local.{body}.{footer}"),
            forge(&format!("{text} ")),
        ] {
            prop_assert!(tokens.open(&token, NOW).is_err());
        }
    }
}
