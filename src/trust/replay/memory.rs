//! The replay store of one replica: five bounded tables that drop expired entries only.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ClaimOutcome, ReplayError, SessionState};
use crate::trust::{Digest, KeyedDigests, SessionId};

/// Most live entries of each table except the results. With 10 judged frames a session, this is
/// enough for 100,000 sessions a day. A full table of frames takes about 150 MB.
const ENTRIES_MAX: usize = 1 << 20;

/// Most live results. With a TTL of ten minutes, this is enough for 100 sessions a second. Full of
/// results of the largest size, the table takes 512 MiB.
const RESULTS_MAX: usize = 1 << 16;

/// Most expired entries that one insertion clears. More than one, so that a table shrinks; few, so
/// that no insertion has to clear a million entries.
const CLEARED_PER_INSERT: usize = 8;

/// The replay store in this process.
#[derive(Debug)]
pub struct MemoryReplay {
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    claims: Table<SessionId, ()>,
    results: Table<SessionId, Bytes>,
    attempts: Table<Digest, u32>,
    refunds: Table<Digest, u32>,
    frames: Table<Digest, SessionId>,
}

impl Default for MemoryReplay {
    fn default() -> Self {
        Self::with_limits(ENTRIES_MAX, RESULTS_MAX)
    }
}

impl MemoryReplay {
    fn with_limits(entries_max: usize, results_max: usize) -> Self {
        Self {
            tables: Mutex::new(Tables {
                claims: Table::new(entries_max),
                results: Table::new(results_max),
                attempts: Table::new(entries_max),
                refunds: Table::new(entries_max),
                frames: Table::new(entries_max),
            }),
        }
    }

    pub(super) fn claim(
        &self,
        session: SessionId,
        ttl: Duration,
        now: Instant,
    ) -> Result<ClaimOutcome, ReplayError> {
        let claims = &mut self.tables.lock().claims;
        if claims.get(&session, now).is_some() {
            return Ok(ClaimOutcome::AlreadyUsed);
        }
        claims.put(session, (), now, ttl)?;
        Ok(ClaimOutcome::Claimed)
    }

    pub(super) fn save_result(
        &self,
        session: SessionId,
        result: Bytes,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), ReplayError> {
        let results = &mut self.tables.lock().results;
        match results.get(&session, now) {
            Some(_) => Ok(()),
            None => results.put(session, result, now, ttl),
        }
    }

    pub(super) fn state(&self, session: SessionId, now: Instant) -> SessionState {
        let tables = self.tables.lock();
        match (tables.results.get(&session, now), tables.claims.get(&session, now)) {
            (Some(result), _) => SessionState::Finished(result.clone()),
            (None, Some(())) => SessionState::Claimed,
            (None, None) => SessionState::Unknown,
        }
    }

    pub(super) fn count_attempt(
        &self,
        transaction: &KeyedDigests,
        attempts_max: u32,
        ttl: Duration,
        now: Instant,
    ) -> Result<Option<u32>, ReplayError> {
        let attempts = &mut self.tables.lock().attempts;
        let counts = transaction.iter().map(|digest| count(attempts, digest, now));
        let highest = counts.max().unwrap_or(0);
        if highest >= attempts_max {
            return Ok(None);
        }
        for digest in transaction.iter() {
            attempts.put(digest, count(attempts, digest, now) + 1, now, ttl)?;
        }
        Ok(Some(highest + 1))
    }

