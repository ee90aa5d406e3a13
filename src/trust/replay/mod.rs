//! Records which sessions were used, their results, the attempts at each transaction, and the
//! frames that were judged.
//!
//! The store fails closed: if it cannot say that a session is unused, the session is not run. The
//! store holds no biometric data: only session ids, counts, keyed digests and encoded results.

mod memory;
mod redis;
mod target;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::trust::{KeyedDigests, SessionId};
use memory::MemoryReplay;
use redis::RedisReplay;
pub use target::{RedisUrl, ReplayTarget, ReplayTargetError};

/// Size limit of one result in bytes. A verdict with every check's value is under 2 KiB.
const RESULT_BYTES_MAX: usize = 8 << 10;

/// The replay store.
#[derive(Debug)]
pub enum ReplayStore {
    /// In this process, for one replica.
    Memory(MemoryReplay),
    /// In a Redis or Valkey server that all replicas share.
    Redis(RedisReplay),
}

/// The outcome of claiming a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The session is claimed now. Every later claim fails.
    Claimed,
    /// The session was claimed before.
    AlreadyUsed,
}

/// The progress of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// The session was never claimed, or the TTL of its claim has passed.
    Unknown,
    /// The session was claimed and has no result yet.
    Claimed,
    /// The session ended with this result.
    Finished(Bytes),
}

/// Why a call of the store failed. All variants except [`ReplayError::ResultTooLong`] mean that the
/// store is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The address of the server is malformed.
    #[error("the address of the replay store is malformed")]
    Address(#[source] ::redis::RedisError),
    /// The server cannot be reached or answered with an error.
    #[error("the replay store is unavailable")]
    Unavailable(#[from] ::redis::RedisError),
    /// The server did not answer in time.
    #[error("the replay store did not answer within {timeout_ms} ms")]
    TimedOut {
        /// The timeout in milliseconds.
        timeout_ms: u64,
    },
    /// Too few replicas hold a write, so that a failover could lose it.
    #[error("the replay store wrote to {held} replicas, fewer than {replicas_min}")]
    TooFewReplicas {
        /// Replicas that hold the write.
        held: u32,
        /// Replicas that must hold the write.
        replicas_min: u32,
    },
    /// The server may evict live claims to free memory.
    #[error("the replay store evicts: its maxmemory-policy must be noeviction")]
    Evicts,
    /// A table in memory is full of live entries.
    #[error("the replay store is full with {entries_max} live entries")]
    Full {
        /// The limit of the table.
        entries_max: usize,
    },
    /// A result is larger than a verdict can be.
    #[error("a result of {len} bytes is over {RESULT_BYTES_MAX}")]
    ResultTooLong {
        /// Length of the result in bytes.
        len: usize,
    },
}

impl ReplayStore {
    /// Creates the store at `target`. A write to Redis succeeds when `replicas_min` replicas hold
    /// it; each call takes at most `timeout`. This function does not connect:
    /// [`ReplayStore::probe`] tells whether the store can be used.
    ///
    /// # Errors
    /// [`ReplayError::Address`].
    pub fn open(
        target: &ReplayTarget,
        replicas_min: u32,
        timeout: Duration,
    ) -> Result<Self, ReplayError> {
        Ok(match target {
            ReplayTarget::Memory => Self::Memory(MemoryReplay::default()),
            ReplayTarget::Redis(url) => Self::Redis(RedisReplay::new(url, replicas_min, timeout)?),
        })
    }

    /// Checks that the store answers, replicates and does not evict.
    ///
    /// # Errors
    /// The reason why the store cannot be used.
    pub async fn probe(&self) -> Result<(), ReplayError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(store) => store.probe().await,
        }
    }

    /// Claims `session`, so that no other caller can run it for `ttl`. See
    /// [`super::SessionClaims::claim_ttl`]. After an error the session may be claimed all the same.
    ///
    /// # Errors
    /// The store is unavailable: the session must not be run.
    pub async fn claim(
        &self,
        session: SessionId,
        ttl: Duration,
    ) -> Result<ClaimOutcome, ReplayError> {
        match self {
            Self::Memory(store) => store.claim(session, ttl, Instant::now()),
            Self::Redis(store) => store.claim(session, ttl).await,
        }
    }

    /// Stores the result of `session` for `ttl`. A second result of the same session is ignored.
    ///
    /// # Errors
    /// The store is unavailable, or the result is too long.
    pub async fn save_result(
        &self,
        session: SessionId,
        result: Bytes,
        ttl: Duration,
    ) -> Result<(), ReplayError> {
        if result.len() > RESULT_BYTES_MAX {
            return Err(ReplayError::ResultTooLong { len: result.len() });
        }
        match self {
            Self::Memory(store) => store.save_result(session, result, ttl, Instant::now()),
            Self::Redis(store) => store.save_result(session, &result, ttl).await,
        }
    }

    /// Returns the progress of `session`.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn state(&self, session: SessionId) -> Result<SessionState, ReplayError> {
        match self {
            Self::Memory(store) => Ok(store.state(session, Instant::now())),
            Self::Redis(store) => store.state(session).await,
        }
    }

    /// Records an attempt at a transaction and returns its number, or `None` at `attempts_max`. A
    /// refused attempt is not stored and does not extend the TTL. The count expires `ttl` after the
    /// last recorded attempt. During a key rotation the counts under the two keys may differ; the
    /// higher one holds.
    ///
    /// # Errors
    /// The store is unavailable: the attempt must not be made.
    pub async fn count_attempt(
        &self,
        transaction: &KeyedDigests,
        attempts_max: u32,
        ttl: Duration,
    ) -> Result<Option<u32>, ReplayError> {
        match self {
            Self::Memory(store) => {
                store.count_attempt(transaction, attempts_max, ttl, Instant::now())
            }
            Self::Redis(store) => store.count_attempt(transaction, attempts_max, ttl).await,
        }
    }

    /// Subtracts one recorded attempt of a transaction, unless `refunds_max` attempts were refunded
    /// before. The count of refunds expires `ttl` after the last refund. A refund does not change
    /// the TTL of the attempts.
    ///
    /// # Errors
    /// The store is unavailable: the attempt may stay counted.
    pub async fn refund_attempt(
        &self,
        transaction: &KeyedDigests,
        refunds_max: u32,
        ttl: Duration,
    ) -> Result<(), ReplayError> {
        match self {
            Self::Memory(store) => {
                store.refund_attempt(transaction, refunds_max, ttl, Instant::now())
            }
            Self::Redis(store) => store.refund_attempt(transaction, refunds_max, ttl).await,
        }
    }

    /// Records that `session` showed `frames`, for `ttl`. Returns for each frame whether another
    /// session showed it before, within the `ttl` of that session's record.
    ///
    /// # Errors
    /// The store is unavailable: the frames must not be judged.
    pub async fn record_frames(
        &self,
        frames: &[KeyedDigests],
        session: SessionId,
        ttl: Duration,
    ) -> Result<Vec<bool>, ReplayError> {
        // Redis refuses an empty list of commands.
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Memory(store) => store.record_frames(frames, session, ttl, Instant::now()),
            Self::Redis(store) => store.record_frames(frames, session, ttl).await,
        }
    }
}
