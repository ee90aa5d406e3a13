//! Remembers which sessions were used, how they ended, how often a transaction was tried and
//! which frames were seen.
//!
//! Nothing here fails open: whoever cannot be told that a session is fresh is told nothing.
//! Nothing biometric is kept: sessions, counts, keyed digests and the bytes of a verdict.

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

/// Most bytes of one result: a verdict with every check's value is under 2 KiB.
const RESULT_BYTES_MAX: usize = 8 << 10;

/// The store of used sessions.
#[derive(Debug)]
pub enum ReplayStore {
    /// In this process, for one replica.
    Memory(MemoryReplay),
    /// In a Redis or Valkey server that all replicas share.
    Redis(RedisReplay),
}

/// Who may run a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The asker, and from now on nobody else.
    Claimed,
    /// Nobody: it was claimed before.
    AlreadyUsed,
}

/// How far a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Never claimed, or forgotten by now.
    Unknown,
    /// Claimed, without a result yet.
    Claimed,
    /// Ended with this result.
    Finished(Bytes),
}

/// Why the store gives no answer. All but [`ReplayError::ResultTooLong`] mean "unavailable".
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The address of the server is malformed.
    #[error("the address of the replay store is malformed")]
    Address(#[source] ::redis::RedisError),
    /// The server cannot be reached or answers with an error.
    #[error("the replay store is unavailable")]
    Unavailable(#[from] ::redis::RedisError),
    /// The server does not answer in time.
    #[error("the replay store did not answer within {timeout_ms} ms")]
    TimedOut {
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// A write is held by too few replicas, so a failover may forget it.
    #[error("the replay store wrote to {held} replicas, fewer than {replicas_min}")]
    TooFewReplicas {
        /// Replicas that hold the write.
        held: u32,
        /// Replicas that must.
        replicas_min: u32,
    },
    /// The server may throw away live claims to make room.
    #[error("the replay store evicts: its maxmemory-policy must be noeviction")]
    Evicts,
    /// The memory is full of what may not be forgotten yet.
    #[error("the replay store is full with {entries_max} live entries")]
    Full {
        /// Its limit.
        entries_max: usize,
    },
    /// A result is larger than a verdict can be.
    #[error("a result of {len} bytes is over {RESULT_BYTES_MAX}")]
    ResultTooLong {
        /// Its length.
        len: usize,
    },
}

impl ReplayStore {
    /// The store at `target`. A write to Redis counts when `replicas_min` replicas hold it, and one
    /// question takes at most `timeout`. Nothing is connected yet: [`ReplayStore::probe`] says
    /// whether the store can be used.
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

    /// Asks whether the store can be relied on now: it answers, replicates and does not evict.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn probe(&self) -> Result<(), ReplayError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(store) => store.probe().await,
        }
    }

    /// Takes `session` for the asker alone, for `ttl`: see [`super::SessionClaims::claim_ttl`].
    /// An error may have used it up.
    ///
    /// # Errors
    /// The store is unavailable: the session may not be run.
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

    /// Keeps the result of `session` for `ttl`. The first result stays.
    ///
    /// # Errors
    /// The store is unavailable, or the result too long.
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

    /// How far `session` is.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn state(&self, session: SessionId) -> Result<SessionState, ReplayError> {
        match self {
            Self::Memory(store) => Ok(store.state(session, Instant::now())),
            Self::Redis(store) => store.state(session).await,
        }
    }

    /// Counts an attempt at a transaction, and says the how manieth it is; `None` for one that has
    /// had its `attempts_max`. Then nothing is written: trying in vain takes no room and keeps
    /// nobody out for longer. The count is forgotten `ttl` after the last attempt that was counted.
    /// Where the count differs between keys, as it does while they are rotated, the highest holds.
    ///
    /// # Errors
    /// The store is unavailable: the attempt may not be made.
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

    /// Gives a transaction back one attempt that was counted, unless it was given `refunds_max`
    /// before, each within `ttl` of the next. When the others are forgotten does not change.
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

    /// Remembers that `session` showed these `frames`, and says of each whether another session
    /// showed it before, within the `ttl` it gave.
    ///
    /// # Errors
    /// The store is unavailable: the frames may not be judged.
    pub async fn record_frames(
        &self,
        frames: &[KeyedDigests],
        session: SessionId,
        ttl: Duration,
    ) -> Result<Vec<bool>, ReplayError> {
        // Redis takes no empty list of commands.
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Memory(store) => store.record_frames(frames, session, ttl, Instant::now()),
            Self::Redis(store) => store.record_frames(frames, session, ttl).await,
        }
    }
}