    pub(super) fn refund_attempt(
        &self,
        transaction: &KeyedDigests,
        refunds_max: u32,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), ReplayError> {
        let mut tables = self.tables.lock();
        let Tables { attempts, refunds, .. } = &mut *tables;
        for digest in transaction.iter() {
            let before = count(refunds, digest, now);
            if before < refunds_max
                && let Some(counted) = attempts.get_mut(&digest, now)
                && *counted > 0
            {
                refunds.put(digest, before + 1, now, ttl)?;
                *counted -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn record_frames(
        &self,
        frames: &[KeyedDigests],
        session: SessionId,
        ttl: Duration,
        now: Instant,
    ) -> Result<Vec<bool>, ReplayError> {
        let table = &mut self.tables.lock().frames;
        let mut seen = Vec::with_capacity(frames.len());
        for frame in frames {
            let mut elsewhere = false;
            for digest in frame.iter() {
                match table.get(&digest, now) {
                    Some(first) => elsewhere |= *first != session,
                    None => table.put(digest, session, now, ttl)?,
                }
            }
            seen.push(elsewhere);
        }
        Ok(seen)
    }
}

fn count(counts: &Table<Digest, u32>, digest: Digest, now: Instant) -> u32 {
    counts.get(&digest, now).copied().unwrap_or(0)
}

/// A map whose entries expire. A full map refuses new entries and never drops a live one.
#[derive(Debug)]
struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Heap of the times at which to check an entry, the earliest on top. Each entry has exactly
    /// one heap item, so that overwriting an entry takes no more memory. After an overwrite the
    /// item still holds the earlier time; at that time the item is pushed again with the new one.
    expiries: BinaryHeap<Reverse<(Instant, K)>>,
    entries_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    expires: Instant,
}

impl<K: Copy + Eq + Hash + Ord, V> Table<K, V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), expiries: BinaryHeap::new(), entries_max }
    }

    fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|entry| entry.expires > now).map(|entry| &entry.value)
    }

    fn get_mut(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        let entry = self.entries.get_mut(key).filter(|entry| entry.expires > now);
        entry.map(|entry| &mut entry.value)
    }

    /// Inserts an entry or overwrites the entry of the same key. A new entry must not expire
    /// earlier than the one it overwrites.
    fn put(&mut self, key: K, value: V, now: Instant, ttl: Duration) -> Result<(), ReplayError> {
        self.clear_expired(now);
        let expires = now + ttl;
        if let Some(entry) = self.entries.get_mut(&key) {
            *entry = Entry { value, expires };
            return Ok(());
        }
        let full = self.entries.len() >= self.entries_max;
        if full {
            return Err(ReplayError::Full { entries_max: self.entries_max });
        }
        self.entries.insert(key, Entry { value, expires });
        self.expiries.push(Reverse((expires, key)));
        Ok(())
    }

    fn clear_expired(&mut self, now: Instant) {
        for _ in 0..CLEARED_PER_INSERT {
            match self.expiries.peek() {
                Some(Reverse((expires, _))) if *expires <= now => {}
                _ => return,
            }
            let Some(Reverse((_, key))) = self.expiries.pop() else { return };
            let expires = self.entries.get(&key).map(|entry| entry.expires);
            match expires.filter(|expires| *expires > now) {
                Some(renewed) => self.expiries.push(Reverse((renewed, key))),
                None => drop(self.entries.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn session() -> SessionId {
        SessionId::random().unwrap()
    }

    fn digests(byte: u8) -> KeyedDigests {
        KeyedDigests { primary: Digest::from([byte; 32]), secondary: None }
    }

    #[test]
    fn a_claim_is_forgotten_when_its_time_is_over_and_not_before() {
        let (store, session) = (MemoryReplay::default(), session());
        let start = Instant::now();
        assert_eq!(store.claim(session, TTL, start).unwrap(), ClaimOutcome::Claimed);
        let last = start + TTL - Duration::from_nanos(1);
        assert_eq!(store.claim(session, TTL, last).unwrap(), ClaimOutcome::AlreadyUsed);
        assert_eq!(store.state(session, last), SessionState::Claimed);
        assert_eq!(store.state(session, start + TTL), SessionState::Unknown);
        assert_eq!(store.claim(session, TTL, start + TTL).unwrap(), ClaimOutcome::Claimed);
    }

    #[test]
    fn a_full_store_refuses_and_forgets_nothing_live() {
        let (store, start) = (MemoryReplay::with_limits(3, 1), Instant::now());
        let used: Vec<SessionId> = (0..3).map(|_| session()).collect();
        for session in &used {
            assert_eq!(store.claim(*session, TTL, start).unwrap(), ClaimOutcome::Claimed);
        }
        let full = store.claim(session(), TTL, start);
        assert!(matches!(full, Err(ReplayError::Full { entries_max: 3 })));
        for session in &used {
            assert_eq!(store.claim(*session, TTL, start).unwrap(), ClaimOutcome::AlreadyUsed);
        }
        assert_eq!(store.claim(session(), TTL, start + TTL).unwrap(), ClaimOutcome::Claimed);
        assert_eq!(store.tables.lock().claims.entries.len(), 1, "expired claims are cleared");
    }

    #[test]
    fn a_store_full_of_frames_still_takes_claims() {
        let (store, start) = (MemoryReplay::with_limits(1, 1), Instant::now());
        store.record_frames(&[digests(1)], session(), TTL, start).unwrap();
        let full = store.record_frames(&[digests(2)], session(), TTL, start);
        assert!(matches!(full, Err(ReplayError::Full { .. })));
        assert_eq!(store.claim(session(), TTL, start).unwrap(), ClaimOutcome::Claimed);
    }

    #[test]
    fn an_attempt_restarts_the_time_of_its_transaction() {
        let (store, start) = (MemoryReplay::default(), Instant::now());
        let half = TTL / 2;
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start).unwrap(), Some(1));
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start + half).unwrap(), Some(2));
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start + TTL).unwrap(), Some(3));
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start + TTL * 2).unwrap(), Some(1));
    }

    #[test]
    fn refused_attempts_take_no_room_and_lock_out_no_longer() {
        let (store, start) = (MemoryReplay::with_limits(2, 1), Instant::now());
        let last = start + TTL - Duration::from_nanos(1);
        assert_eq!(store.count_attempt(&digests(1), 1, TTL, start).unwrap(), Some(1));
        for _ in 0..100 {
            assert_eq!(store.count_attempt(&digests(1), 1, TTL, last).unwrap(), None);
        }
        assert_eq!(store.count_attempt(&digests(2), 1, TTL, last).unwrap(), Some(1));
        assert_eq!(store.count_attempt(&digests(1), 1, TTL, start + TTL).unwrap(), Some(1));
    }

    #[test]
    fn attempts_that_are_given_back_again_and_again_take_one_place() {
        let (store, start) = (MemoryReplay::with_limits(1, 1), Instant::now());
        for _ in 0..100 {
            assert_eq!(store.count_attempt(&digests(1), 1, TTL, start).unwrap(), Some(1));
            store.refund_attempt(&digests(1), 100, TTL, start).unwrap();
        }
        let tables = store.tables.lock();
        assert_eq!((tables.attempts.expiries.len(), tables.refunds.expiries.len()), (1, 1));
    }

    #[test]
    fn giving_back_an_attempt_does_not_restart_the_time_of_the_others() {
        let (store, start) = (MemoryReplay::default(), Instant::now());
        for attempt in 1..=3 {
            assert_eq!(store.count_attempt(&digests(1), 9, TTL, start).unwrap(), Some(attempt));
        }
        let last = start + TTL - Duration::from_nanos(1);
        store.refund_attempt(&digests(1), 1, TTL, last).unwrap();
        assert_eq!(count(&store.tables.lock().attempts, digests(1).primary, last), 2);
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start + TTL).unwrap(), Some(1));
        // The count of refunds has a TTL of its own.
        store.refund_attempt(&digests(1), 1, TTL, start + TTL).unwrap();
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, start + TTL).unwrap(), Some(2));
        store.refund_attempt(&digests(1), 1, TTL, last + TTL).unwrap();
        assert_eq!(store.count_attempt(&digests(1), 9, TTL, last + TTL).unwrap(), Some(2));
    }

    proptest! {
        /// Compares the store with a plain map of claims and expiry times. A live claim is never
        /// granted twice, an expired one can be claimed again, and the table never exceeds its
        /// limit.
        #[test]
        fn a_claim_is_exclusive_while_it_lives(
            steps in prop::collection::vec((0_u8..6, 0_u64..40, 1_u64..60), 1..80),
        ) {
            let store = MemoryReplay::with_limits(4, 4);
            let ids: Vec<SessionId> = (0..6).map(|_| session()).collect();
            let mut model: HashMap<SessionId, Instant> = HashMap::new();
            let mut now = Instant::now();
            for (who, later, ttl) in steps {
                now += Duration::from_millis(later);
                let (id, ttl) = (ids[usize::from(who)], Duration::from_millis(ttl));
                let live = model.values().filter(|expires| **expires > now).count();
                let used = model.get(&id).is_some_and(|expires| *expires > now);
                match store.claim(id, ttl, now) {
                    Ok(ClaimOutcome::AlreadyUsed) => prop_assert!(used),
                    Ok(ClaimOutcome::Claimed) => {
                        prop_assert!(!used && live < 4);
                        model.insert(id, now + ttl);
                    }
                    Err(_) => prop_assert!(!used && live == 4),
                }
                prop_assert!(store.tables.lock().claims.entries.len() <= 4);
            }
        }

        /// Compares the store with a plain map of attempts and expiry times. No attempt is dropped
        /// before its TTL ends, and each transaction takes one entry while it is stored.
        #[test]
        fn attempts_are_counted_up_to_their_most_while_they_live(
            steps in prop::collection::vec((0_u8..5, 0_u64..40), 1..80),
        ) {
            let store = MemoryReplay::with_limits(3, 1);
            let ttl = Duration::from_millis(60);
            let mut model: HashMap<u8, (u32, Instant)> = HashMap::new();
            let mut now = Instant::now();
            for (who, later) in steps {
                now += Duration::from_millis(later);
                model.retain(|_, (_, expires)| *expires > now);
                let counted = model.get(&who).map_or(0, |(count, _)| *count);
                match store.count_attempt(&digests(who), 2, ttl, now) {
                    Ok(Some(attempt)) => {
                        prop_assert!(counted < 2 && attempt == counted + 1);
                        prop_assert!(counted > 0 || model.len() < 3);
                        model.insert(who, (attempt, now + ttl));
                    }
                    Ok(None) => prop_assert_eq!(counted, 2),
                    Err(_) => prop_assert!(counted == 0 && model.len() == 3),
                }
                let attempts = &store.tables.lock().attempts;
                prop_assert_eq!(attempts.entries.len(), attempts.expiries.len());
                prop_assert!(attempts.entries.len() <= 3);
            }
        }
    }
}
