//! One suite for every store of used sessions, and the faults that only a shared server can have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use menshen::pipeline::LivenessSettings;
use menshen::trust::{
    ClaimOutcome, Digest, KeyedDigests, ReplayError, ReplayStore, ReplayTarget, SessionId,
    SessionState,
};

use crate::redis_server::RedisServer;

const TTL: Duration = Duration::from_secs(600);

/// Longer than any test waits on a busy machine.
const TIMEOUT_MS: u64 = 10_000;

fn settings(server: &RedisServer) -> LivenessSettings {
    let replay = ReplayTarget::try_from(server.url()).unwrap();
    LivenessSettings { replay, replay_timeout_ms: TIMEOUT_MS, ..Default::default() }
}

fn open_store(settings: &LivenessSettings) -> Arc<ReplayStore> {
    let LivenessSettings { replay, replay_replicas_min, .. } = settings;
    Arc::new(ReplayStore::open(replay, *replay_replicas_min, settings.replay_timeout()).unwrap())
}

/// A store as two replicas see it. In memory both replicas are the same store.
struct StoreUnderTest {
    name: &'static str,
    replicas: [Arc<ReplayStore>; 2],
    /// Lives as long as its clients.
    _server: Option<RedisServer>,
}

fn stores_under_test() -> Vec<StoreUnderTest> {
    let memory = open_store(&LivenessSettings::default());
    let replicas = [Arc::clone(&memory), memory];
    let mut stores = vec![StoreUnderTest { name: "memory", replicas, _server: None }];
    if let Some(server) = RedisServer::start() {
        let replicas = [open_store(&settings(&server)), open_store(&settings(&server))];
        stores.push(StoreUnderTest { name: "redis", replicas, _server: Some(server) });
    }
    stores
}

fn random_session() -> SessionId {
    SessionId::random().unwrap()
}

fn keyed_digests(bytes: &[u8]) -> KeyedDigests {
    KeyedDigests { primary: Digest::of(bytes), secondary: None }
}

