//! The replay store that all replicas share: Redis 2.8 or later, or Valkey.
//!
//! One connection carries all commands. Any error discards the connection, and the next call opens
//! another, so the store recovers as soon as the server does. No command is retried: a claim whose
//! answer was lost counts as used.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisError, Value};

use super::{ClaimOutcome, RedisUrl, ReplayError, SessionState};
use crate::trust::{Digest, KeyedDigests, SessionId};

/// Prefix of every key, so that other programs can share the server. The number changes with the
/// format of the keys' values.
const PREFIX: &str = "menshen:1";

/// Increments the attempts under each key and renews their TTL of `ARGV[2]` milliseconds. Returns
/// the highest new count, or 0 without writing if a count has already reached `ARGV[1]`.
const COUNT_ATTEMPT: &str = "
local highest = 0
for _, key in ipairs(KEYS) do
  highest = math.max(highest, tonumber(redis.call('GET', key) or 0))
end
if highest >= tonumber(ARGV[1]) then return 0 end
for _, key in ipairs(KEYS) do
  redis.call('INCR', key)
  redis.call('PEXPIRE', key, ARGV[2])
end
return highest + 1";

/// Takes pairs of keys: the attempts of a transaction, then its refunds. Moves one attempt to the
/// refunds, unless the refunds have reached `ARGV[1]`. The refunds then expire after `ARGV[2]`
/// milliseconds.
const REFUND_ATTEMPT: &str = "
for i = 1, #KEYS, 2 do
  local counted = tonumber(redis.call('GET', KEYS[i]) or 0)
  local refunds = tonumber(redis.call('GET', KEYS[i + 1]) or 0)
  if counted > 0 and refunds < tonumber(ARGV[1]) then
    redis.call('DECR', KEYS[i])
    redis.call('INCR', KEYS[i + 1])
    redis.call('PEXPIRE', KEYS[i + 1], ARGV[2])
  end
end";

/// The replay store in a Redis server.
pub struct RedisReplay {
    client: Client,
    connection: Mutex<Option<SharedConnection>>,
    replicas_min: u32,
    timeout: Duration,
}

/// A connection, open or being opened, that all callers share.
type SharedConnection = Shared<BoxFuture<'static, Result<MultiplexedConnection, RedisError>>>;

impl RedisReplay {
    pub(super) fn new(
        url: &RedisUrl,
        replicas_min: u32,
        timeout: Duration,
    ) -> Result<Self, ReplayError> {
        let client = Client::open(url.expose()).map_err(ReplayError::Address)?;
        Ok(Self { client, connection: Mutex::new(None), replicas_min, timeout })
    }

    pub(super) async fn probe(&self) -> Result<(), ReplayError> {
        let mut commands = Pipeline::new();
        commands.cmd("INFO").arg("memory");
        let (memory_info,): (String,) = self.run_replicated(commands).await?;
        if evicts(&memory_info) { Err(ReplayError::Evicts) } else { Ok(()) }
    }

    pub(super) async fn claim(
        &self,
        session: SessionId,
        ttl: Duration,
    ) -> Result<ClaimOutcome, ReplayError> {
        let mut commands = Pipeline::new();
        set_if_absent(&mut commands, &claim_key(session), b"", ttl);
        let (first,): (bool,) = self.run_replicated(commands).await?;
        Ok(if first { ClaimOutcome::Claimed } else { ClaimOutcome::AlreadyUsed })
    }

    pub(super) async fn save_result(
        &self,
        session: SessionId,
        result: &[u8],
        ttl: Duration,
    ) -> Result<(), ReplayError> {
        let mut commands = Pipeline::new();
        set_if_absent(&mut commands, &result_key(session), result, ttl);
        let (_,): (bool,) = self.run_replicated(commands).await?;
        Ok(())
    }

    pub(super) async fn state(&self, session: SessionId) -> Result<SessionState, ReplayError> {
        let mut commands = Pipeline::new();
        commands.cmd("GET").arg(result_key(session));
        commands.cmd("EXISTS").arg(claim_key(session));
        let (result, claimed): (Option<Vec<u8>>, bool) = self.run(&commands).await?;
        Ok(match (result, claimed) {
            (Some(result), _) => SessionState::Finished(Bytes::from(result)),
            (None, true) => SessionState::Claimed,
            (None, false) => SessionState::Unknown,
        })
    }

