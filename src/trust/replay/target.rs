//! The location of the replay store, as the settings give it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The location of the replay store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReplayTarget {
    /// In this process: for one replica only, and lost when the process ends.
    Memory,
    /// In a Redis or Valkey server that all replicas share.
    Redis(RedisUrl),
}

/// Why a text is not the location of a replay store. The error does not repeat the text, which may
/// hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ReplayTargetError {
    /// The text has neither of the two forms.
    #[error("must be memory or redis://host:port")]
    Unknown,
    /// This build does not support TLS to Redis.
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

/// Returns the text without the password. `--print-config` prints it.
impl From<ReplayTarget> for String {
    fn from(target: ReplayTarget) -> Self {
        match target {
            ReplayTarget::Memory => "memory".to_owned(),
            ReplayTarget::Redis(url) => url.redacted(),
        }
    }
}

/// Address of a Redis server. `Debug` does not print the password in the address.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Returns the whole address, password included.
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
