//! Settings of liveness sessions.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::settings::{at_least_one, check};

/// Liveness sessions: their tokens and the store that lets each be used once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LivenessSettings {
    /// How long a session may be run after it was created, in milliseconds.
    pub session_ttl_ms: u64,
    /// Sessions one transaction may run. Three attempts at a false-match rate of 1e-4 are 3e-4.
    pub attempts_max: u32,
    /// File with the keys that seal session tokens: one or two lines of 64 hexadecimal digits, as
    /// `openssl rand -hex 32` writes them. The first seals, both open. Every replica needs the same.
    /// It goes with a Redis server: left out, a key is made at start, and sessions end with the
    /// process, as what `memory` remembers of them does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Where used sessions are remembered: `memory`, which serves one replica, or
    /// `redis://[user:password@]host:port/[database]` of a Redis or Valkey that never evicts and
    /// keeps what it holds through a restart.
    pub replay: ReplayTarget,
    /// Replicas of the Redis server that must hold a write before it counts. With 0 a failover can
    /// forget that a session was used.
    pub replay_replicas_min: u32,
    /// How long one question to the store may take, connecting included, in milliseconds.
    pub replay_timeout_ms: u64,
    /// Bytes that all frames of one session may have.
    pub session_bytes_max: usize,
    /// Whether callers get every reason and every check's value and limit. Left off, what would
    /// teach an attacker is gathered into one reason: turn it on only where all callers are the
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
            // Redis in the same network answers within 1 ms, WAIT within a few.
            replay_timeout_ms: 500,
            // 45 s at 10 frames a second of 70 KiB, or half of that time at 30 of 50.
            session_bytes_max: 32 << 20,
            tells_all: false,
        }
    }
}

/// Longest life of a session: AWS Face Liveness lets one live three minutes.
const SESSION_TTL_MS_MAX: u64 = 180_000;

/// Shortest life of a session: three prompts take an honest customer ten seconds and more.
const SESSION_TTL_MS_MIN: u64 = 10_000;

/// Most attempts at one transaction; each raises the false-accept rate by one false-match rate.
const ATTEMPTS_MAX: u32 = 10;

/// From fifteen seconds of small frames to a whole session at the largest rate.
const SESSION_BYTES_MAX: RangeInclusive<usize> = 1 << 20..=64 << 20;

/// Longest wait for the store: a customer stands before the camera meanwhile.
const REPLAY_TIMEOUT_MS_MAX: u64 = 10_000;

/// Most replicas that may be waited for.
const REPLAY_REPLICAS_MAX: u32 = 8;

impl LivenessSettings {
    /// How long one question to the store may take.
    pub fn replay_timeout(&self) -> Duration {
        Duration::from_millis(self.replay_timeout_ms)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check(
            (SESSION_TTL_MS_MIN..=SESSION_TTL_MS_MAX).contains(&self.session_ttl_ms),
            "liveness.session_ttl_ms",
            self.session_ttl_ms,
            "from 10000 to 180000",
        )?;
        at_least_one("liveness.attempts_max", self.attempts_max)?;
        check(
            SESSION_BYTES_MAX.contains(&self.session_bytes_max),
            "liveness.session_bytes_max",
            self.session_bytes_max,
            "from 1048576 to 67108864",
        )?;
        check(
            self.attempts_max <= ATTEMPTS_MAX,
            "liveness.attempts_max",
            self.attempts_max,
            "at most 10",
        )?;
        self.validate_replay()
    }

    fn validate_replay(&self) -> Result<(), ConfigError> {
        at_least_one("liveness.replay_timeout_ms", self.replay_timeout_ms)?;
        check(
            self.replay_timeout_ms <= REPLAY_TIMEOUT_MS_MAX,
            "liveness.replay_timeout_ms",
            self.replay_timeout_ms,
            "at most 10000",
        )?;
        check(
            self.replay_replicas_min <= REPLAY_REPLICAS_MAX,
            "liveness.replay_replicas_min",
            self.replay_replicas_min,
            "at most 8",
        )?;
        let in_memory = self.replay == ReplayTarget::Memory;
        // After a restart, kept keys would open tokens that memory no longer knows were used; and
        // replicas with keys of their own would not know each other's sessions and frames.
        let kept = self.key_file.is_some();
        check(
            kept != in_memory,
            "liveness.key_file",
            if kept { "set" } else { "not set" },
            "set with a Redis server in liveness.replay, and left out with memory",
        )?;
        // Memory has no replicas: the wish would be granted in words only.
        check(
            self.replay_replicas_min == 0 || !in_memory,
            "liveness.replay_replicas_min",
            self.replay_replicas_min,
            "0 while liveness.replay is memory",
        )
    }
}

/// Where used sessions are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReplayTarget {
    /// In this process: right for one replica, and forgotten when it ends.
    Memory,
    /// In a Redis or Valkey server that all replicas share.
    Redis(RedisUrl),
}

/// Why a text names no store. It does not repeat the text, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ReplayTargetError {
    /// Neither of the two forms.
    #[error("must be memory or redis://host:port")]
    Unknown,
    /// This build speaks no TLS to Redis.
    #[error("rediss:// is not supported: reach the server over a trusted network or a TLS tunnel")]
    Tls,
}

impl TryFrom<String> for ReplayTarget {
    type Error = ReplayTargetError;

    fn try_from(text: String) -> Result<Self, ReplayTargetError> {
        match text.split_once("://") {
            None if text == "memory" => Ok(Self::Memory),
            Some(("redis", rest)) if !rest.is_empty() => Ok(Self::Redis(RedisUrl(text))),
            Some(("rediss", _)) => Err(ReplayTargetError::Tls),
            _ => Err(ReplayTargetError::Unknown),
        }
    }
}

/// Without the password: this is what `--print-config` shows.
impl From<ReplayTarget> for String {
    fn from(target: ReplayTarget) -> Self {
        match target {
            ReplayTarget::Memory => "memory".to_owned(),
            ReplayTarget::Redis(url) => url.redacted(),
        }
    }
}

/// Address of a Redis server. It may hold a password, so it is printed without.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The whole address, password included.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn redacted(&self) -> String {
        match self.0.rsplit_once('@') {
            Some((_, place)) => format!("redis://redacted@{place}"),
            None => self.0.clone(),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<ReplayTarget, ReplayTargetError> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_store_is_memory_or_a_redis_address() {
        assert_eq!(target("memory").unwrap(), ReplayTarget::Memory);
        let ReplayTarget::Redis(url) = target("redis://valkey:6379/2").unwrap() else {
            panic!("not Redis");
        };
        assert_eq!(url.expose(), "redis://valkey:6379/2");
        for text in ["", "Memory", "redis", "redis://", "http://valkey", "memory://"] {
            assert!(matches!(target(text), Err(ReplayTargetError::Unknown)), "{text}");
        }
    }

    #[test]
    fn tls_to_redis_is_refused_by_name_and_without_repeating_the_password() {
        let error = target("rediss://user:hunter2@valkey").unwrap_err();
        assert!(matches!(error, ReplayTargetError::Tls));
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_password_of_a_store_is_printed_nowhere() {
        let with = target("redis://user:hun@ter2@valkey:6379/0").unwrap();
        assert_eq!(format!("{with:?}"), "Redis(redis://redacted@valkey:6379/0)");
        assert_eq!(String::from(with), "redis://redacted@valkey:6379/0");
        let without = target("redis://valkey:6379").unwrap();
        assert_eq!(String::from(without), "redis://valkey:6379");
    }
}