    pub(super) async fn count_attempt(
        &self,
        transaction: &KeyedDigests,
        attempts_max: u32,
        ttl: Duration,
    ) -> Result<Option<u32>, ReplayError> {
        let keys: Vec<String> = transaction.iter().map(attempts_key).collect();
        let mut commands = Pipeline::new();
        run_script(&mut commands, COUNT_ATTEMPT, &keys, attempts_max, ttl);
        let (attempt,): (u32,) = self.run_replicated(commands).await?;
        Ok((attempt > 0).then_some(attempt))
    }

    /// Does not wait for replicas: if a failover loses the refund, the attempt stays counted.
    pub(super) async fn refund_attempt(
        &self,
        transaction: &KeyedDigests,
        refunds_max: u32,
        ttl: Duration,
    ) -> Result<(), ReplayError> {
        let pair = |digest| [attempts_key(digest), refunds_key(digest)];
        let keys: Vec<String> = transaction.iter().flat_map(pair).collect();
        let mut commands = Pipeline::new();
        run_script(&mut commands, REFUND_ATTEMPT, &keys, refunds_max, ttl);
        self.run::<()>(&commands).await
    }

    pub(super) async fn record_frames(
        &self,
        frames: &[KeyedDigests],
        session: SessionId,
        ttl: Duration,
    ) -> Result<Vec<bool>, ReplayError> {
        let own = session.to_string();
        let mut commands = Pipeline::new();
        for digest in frames.iter().flat_map(KeyedDigests::iter) {
            let key = frame_key(digest);
            set_if_absent(&mut commands, &key, own.as_bytes(), ttl);
            commands.ignore();
            commands.cmd("GET").arg(&key);
        }
        let first: Vec<Option<String>> = self.run_replicated(commands).await?;
        // `None` means that the frame's key expired between `SET` and `GET`, so it existed before
        // `SET`.
        let mut seen_elsewhere = first.into_iter().map(|first| first.as_ref() != Some(&own));
        let mut seen = Vec::with_capacity(frames.len());
        for frame in frames {
            let of_frame: Vec<bool> = seen_elsewhere.by_ref().take(frame.iter().count()).collect();
            seen.push(of_frame.contains(&true));
        }
        Ok(seen)
    }

    /// Runs `commands`, then waits until `replicas_min` replicas hold the writes.
    async fn run_replicated<T: FromRedisValue>(
        &self,
        mut commands: Pipeline,
    ) -> Result<T, ReplayError> {
        if self.replicas_min == 0 {
            return self.run(&commands).await;
        }
        // Half of the timeout, so that too few replicas give another error than a server that
        // hangs.
        let wait = millis(self.timeout / 2);
        commands.cmd("WAIT").arg(self.replicas_min).arg(wait);
        let mut answers: Vec<Value> = self.run(&commands).await?;
        let held: u32 = parse(answers.pop().ok_or_else(unexpected)?)?;
        if held < self.replicas_min {
            return Err(ReplayError::TooFewReplicas { held, replicas_min: self.replicas_min });
        }
        parse(Value::Array(answers))
    }

    /// Runs `commands` within the timeout, which includes connecting.
    async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, ReplayError> {
        let connection = self.connection();
        let answering = async {
            let mut connected = connection.clone().await?;
            commands.query_async(&mut connected).await
        };
        let answer = match tokio::time::timeout(self.timeout, answering).await {
            Ok(answer) => answer.map_err(ReplayError::Unavailable),
            Err(_) => Err(ReplayError::TimedOut { timeout_ms: millis(self.timeout) }),
        };
        if answer.is_err() {
            self.discard(&connection);
        }
        answer
    }

    /// Returns the current connection, or starts a new one.
    fn connection(&self) -> SharedConnection {
        self.connection.lock().get_or_insert_with(|| connect(self.client.clone())).clone()
    }

    /// Drops the failed connection, so that the next call opens a new one. Keeps the current
    /// connection if another call has replaced it already.
    fn discard(&self, failed: &SharedConnection) {
        let mut connection = self.connection.lock();
        if connection.as_ref().is_some_and(|current| current.ptr_eq(failed)) {
            *connection = None;
        }
    }
}

