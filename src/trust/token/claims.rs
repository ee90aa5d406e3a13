//! The claims of a session, and the values that a request must present to run the session.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::trust::{Digest, hex};

/// Largest accepted difference between the clocks of two replicas, in milliseconds.
pub(super) const SKEW_MS: u64 = 30_000;

/// Identifier of one session: 128 random bits, so that it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Draws an identifier from the operating system's random source.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn random() -> Result<Self, TokenError> {
        Ok(Self(super::random_u128()?.to_le_bytes()))
    }

    /// Parses the text that [`SessionId`] prints. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text.as_bytes())?.try_into().ok().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SessionId> for String {
    fn from(session: SessionId) -> Self {
        session.to_string()
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a session is 32 hexadecimal digits")
    }
}

/// The claims that a session token seals. `Debug` prints the session's identifier only.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClaims {
    /// Identifier of the session.
    pub session: SessionId,
    /// Time of the session's creation, in milliseconds of Unix time.
    pub issued_unix_ms: u64,
    /// Start of the time in which the session may be run, in milliseconds of Unix time.
    pub not_before_unix_ms: u64,
    /// End of the time in which the session may be run, in milliseconds of Unix time. Exclusive.
    pub expires_unix_ms: u64,
    /// The tenant that owns the session.
    pub tenant: String,
    /// The shop that may run the session.
    pub store: String,
    /// The device that may run the session.
    pub device: String,
    /// [`crate::trust::KeyedDigests::primary`] of the transaction.
    pub transaction: Digest,
    /// SHA-256 of the portrait's file.
    pub portrait: Digest,
    /// Whether the portrait was read from a card's chip, not from a file.
    pub portrait_is_chip: bool,
    /// SHA-256 of the reference to the customer's consent.
    pub consent: Digest,
    /// False-match rate of the decision.
    pub policy_fmr: f64,
    /// Names of the actions the customer must perform, in order.
    pub actions: Vec<String>,
    /// Whether the frames come all at once, from a recording.
    pub is_batch: bool,
    /// Number of this attempt at the transaction, from 1.
    pub attempt: u32,
}

impl SessionClaims {
    /// Returns the TTL for [`crate::trust::ReplayStore::claim`]: until the token has expired on
    /// every replica, whatever the replica's clock within the allowed skew.
    pub fn claim_ttl(&self, now_unix_ms: u64) -> Duration {
        let until = self.expires_unix_ms.saturating_add(SKEW_MS);
        Duration::from_millis(until.saturating_sub(now_unix_ms).max(1))
    }

    /// Compares tenant, shop, device and portrait of the request with the claims.
    ///
    /// # Errors
    /// [`TokenError::WrongBinding`] with the first field that differs.
    pub fn check_binding(&self, presented: &PresentedBinding<'_>) -> Result<(), TokenError> {
        let same = [
            (BoundField::Tenant, self.tenant == presented.tenant),
            (BoundField::Store, self.store == presented.store),
            (BoundField::Device, self.device == presented.device),
            (BoundField::Portrait, self.portrait == presented.portrait),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((field, _)) => Err(TokenError::WrongBinding(field)),
        }
    }
}

impl fmt::Debug for SessionClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionClaims").field("session", &self.session).finish_non_exhaustive()
    }
}

/// The values that a request presents to run a session. They must equal those of the claims.
#[derive(Clone, Copy)]
pub struct PresentedBinding<'a> {
    /// Tenant of the request.
    pub tenant: &'a str,
    /// Shop of the request.
    pub store: &'a str,
    /// Device of the request.
    pub device: &'a str,
    /// SHA-256 of the portrait's file.
    pub portrait: Digest,
}

/// A field that a session is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundField {
    /// The tenant.
    Tenant,
    /// The shop.
    Store,
    /// The device.
    Device,
    /// The portrait.
    Portrait,
}

impl fmt::Display for BoundField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenant => "tenant",
            Self::Store => "store",
            Self::Device => "device",
            Self::Portrait => "portrait",
        })
    }
}
