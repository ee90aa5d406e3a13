//! What a session was promised, and what must be shown to run it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::trust::{Digest, hex};

/// How far the clocks of two replicas may be apart.
pub(super) const SKEW_MS: u64 = 30_000;

/// Name of one session: 128 random bits, which nobody can guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A new one, from the operating system's random source.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn random() -> Result<Self, TokenError> {
        Ok(Self(super::random_u128()?.to_le_bytes()))
    }

    /// Reads what [`SessionId`] prints; `None` for anything else.
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

/// What a session was promised when it was created. `Debug` prints the session alone.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClaims {
    /// The session.
    pub session: SessionId,
    /// When it was created, in milliseconds of Unix time.
    pub issued_unix_ms: u64,
    /// From when on it may be run.
    pub not_before_unix_ms: u64,
    /// From when on it may not be run any more.
    pub expires_unix_ms: u64,
    /// Whose session it is.
    pub tenant: String,
    /// The shop that may run it.
    pub store: String,
    /// The device that may run it.
    pub device: String,
    /// [`crate::trust::KeyedDigests::primary`] of the transaction it belongs to.
    pub transaction: Digest,
    /// SHA-256 of the portrait's bytes.
    pub portrait: Digest,
    /// The portrait was read from a card's chip, not from a file.
    pub portrait_is_chip: bool,
    /// SHA-256 of the reference to the customer's consent.
    pub consent: Digest,
    /// False-match rate to decide at.
    pub policy_fmr: f64,
    /// What the customer is asked to do, in this order.
    pub actions: Vec<String>,
    /// The frames come all at once, from a recording.
    pub is_batch: bool,
    /// Which attempt at the transaction this is, from 1.
    pub attempt: u32,
}

impl SessionClaims {
    /// How long the claim of this session must be remembered: until no replica, however its
    /// clock runs, would open the token any more.
    pub fn claim_ttl(&self, now_unix_ms: u64) -> Duration {
        let until = self.expires_unix_ms.saturating_add(SKEW_MS);
        Duration::from_millis(until.saturating_sub(now_unix_ms).max(1))
    }

    /// Checks that the session is run by whom, where and with what it was created for.
    ///
    /// # Errors
    /// The first field that differs.
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

/// Who runs a session, where and with what.
#[derive(Clone, Copy)]
pub struct PresentedBinding<'a> {
    /// Whose request it is.
    pub tenant: &'a str,
    /// The shop it comes from.
    pub store: &'a str,
    /// The device it comes from.
    pub device: &'a str,
    /// SHA-256 of the portrait's bytes.
    pub portrait: Digest,
}

/// What a session is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundField {
    /// Whose session it is.
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
