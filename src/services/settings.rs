//! Settings of the listeners and of the calls they accept.

use std::net::SocketAddr;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::setting::{RangeCheck, Violation};

/// Section `server`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// Address and port of the gRPC listener. Port 0 picks a free port.
    pub listen: SocketAddr,
    /// Address and port of the HTTP listener with `/metrics`, `/livez` and `/readyz`.
    pub http_listen: SocketAddr,
    /// Maximum number of requests in flight, at least 1. Further requests are refused with
    /// `RESOURCE_EXHAUSTED`.
    pub requests_max: usize,
    /// Maximum total size of the request messages in flight, in bytes. Must hold the largest
    /// `Verify` (`image.bytes_max` for the portrait and for each of `image.live_photos_max`) and
    /// the largest session (`image.bytes_max`, `liveness.session_bytes_max` and 192 KiB).
    pub bytes_max: usize,
    /// Maximum number of concurrent HTTP/2 streams of one connection, at least 1.
    pub streams_per_connection_max: u32,
    /// Deadline of a request without `grpc-timeout`, in milliseconds, at least 1.
    pub timeout_default_ms: u64,
    /// Longest accepted deadline, in milliseconds, at least `timeout_default_ms`. A longer one is
    /// shortened to this.
    pub timeout_max_ms: u64,
    /// After SIGTERM: how long health reports NOT_SERVING before the listener closes, in
    /// milliseconds. Load balancers use this time to move to other replicas.
    pub drain_grace_ms: u64,
    /// After the listener has closed: how long requests in flight may take, in milliseconds.
    pub drain_timeout_ms: u64,
}

/// Bytes of a session besides its portrait and its frames: 64 KiB of identifiers, and 100 bytes for
/// each of 1350 frames.
pub const SESSION_ENVELOPE_BYTES_MAX: usize = 192 << 10;

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            requests_max: 256,
            bytes_max: 1 << 30,
            streams_per_connection_max: 256,
            timeout_default_ms: 30_000,
            timeout_max_ms: 120_000,
            drain_grace_ms: 0,
            drain_timeout_ms: 30_000,
        }
    }
}

impl ServerSettings {
    /// Returns the deadline of a request without `grpc-timeout`.
    pub fn timeout_default(&self) -> Duration {
        Duration::from_millis(self.timeout_default_ms)
    }

    /// Returns the longest accepted deadline.
    pub fn timeout_max(&self) -> Duration {
        Duration::from_millis(self.timeout_max_ms)
    }

    /// Returns every setting outside its range. The lower bound of `bytes_max` depends on other
    /// sections and is checked in `config`.
    pub fn violations(&self) -> Vec<Violation> {
        let mut check = RangeCheck::of("server");
        check.at_least_one("requests_max", self.requests_max);
        check.at_least_one("bytes_max", self.bytes_max);
        check.at_least_one("streams_per_connection_max", self.streams_per_connection_max);
        check.at_least_one("timeout_default_ms", self.timeout_default_ms);
        check.require(
            self.timeout_max_ms >= self.timeout_default_ms,
            "timeout_max_ms",
            self.timeout_max_ms,
            "at least server.timeout_default_ms",
        );
        check.violations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_nothing_and_a_longest_deadline_below_the_usual_one_are_reported() {
        assert_eq!(ServerSettings::default().violations(), []);
        let settings = ServerSettings {
            requests_max: 0,
            bytes_max: 0,
            streams_per_connection_max: 0,
            timeout_default_ms: 0,
            ..ServerSettings::default()
        };
        let keys = |settings: &ServerSettings| -> Vec<String> {
            settings.violations().into_iter().map(|violation| violation.key).collect()
        };
        let expected = [
            "server.requests_max",
            "server.bytes_max",
            "server.streams_per_connection_max",
            "server.timeout_default_ms",
        ];
        assert_eq!(keys(&settings), expected);
        let settings = ServerSettings { timeout_max_ms: 29_999, ..ServerSettings::default() };
        assert_eq!(keys(&settings), ["server.timeout_max_ms"]);
    }
}