#[tokio::test]
async fn a_store_says_that_it_can_be_used() {
    for StoreUnderTest { name, replicas, .. } in &stores_under_test() {
        replicas[0].probe().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn a_session_is_claimed_once_on_all_replicas() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (first, second) = (random_session(), random_session());
        assert_eq!(one.claim(first, TTL).await.unwrap(), ClaimOutcome::Claimed, "{name}");
        assert_eq!(one.claim(first, TTL).await.unwrap(), ClaimOutcome::AlreadyUsed, "{name}");
        assert_eq!(two.claim(first, TTL).await.unwrap(), ClaimOutcome::AlreadyUsed, "{name}");
        assert_eq!(two.claim(second, TTL).await.unwrap(), ClaimOutcome::Claimed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_many_racing_callers_gets_a_session() {
    for StoreUnderTest { name, replicas, .. } in &stores_under_test() {
        for _ in 0..10 {
            let session = random_session();
            let racers: Vec<_> = (0..50)
                .map(|racer| {
                    let store = Arc::clone(&replicas[racer % 2]);
                    tokio::spawn(async move { store.claim(session, TTL).await.unwrap() })
                })
                .collect();
            let mut won = 0;
            for racer in racers {
                won += usize::from(racer.await.unwrap() == ClaimOutcome::Claimed);
            }
            assert_eq!(won, 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_session_goes_from_unknown_to_claimed_to_finished_and_keeps_its_first_result() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let session = random_session();
        assert_eq!(two.state(session).await.unwrap(), SessionState::Unknown, "{name}");
        one.claim(session, TTL).await.unwrap();
        assert_eq!(two.state(session).await.unwrap(), SessionState::Claimed, "{name}");
        let result = Bytes::from_static(b"PASS\0\xff");
        one.save_result(session, result.clone(), TTL).await.unwrap();
        one.save_result(session, Bytes::from_static(b"FAIL"), TTL).await.unwrap();
        assert_eq!(two.state(session).await.unwrap(), SessionState::Finished(result), "{name}");
        assert_eq!(two.claim(session, TTL).await.unwrap(), ClaimOutcome::AlreadyUsed, "{name}");
    }
}

#[tokio::test]
async fn a_result_longer_than_a_verdict_is_refused() {
    for StoreUnderTest { name, replicas: [one, _], .. } in &stores_under_test() {
        let result = one.save_result(random_session(), Bytes::from(vec![0; 8_193]), TTL).await;
        assert!(matches!(result, Err(ReplayError::ResultTooLong { len: 8_193 })), "{name}");
    }
}

#[tokio::test]
async fn attempts_are_counted_per_transaction_and_through_a_key_rotation() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (old, other) = (keyed_digests(b"old key"), keyed_digests(b"another transaction"));
        let rotated =
            KeyedDigests { primary: Digest::of(b"new key"), secondary: Some(old.primary) };
        assert_eq!(one.count_attempt(&old, 9, TTL).await.unwrap(), Some(1), "{name}");
        assert_eq!(two.count_attempt(&old, 9, TTL).await.unwrap(), Some(2), "{name}");
        assert_eq!(two.count_attempt(&rotated, 9, TTL).await.unwrap(), Some(3), "{name}");
        assert_eq!(one.count_attempt(&other, 9, TTL).await.unwrap(), Some(1), "{name}");
    }
}

#[tokio::test]
async fn an_attempt_beyond_the_maximum_is_refused_and_not_counted() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (old, new) = (keyed_digests(b"old key"), keyed_digests(b"new key"));
        let rotated = KeyedDigests { secondary: Some(old.primary), ..new.clone() };
        assert_eq!(one.count_attempt(&old, 2, TTL).await.unwrap(), Some(1), "{name}");
        assert_eq!(two.count_attempt(&old, 2, TTL).await.unwrap(), Some(2), "{name}");
        for store in [one, two, one] {
            assert_eq!(store.count_attempt(&old, 2, TTL).await.unwrap(), None, "{name}");
            assert_eq!(store.count_attempt(&rotated, 2, TTL).await.unwrap(), None, "{name}");
        }
        assert_eq!(
            one.count_attempt(&new, 2, TTL).await.unwrap(),
            Some(1),
            "{name}: counted nowhere"
        );
        assert_eq!(two.count_attempt(&old, 3, TTL).await.unwrap(), Some(3), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_race_for_attempts_get_no_more_than_the_maximum() {
    for StoreUnderTest { name, replicas, .. } in &stores_under_test() {
        let racers: Vec<_> = (0..50)
            .map(|racer| {
                let store = Arc::clone(&replicas[racer % 2]);
                tokio::spawn(async move {
                    store.count_attempt(&keyed_digests(b"42"), 3, TTL).await.unwrap()
                })
            })
            .collect();
        let mut counted = Vec::new();
        for racer in racers {
            counted.extend(racer.await.unwrap());
        }
        counted.sort_unstable();
        assert_eq!(counted, [1, 2, 3], "{name}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_back_can_be_made_again() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (transaction, other) = (keyed_digests(b"42"), keyed_digests(b"another transaction"));
        assert_eq!(one.count_attempt(&transaction, 2, TTL).await.unwrap(), Some(1), "{name}");
        assert_eq!(one.count_attempt(&transaction, 2, TTL).await.unwrap(), Some(2), "{name}");
        assert_eq!(one.count_attempt(&other, 2, TTL).await.unwrap(), Some(1), "{name}");
        two.refund_attempt(&transaction, 9, TTL).await.unwrap();
        assert_eq!(one.count_attempt(&transaction, 2, TTL).await.unwrap(), Some(2), "{name}");
        assert_eq!(two.count_attempt(&transaction, 2, TTL).await.unwrap(), None, "{name}");
        assert_eq!(one.count_attempt(&other, 2, TTL).await.unwrap(), Some(2), "{name}");
    }
}

#[tokio::test]
async fn attempts_that_were_not_counted_are_not_given_back() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let transaction = keyed_digests(b"42");
        one.refund_attempt(&transaction, 9, TTL).await.unwrap();
        assert_eq!(one.count_attempt(&transaction, 9, TTL).await.unwrap(), Some(1), "{name}");
        for store in [one, two, one] {
            store.refund_attempt(&transaction, 9, TTL).await.unwrap();
        }
        assert_eq!(two.count_attempt(&transaction, 9, TTL).await.unwrap(), Some(1), "{name}");
    }
}

#[tokio::test]
async fn a_transaction_is_given_back_only_so_many_attempts() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let transaction = keyed_digests(b"42");
        for _ in 0..2 {
            assert_eq!(one.count_attempt(&transaction, 1, TTL).await.unwrap(), Some(1), "{name}");
            two.refund_attempt(&transaction, 2, TTL).await.unwrap();
        }
        assert_eq!(one.count_attempt(&transaction, 1, TTL).await.unwrap(), Some(1), "{name}");
        two.refund_attempt(&transaction, 2, TTL).await.unwrap();
        assert_eq!(one.count_attempt(&transaction, 1, TTL).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn an_attempt_is_given_back_under_every_key() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (old, new) = (keyed_digests(b"old key"), keyed_digests(b"new key"));
        let rotated = KeyedDigests { secondary: Some(old.primary), ..new.clone() };
        assert_eq!(one.count_attempt(&old, 9, TTL).await.unwrap(), Some(1), "{name}");
        assert_eq!(one.count_attempt(&rotated, 9, TTL).await.unwrap(), Some(2), "{name}");
        two.refund_attempt(&rotated, 9, TTL).await.unwrap();
        assert_eq!(two.count_attempt(&new, 9, TTL).await.unwrap(), Some(1), "{name}");
        assert_eq!(two.count_attempt(&old, 9, TTL).await.unwrap(), Some(2), "{name}");
    }
}

#[tokio::test]
async fn a_frame_is_recognised_in_another_session_only_and_through_a_key_rotation() {
    for StoreUnderTest { name, replicas: [one, two], .. } in &stores_under_test() {
        let (first, second) = (random_session(), random_session());
        let frames = [keyed_digests(b"a"), keyed_digests(b"b")];
        let seen = one.record_frames(&frames, first, TTL).await.unwrap();
        assert_eq!(seen, [false, false], "{name}");
        let seen = one.record_frames(&frames, first, TTL).await.unwrap();
        assert_eq!(seen, [false, false], "{name}: its own frames");
        let rotated =
            KeyedDigests { primary: Digest::of(b"a2"), secondary: Some(frames[0].primary) };
        let later = [keyed_digests(b"c"), rotated, frames[1].clone(), keyed_digests(b"d")];
        let seen = two.record_frames(&later, second, TTL).await.unwrap();
        assert_eq!(seen, [false, true, true, false], "{name}");
        assert!(two.record_frames(&[], second, TTL).await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn what_a_session_leaves_expires_and_says_nothing_of_faces() {
    let Some(server) = RedisServer::start() else { return };
    let store = open_store(&settings(&server));
    let session = random_session();
    store.claim(session, TTL).await.unwrap();
    store.save_result(session, Bytes::from_static(b"PASS"), TTL).await.unwrap();
    for _ in 0..3 {
        store.count_attempt(&keyed_digests(b"42"), 3, TTL).await.unwrap();
    }
    store.refund_attempt(&keyed_digests(b"42"), 3, TTL).await.unwrap();
    store.record_frames(&[keyed_digests(b"a")], session, TTL).await.unwrap();

    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    keys.sort();
    let mut kept = Vec::new();
    for key in &keys {
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!((1..=600_000).contains(&left), "{key} lives for {left} ms");
        kept.push(redis::cmd("GET").arg(key).query_async::<String>(&mut connection).await.unwrap());
    }
    assert_eq!(kept, ["2", "", &session.to_string(), "PASS", "1"], "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("menshen:1:")), "{keys:?}");
}

#[tokio::test]
async fn refused_attempts_do_not_extend_the_ttl() {
    let Some(server) = RedisServer::start() else { return };
    let (store, transaction) = (open_store(&settings(&server)), keyed_digests(b"42"));
    assert_eq!(store.count_attempt(&transaction, 1, TTL).await.unwrap(), Some(1));
    // The server's own clock cannot be paused, so the count is set to expire soon.
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("menshen:1:attempts:{}", String::from(transaction.primary));
    let shortened: bool =
        redis::cmd("PEXPIRE").arg(&key).arg(60_000).query_async(&mut connection).await.unwrap();
    assert!(shortened);
    assert_eq!(store.count_attempt(&transaction, 1, TTL).await.unwrap(), None);
    store.refund_attempt(&transaction, 1, TTL).await.unwrap();
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!((1..=60_000).contains(&left), "{left} ms");
    assert_eq!(store.count_attempt(&transaction, 1, TTL).await.unwrap(), Some(1));
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!((60_001..=600_000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn a_claim_can_be_made_again_when_it_has_expired() {
    let Some(server) = RedisServer::start() else { return };
    let (store, session) = (open_store(&settings(&server)), random_session());
    assert_eq!(store.claim(session, TTL).await.unwrap(), ClaimOutcome::Claimed);
    assert_eq!(store.claim(session, TTL).await.unwrap(), ClaimOutcome::AlreadyUsed);
    // The server's own clock cannot be paused, so the claim is set to have expired.
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("menshen:1:claim:{session}");
    let expired: bool =
        redis::cmd("PEXPIREAT").arg(key).arg(1).query_async(&mut connection).await.unwrap();
    assert!(expired);
    assert_eq!(store.state(session).await.unwrap(), SessionState::Unknown);
    assert_eq!(store.claim(session, TTL).await.unwrap(), ClaimOutcome::Claimed);
}

#[tokio::test]
async fn a_killed_server_is_unavailable_at_once_and_works_again_after_its_restart() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = open_store(&settings(&server));
    assert_eq!(store.claim(random_session(), TTL).await.unwrap(), ClaimOutcome::Claimed);
    server.kill();
    for _ in 0..3 {
        assert!(matches!(
            store.claim(random_session(), TTL).await,
            Err(ReplayError::Unavailable(_))
        ));
        assert!(matches!(store.state(random_session()).await, Err(ReplayError::Unavailable(_))));
        assert!(matches!(store.probe().await, Err(ReplayError::Unavailable(_))));
    }
    server.restart();
    store.probe().await.unwrap();
    assert_eq!(store.claim(random_session(), TTL).await.unwrap(), ClaimOutcome::Claimed);
}

#[tokio::test]
async fn a_server_killed_with_requests_in_flight_leaves_no_caller_waiting() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = open_store(&settings(&server));
    store.probe().await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let pause_ms = 10 * TIMEOUT_MS;
    redis::cmd("CLIENT").arg("PAUSE").arg(pause_ms).exec_async(&mut connection).await.unwrap();
    let claiming =
        futures_util::future::join_all((0..50).map(|_| store.claim(random_session(), TTL)));
    let (claims, ()) = tokio::join!(claiming, async { server.kill() });
    for claim in claims {
        assert!(matches!(claim, Err(ReplayError::Unavailable(_))), "{claim:?}");
    }
}

#[tokio::test]
async fn a_claim_counts_only_when_enough_replicas_hold_it() {
    let Some(server) = RedisServer::start() else { return };
    let alone =
        LivenessSettings { replay_replicas_min: 1, replay_timeout_ms: 1_000, ..settings(&server) };
    let store = open_store(&alone);
    let missing = |result: Result<(), ReplayError>| {
        matches!(result, Err(ReplayError::TooFewReplicas { held: 0, replicas_min: 1 }))
    };
    let frames = [keyed_digests(b"a")];
    assert!(missing(store.claim(random_session(), TTL).await.map(drop)));
    assert!(missing(store.count_attempt(&keyed_digests(b"42"), 3, TTL).await.map(drop)));
    assert!(missing(store.record_frames(&frames, random_session(), TTL).await.map(drop)));
    assert!(missing(store.probe().await));

    let port = server.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).unwrap();
    let generous = LivenessSettings { replay_timeout_ms: TIMEOUT_MS, ..alone };
    let (store, used) = (open_store(&generous), random_session());
    assert_eq!(store.claim(used, TTL).await.unwrap(), ClaimOutcome::Claimed);
    assert_eq!(store.count_attempt(&keyed_digests(b"43"), 3, TTL).await.unwrap(), Some(1));
    assert_eq!(store.record_frames(&frames, used, TTL).await.unwrap(), [true]);
    let at_replica = open_store(&settings(&replica)).state(used).await.unwrap();
    assert_eq!(at_replica, SessionState::Claimed);
}

#[tokio::test]
async fn a_server_that_evicts_is_not_relied_on() {
    let evicting = ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"];
    let Some(server) = RedisServer::start_with(&evicting) else { return };
    assert!(matches!(open_store(&settings(&server)).probe().await, Err(ReplayError::Evicts)));
    let keeping = ["--maxmemory", "64mb", "--maxmemory-policy", "noeviction"];
    let server = RedisServer::start_with(&keeping).unwrap();
    open_store(&settings(&server)).probe().await.unwrap();
}