impl fmt::Debug for RedisReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplay")
            .field("replicas_min", &self.replicas_min)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Connects without a time limit: every caller has its own timeout.
fn connect(client: Client) -> SharedConnection {
    let unlimited =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    async move { client.get_multiplexed_async_connection_with_config(&unlimited).await }
        .boxed()
        .shared()
}

fn set_if_absent(commands: &mut Pipeline, key: &str, value: &[u8], ttl: Duration) {
    commands.cmd("SET").arg(key).arg(value).arg("NX").arg("PX").arg(millis(ttl));
}

/// Runs `script` atomically. The script takes a limit and a TTL in milliseconds as arguments.
fn run_script(commands: &mut Pipeline, script: &str, keys: &[String], limit: u32, ttl: Duration) {
    commands.cmd("EVAL").arg(script).arg(keys.len()).arg(keys).arg(limit).arg(millis(ttl));
}

fn claim_key(session: SessionId) -> String {
    format!("{PREFIX}:claim:{session}")
}

fn result_key(session: SessionId) -> String {
    format!("{PREFIX}:result:{session}")
}

fn attempts_key(transaction: Digest) -> String {
    format!("{PREFIX}:attempts:{}", transaction.hex())
}

/// The key says `returned`, an older word for refunded. Another key would forget the refunds that
/// are stored.
fn refunds_key(transaction: Digest) -> String {
    format!("{PREFIX}:returned:{}", transaction.hex())
}

fn frame_key(frame: Digest) -> String {
    format!("{PREFIX}:frame:{}", frame.hex())
}

/// Returns whole milliseconds, at least one: Redis refuses a TTL of zero.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, ReplayError> {
    redis::from_redis_value(value).map_err(|error| ReplayError::Unavailable(error.into()))
}

fn unexpected() -> ReplayError {
    let kind = redis::ErrorKind::UnexpectedReturnType;
    ReplayError::Unavailable((kind, "fewer answers than questions").into())
}

/// Returns whether the server may evict a live key to free memory, by its `INFO memory`. A server
/// that does not report its policy counts as one that evicts.
fn evicts(memory_info: &str) -> bool {
    let value = |name: &str| {
        memory_info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let unlimited = value("maxmemory") == Some("0");
    !unlimited && value("maxmemory_policy") != Some("noeviction")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::{ReplayStore, ReplayTarget};
    use super::*;

    fn store(url: &str, timeout_ms: u64) -> ReplayStore {
        let replay = ReplayTarget::try_from(url.to_owned()).unwrap();
        ReplayStore::open(&replay, 0, Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn a_limited_server_evicts_unless_it_says_that_it_does_not() {
        assert!(!evicts("used_memory:9\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"));
        assert!(!evicts("maxmemory:100\r\nmaxmemory_policy:noeviction\r\n"));
        assert!(evicts("maxmemory:100\r\nmaxmemory_policy:volatile-ttl\r\n"));
        assert!(evicts(""));
    }

    #[test]
    fn a_malformed_address_is_refused_at_once_and_not_repeated() {
        let replay = ReplayTarget::try_from("redis://u:hunter2@host:99999".to_owned()).unwrap();
        let error = ReplayStore::open(&replay, 0, Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, ReplayError::Address(_)));
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn the_password_of_the_server_is_not_printed() {
        let store = store("redis://u:hunter2@127.0.0.1", 1);
        assert!(!format!("{store:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_server_that_refuses_connections_is_unavailable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        drop(listener);
        let session = SessionId::random().unwrap();
        let claim = store(&url, 60_000).claim(session, Duration::from_secs(1)).await;
        assert!(matches!(claim, Err(ReplayError::Unavailable(_))), "{claim:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_within_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = store(&format!("redis://{}", listener.local_addr().unwrap()), 700);
        let (session, start) = (SessionId::random().unwrap(), tokio::time::Instant::now());
        let claim = store.claim(session, Duration::from_secs(1)).await;
        assert!(matches!(claim, Err(ReplayError::TimedOut { timeout_ms: 700 })), "{claim:?}");
        assert_eq!(start.elapsed(), Duration::from_millis(700));
    }
}
