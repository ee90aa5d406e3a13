//! Settings of liveness sessions.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::liveness::SessionLimits;
use crate::setting::{RangeCheck, Violation};
use crate::trust::ReplayTarget;

/// Section `liveness`: session tokens, and the store that lets each session be used only once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LivenessSettings {
    /// How long a session may be run after its creation, in milliseconds, from 10000 to 180000.
    pub session_ttl_ms: u64,
    /// Maximum number of sessions of one transaction, from 1 to 10. Three attempts at a false-match
    /// rate of 1e-4 have a joint rate of 3e-4.
    pub attempts_max: u32,
    /// File with the keys that seal session tokens: one or two lines of 64 hexadecimal digits, as
    /// `openssl rand -hex 32` prints them. The first key seals, both keys open. Every replica needs
    /// the same file. Required if `replay` is a Redis server. Must not be set with `memory`: the
    /// server then generates a key at start, and sessions end with the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The store of used sessions: `memory`, which serves one replica, or
    /// `redis://[user:password@]host:port/[database]` of a Redis or Valkey server. The server must
    /// never evict keys and must keep its data through a restart.
    pub replay: ReplayTarget,
    /// Replicas of the Redis server that must hold a write before the write succeeds, from 0 to 8;
    /// 0 with `memory`. With 0, a failover can lose the record that a session was used.
    pub replay_replicas_min: u32,
    /// Timeout of one call to the store, connecting included, in milliseconds, from 1 to 10000.
    pub replay_timeout_ms: u64,
    /// Maximum size of all frames of one session, in bytes, from 1048576 (1 MiB) to 67108864 (64
    /// MiB).
    pub session_bytes_max: usize,
    /// Whether callers get every reason and the value and limit of every check. If false, reasons
    /// that would help an attacker are merged into one. Set true only if all callers are the
    /// operator's own backends.
    pub tells_all: bool,
}

impl Default for LivenessSettings {
    fn default() -> Self {
        Self {
            session_ttl_ms: 120_000,
            attempts_max: 3,
            key_file: None,
            replay: ReplayTarget::Memory,
            replay_replicas_min: 0,
            // Redis in the same network answers within 1 ms, and WAIT within a few ms.
            replay_timeout_ms: 500,
            // 45 s at 10 frames a second of 70 KiB, or half of that time at 30 frames a second of
            // 50 KiB.
            session_bytes_max: 32 << 20,
            tells_all: false,
        }
    }
}

/// Three prompts take an honest customer more than ten seconds. AWS Face Liveness limits a session
/// to three minutes.
const SESSION_TTL_MS: RangeInclusive<u64> = 10_000..=180_000;

/// Each further attempt at a transaction adds the false-match rate once to the false-accept rate.
const ATTEMPTS: RangeInclusive<u32> = 1..=10;

/// From fifteen seconds of small frames to a whole session at the largest frame rate.
const SESSION_BYTES: RangeInclusive<usize> = 1 << 20..=64 << 20;

/// The customer stands before the camera while the server waits for the store.
const REPLAY_TIMEOUT_MS: RangeInclusive<u64> = 1..=10_000;

/// More than any deployment has.
const REPLAY_REPLICAS: RangeInclusive<u32> = 0..=8;

impl LivenessSettings {
    /// Returns the timeout of one call to the store.
    pub fn replay_timeout(&self) -> Duration {
        Duration::from_millis(self.replay_timeout_ms)
    }

    /// Returns the limits of a session under these settings.
    pub fn limits(&self) -> SessionLimits {
        let mut limits = SessionLimits::default();
        limits.admission.session_bytes_max = self.session_bytes_max;
        limits
    }

    /// Returns every setting outside its range.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("liveness");
        check.within("session_ttl_ms", self.session_ttl_ms, SESSION_TTL_MS);
        check.within("attempts_max", self.attempts_max, ATTEMPTS);
        check.within("session_bytes_max", self.session_bytes_max, SESSION_BYTES);
        check.within("replay_timeout_ms", self.replay_timeout_ms, REPLAY_TIMEOUT_MS);
        check.within("replay_replicas_min", self.replay_replicas_min, REPLAY_REPLICAS);
        self.check_replay(&mut check);
        check.violations()
    }

    fn check_replay(&self, check: &mut RangeCheck) {
        let in_memory = self.replay == ReplayTarget::Memory;
        // With a key file and `memory`, a restarted server would open tokens although it has
        // forgotten which were used. Replicas with different keys would not recognise each other's
        // sessions and frames.
        let has_key_file = self.key_file.is_some();
        check.require(
            has_key_file != in_memory,
            "key_file",
            if has_key_file { "set" } else { "not set" },
            "set with a Redis server in liveness.replay, and left out with memory",
        );
        // Memory has no replicas, so the setting would have no effect.
        check.require(
            self.replay_replicas_min == 0 || !in_memory,
            "replay_replicas_min",
            self.replay_replicas_min,
            "0 while liveness.replay is memory",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(settings: &LivenessSettings) -> Vec<String> {
        settings.violations().into_iter().map(|violation| violation.key).collect()
    }

    #[test]
    fn every_setting_outside_its_range_is_reported() {
        assert_eq!(LivenessSettings::default().violations(), []);
        let settings = LivenessSettings {
            session_ttl_ms: 9_999,
            attempts_max: 11,
            session_bytes_max: (1 << 20) - 1,
            replay_timeout_ms: 10_001,
            ..LivenessSettings::default()
        };
        let expected = ["session_ttl_ms", "attempts_max", "session_bytes_max", "replay_timeout_ms"]
            .map(|key| format!("liveness.{key}"));
        assert_eq!(keys(&settings), expected);
    }

    #[test]
    fn keys_and_replicas_go_with_a_redis_server_and_not_with_memory() {
        let redis = ReplayTarget::try_from("redis://valkey".to_owned()).unwrap();
        let key_file = Some(PathBuf::from("/etc/menshen/keys"));
        let shared = LivenessSettings {
            replay: redis,
            key_file,
            replay_replicas_min: 8,
            ..LivenessSettings::default()
        };
        assert_eq!(shared.violations(), []);
        let keyless = LivenessSettings { key_file: None, ..shared.clone() };
        assert_eq!(keys(&keyless), ["liveness.key_file"]);
        let many = LivenessSettings { replay_replicas_min: 9, ..shared.clone() };
        assert_eq!(keys(&many), ["liveness.replay_replicas_min"]);
        let alone = LivenessSettings { replay: ReplayTarget::Memory, ..shared };
        assert_eq!(keys(&alone), ["liveness.key_file", "liveness.replay_replicas_min"]);
    }
}
